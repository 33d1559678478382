# SPDX-License-Identifier: Apache-2.0
"""Which groups save more of a model's time than of its MACs, by a rule of thumb of the target.

A run is taken to cost one unit for each multiply-accumulate, of widths rounded up to what the kernels work
on, and ten for each element that an operator reads or writes: what 990 convolutions of all kinds took in
onnxruntime on one AVX-512 core was 0.009 ns for a MAC and 0.087 ns for an element, and this predicts nine of
ten to between 0.6 and 1.3 of what was measured. Nothing is timed, so a plan is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import Model, Node, is_constant
from .layers import Sizes
from .spend import Axis, Spend
from .widths import steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .job import Job

ELEMENT = 10.0  # MACs that reading or writing an element is worth

_FUSED = frozenset({"BatchNormalization", "Clip", "HardSigmoid", "LeakyRelu", "Relu"})
_VIEWS = frozenset({"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})


def gains(spend: Spend, model: Model, job: Job, bindings: Mapping[str, int]) -> NDArray[np.float64] | None:
    """By group, the share of the time that goes with half of it, over the share of the MACs; [groups].

    1 where a group takes as much of the time as of the MACs, 0 where cutting it saves no MACs. Each group is
    looked at by itself, to first order: a term that two axes of one group enter counts twice in both shares.

    Args:
        spend: of the model.
        model: shapes inferred.
        job: its limits say which widths groups may have; `align` is what the kernels work on.
        bindings: sizes of named dims.

    Returns:
        None where the job's budget counts no MACs, or its aim is not time.
    """
    if job.budget.kind != "macs" or job.limits.aim != "time":
        return None
    axes, align = spend.axes, job.limits.align
    full = axes.original
    made, read = _rounded(full, align), _read(full, align)
    macs, by_made, by_read = np.zeros(full.size), np.zeros(full.size), np.zeros(full.size)
    all_macs = all_effort = 0.0
    for value, node, product in spend.mac_terms():
        here = [(axes.index[key], _is_made(node, key)) for key in product if key in axes.index]
        effort = value * prod(float((made if out else read)[row] / full[row]) for row, out in here)
        all_macs += value
        all_effort += effort
        for row, out in here:
            macs[row] += value
            (by_made if out else by_read)[row] += effort
    sizes = Sizes(bindings)
    for node in model.graph:
        for value in () if node.op_type in _FUSED | _VIEWS else (*node.inputs, *node.outputs):
            if value is None or is_constant(value):
                continue
            shape = sizes.of(value)
            effort = ELEMENT * prod(shape) if shape else 0.0
            all_effort += effort
            for key in ((value, axis) for axis in range(len(shape or ()))):
                if key in axes.index:
                    by_made[axes.index[key]] += effort
    kept = _halves(spend, align)
    rows, less = axes.without(kept)
    saved = axes.summed(macs[rows] * (1 - less / full[rows]))
    effort = axes.summed(
        by_made[rows] * (1 - _rounded(less, align) / made[rows])
        + by_read[rows] * (1 - _read(less, align) / read[rows])
    )
    if not all_macs or not all_effort:
        return np.ones(kept.size)
    return np.where(saved > 0, effort / np.maximum(saved, 1e-300) * (all_macs / all_effort), 0.0)


def _halves(spend: Spend, align: int) -> NDArray[np.float64]:
    """The width nearest to half of each group, of those it may have; at least one step less than all."""
    found: list[int] = []
    for group in spend.coupling.groups:
        rule = steps(group, align, halve=True)
        near = int(rule.nearest(group.atoms // 2))
        found.append(near if near < group.atoms else int(rule.allowed()[0]))
    return np.array(found, np.float64)


def _rounded(sizes: NDArray[np.float64], align: int) -> NDArray[np.float64]:
    return np.ceil(sizes / align) * align


def _read(sizes: NDArray[np.float64], align: int) -> NDArray[np.float64]:
    """Channels summed over are blocked, too, but not when they are fewer than one block."""
    return np.where(sizes <= align, sizes, _rounded(sizes, align))


def _is_made(node: Node, key: Axis) -> bool:
    """Whether the axis is one of what the node makes, not one it sums over."""
    if node.op_type == "ConvTranspose":
        return is_constant(key[0])
    return key[0] in node.outputs
