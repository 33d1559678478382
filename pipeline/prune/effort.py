# SPDX-License-Identifier: Apache-2.0
"""What a choice of widths saves of a model's time, by a rule of thumb of the target.

A run is taken to cost one unit for each multiply-accumulate, of widths rounded up to what the kernels work
on, and `ELEMENT` for each element that an operator reads or writes (`backends.onnxruntime.speeds`). Nothing
is timed, so a plan is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.cost import working_nodes
from ...backends.onnxruntime.speeds import ELEMENT_PS, MAC_PS
from ...graph_ir import Model, Node, is_constant
from .layers import Sizes
from .products import Axis
from .spend import Spend
from .widths import steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .choice import Kept

ELEMENT = ELEMENT_PS / MAC_PS  # MACs that reading or writing an element is worth
WORTH = 0.03  # share of the time that must be foreseen to be saved, for other channels to go than by score

_FUSED = frozenset({"BatchNormalization", "Clip", "HardSigmoid", "LeakyRelu", "Relu"})
_VIEWS = frozenset({"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})


class Effort:
    """Predicts the share of a model's time that is left, and which groups save most of it.

    Args:
        spend: of the model.
        model: shapes inferred.
        align: channels that kernels work on at a time.
        bindings: sizes of named dims.
    """

    def __init__(self, spend: Spend, model: Model, align: int, bindings: Mapping[str, int]) -> None:
        self._spend = spend
        self._align = align
        axes = spend.axes
        count = axes.original.size
        macs = np.zeros(count)
        self._all_macs = self._constant = 0.0
        values: list[float] = []
        starts: list[int] = []
        factors: list[int] = []  # places in `_shares`
        for value, node, product, _ in spend.mac_terms():
            rows = [(axes.index[key], _is_made(node, key)) for key in product if key in axes.index]
            self._all_macs += value
            if not rows:
                self._constant += value
                continue
            values.append(value)
            starts.append(len(factors))
            factors += [row if out else count + row for row, out in rows]
            for row, _ in rows:
                macs[row] += value
        sizes = Sizes(bindings)
        for node in working_nodes(model.graph):
            for value in () if node.op_type in _FUSED | _VIEWS else (*node.inputs, *node.outputs):
                shape = None if value is None or is_constant(value) else sizes.of(value)
                if value is None or not shape:
                    continue
                elements = ELEMENT * prod(shape)
                rows = [axes.index[value, axis] for axis in range(len(shape)) if (value, axis) in axes.index]
                if rows:
                    values.append(elements)
                    starts.append(len(factors))
                    factors += rows
                else:
                    self._constant += elements
        self._macs = macs
        self._values = np.array(values, np.float64)
        self._starts = np.array(starts, np.int64)
        self._factors = np.array(factors, np.int64)
        self._whole = self._total(self._shares(axes.original))

    def left(self, kept: Kept) -> float:
        """The share of the time that is left when group i of the coupling keeps `kept[i]` atoms."""
        if not self._whole:
            return 1.0
        return self._total(self._shares(self._spend.axes.sizes(kept))) / self._whole

    def gains(self) -> NDArray[np.float64]:
        """By group, the share of the time that goes with half of it, over the share of the MACs; [groups].

        1 where a group takes as much of the time as of the MACs, 0 where cutting it saves no MACs. Each group
        is looked at by itself, to first order: a term that two axes of one group enter counts twice in both.
        """
        axes, align = self._spend.axes, self._align
        full, count = axes.original, axes.original.size
        terms = self._terms(self._shares(full))
        through = np.bincount(
            self._factors,
            np.repeat(terms, np.diff(np.append(self._starts, self._factors.size))),
            minlength=2 * count,
        )
        kept = self._halves()
        if not self._all_macs or not self._whole:
            return np.ones(kept.size)
        rows, less = axes.without(kept)
        saved = axes.summed(self._macs[rows] * (1 - less / full[rows]))
        made, read = through[:count], through[count:]
        effort = axes.summed(
            made[rows] * (1 - _rounded(less, align) / _rounded(full, align)[rows])
            + read[rows] * (1 - _read(less, align) / _read(full, align)[rows])
        )
        ratio = effort / np.maximum(saved, 1e-300) * (self._all_macs / self._whole)
        return np.where(saved > 0, ratio, 0.0)

    def _shares(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """What axes count as, over what they were: as a node makes them, then as it sums over them."""
        full = np.maximum(self._spend.axes.original, 1)
        return np.concatenate([_rounded(sizes, self._align) / full, _read(sizes, self._align) / full])

    def _terms(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._values.size:
            return self._values
        return self._values * np.multiply.reduceat(shares[self._factors], self._starts)

    def _total(self, shares: NDArray[np.float64]) -> float:
        return self._constant + float(self._terms(shares).sum())

    def _halves(self) -> NDArray[np.float64]:
        """The width nearest to half of each group, of those it may have; at least one step less than all."""
        found: list[int] = []
        for group in self._spend.coupling.groups:
            rule = steps(group, self._align, halve=True)
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
