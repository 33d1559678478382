# SPDX-License-Identifier: Apache-2.0
"""In which order layers are refitted, and what a residual branch lets a layer make up for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.liveness import reads
from ...graph_ir import Model, Node, Value, constant, is_constant
from ...graph_ir.ops import float_attr, ints_attr, is_op
from .linear import Linear, view

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Undo = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Step:
    """One layer to refit.

    Attributes:
        linear: the layer, in the pruned model.
        level: it needs the new weights of layers of lower levels only.
        branch: the other operand of the residual Add behind it, where the layer comes last: what that operand
            is off the original can be made up for.
        undo: takes a difference at the Add back to the layer's own output.
    """

    linear: Linear
    level: int
    branch: Value | None
    undo: tuple[Undo, ...]


def schedule(pruned: Model, cut: Collection[str]) -> tuple[list[Step], dict[str, str]]:
    """The layers that meet values other than the original's, in order of level, and why some are left out.

    Args:
        pruned: the sliced model.
        cut: names of activations that lost channels.
    """
    order = {node: i for i, node in enumerate(pruned.graph)}
    levels: dict[Value, int] = {}  # of values that differ; absent ones are as in the original
    steps: list[Step] = []
    left: dict[str, str] = {}
    for node in pruned.graph:
        inputs = [levels[v] for v in reads(node) if v in levels]
        differs = bool(inputs) or any(v.name in cut and not is_constant(v) for v in reads(node))
        level = max(inputs, default=0)
        if is_op(node, "Conv", "Gemm", "MatMul"):
            linear = view(node)
            if isinstance(linear, Linear):
                branch, undo = _branch(linear, order)
                if branch in levels:
                    differs, level = True, max(level, levels[branch])
                if differs:
                    level += 1
                    steps.append(Step(linear, level, branch, undo))
            elif differs and any(is_constant(v) for v in node.inputs):
                left[node.outputs[0].name or ""] = linear
        if not differs:
            continue
        for output in node.outputs:
            levels[output] = level
    return sorted(steps, key=lambda step: step.level), left


def _branch(linear: Linear, order: dict[Node, int]) -> tuple[Value | None, tuple[Undo, ...]]:
    """The earlier operand of the Add that a layer's output reaches through normalisation and moves."""
    undo: list[Undo] = []
    value = linear.y
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1:
            break
        node, index = uses[0]
        if node not in order:
            return None, ()
        if is_op(node, "BatchNormalization") and index == 0:
            step = _unscaled(node)
            if step is None:
                return None, ()
            undo.append(step)
        elif is_op(node, "Transpose"):
            undo.append(_turned_back(node))
        elif is_op(node, "Add") and len(node.inputs) == 2:
            other = node.inputs[1 - index]
            if other is None:
                return None, ()
            if not is_constant(other):
                maker = other.producer()
                comes_last = maker is None or order.get(maker, len(order)) < order[linear.node]
                return (other, tuple(reversed(undo))) if comes_last else (None, ())
        elif not is_op(node, "Identity"):
            return None, ()
        value = node.outputs[0]
    return None, ()


def _unscaled(node: Node) -> Undo | None:
    scale, variance = constant(node.inputs[1]), constant(node.inputs[4])
    if scale is None or variance is None or len(node.outputs) > 1:
        return None
    deviation = np.sqrt(variance.astype(np.float64) + float_attr(node, "epsilon", 1e-5))
    factor = scale.astype(np.float64) / deviation
    # A channel the normalisation all but silences cannot make up for anything.
    back = np.where(np.abs(factor) > 1e-2, 1.0 / np.where(factor == 0.0, 1.0, factor), 0.0)
    return lambda array: array * back.reshape(-1, *[1] * (array.ndim - 2))


def _turned_back(node: Node) -> Undo:
    perm = ints_attr(node, "perm")
    inverse = None if perm is None else np.argsort(perm).tolist()
    return lambda array: np.transpose(array, inverse)
