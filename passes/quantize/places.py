# SPDX-License-Identifier: Apache-2.0
"""Places where a positive factor for each channel can be moved from one operator to those that read it.

    f(s z) = s f(z) for s > 0     holds for Relu, LeakyRelu, PRelu, a Clip whose bounds are 0 or infinite, max
                                  and average pools (padding counts as 0 or not at all)
    y = W2 f(W1 x + b1) = (W2 S) f(S^-1 W1 x + S^-1 b1), S diagonal and positive

A Clip with another bound (Relu6) is not homogeneous: s f(z / s) clamps at s times the bound, which one Clip
cannot say for each channel. It ends the search, and so do Sigmoid, Gelu and all else that is not linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

from ...graph_ir import Graph, Node, Rewriter, Value, constant, is_constant
from ...graph_ir.ops import dims, input_at, int_attr, is_op, is_read, only_user, rank
from ..fuse.linear import Folded, Linear, view
from ..fuse.weights import Wide
from ..linear.bias import bias_add
from ..linear.rows import OPS
from ..pattern import Miss
from .kinds import bounds_of

_ELEMENTWISE = ("Relu", "LeakyRelu", "PRelu", "Clip")
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_SHAPING = ("Flatten", "Reshape", "Squeeze")


@dataclass(frozen=True)
class Layer:
    """A linear operator with constant weights in one graph.

    Attributes:
        linear: its weights by channel.
        root: the node whose output is the result: the operator, or the Add of a MatMul's bias.
    """

    linear: Linear
    root: Node


@dataclass(frozen=True)
class Place:
    """A value whose channels can be scaled.

    Attributes:
        source: what the factor is taken out of.
        sinks: the linear operators that read it, which take the factor in; no one else does.
        value: what they read.
        axis: its channel axis, counted from the end.
    """

    source: Layer
    sinks: tuple[Layer, ...]
    value: Value
    axis: int


def layers(graph: Graph, opset: int) -> dict[Node, Layer]:
    """The linear operators of a graph whose weights may be changed, in graph order, by their node."""
    found: dict[Node, Layer] = {}
    for node in graph:
        layer = _layer(node, opset) if is_op(node, *OPS) and len(node.inputs) > 1 else None
        if layer is not None:
            found[node] = layer
    return found


def _layer(node: Node, opset: int) -> Layer | None:
    left, right = node.inputs[:2]
    if left is None or right is None:
        return None
    x, weight = (right, left) if node.op_type == "MatMul" and is_constant(left) else (left, right)
    if not is_constant(weight) or is_constant(x):
        return None
    root, bias = node, input_at(node, 2)
    if node.op_type == "MatMul" and (added := bias_add(node)) is not None:
        root, bias = added
    if bias is not None and not is_constant(bias):
        return None
    linear = view(node, x, weight, bias, opset)
    if isinstance(linear, Miss) and root is not node:
        root, linear = node, view(node, x, weight, None, opset)
    if isinstance(linear, Miss) or not _finite(weight) or not _finite(bias):
        return None
    return Layer(linear, root)


def _finite(value: Value | None) -> bool:
    array = constant(value)
    return array is None or bool(np.isfinite(array).all())


def places(found: dict[Node, Layer]) -> Iterator[Place]:
    """Where the factor of a layer's output channels can move to the layers behind it, in graph order."""
    for layer in found.values():
        place = _behind(layer, found)
        if place is not None:
            yield place


def _behind(layer: Layer, found: dict[Node, Layer]) -> Place | None:
    value, axis, count = layer.root.outputs[0], layer.linear.out_axis, layer.linear.outputs
    if not layer.linear.rank_known and axis != -1:
        return None
    while (user := only_user(value)) is not None:
        moved = _homogeneous(user, value, axis, count)
        if moved is None:
            break
        value, axis = user.outputs[0], moved
    sinks = readers(value, axis, count, found)
    return None if sinks is None else Place(layer, sinks, value, axis)


def readers(value: Value, axis: int, count: int, found: dict[Node, Layer]) -> tuple[Layer, ...] | None:
    """The layers that read a value's channels; None when something else reads it, or nothing does."""
    users = [user for user, _ in value.uses()]
    sinks = [found[user] for user in dict.fromkeys(users) if user in found]
    fits = [s for s in sinks if s.linear.x is value and (s.linear.in_axis, s.linear.inputs) == (axis, count)]
    if value.is_graph_output() or not users or len(fits) != len(users):
        return None
    return tuple(fits)


def _homogeneous(node: Node, value: Value, axis: int, count: int) -> int | None:
    """The channel axis behind a node that commutes with positive factors; None when it does not."""
    if node.inputs[0] is not value or len([v for v in node.inputs if v is value]) != 1:
        return None
    if is_op(node, *_ELEMENTWISE):
        if node.op_type == "Clip":
            bounds = bounds_of(node)
            if bounds is None or any(b != 0 and not math.isinf(b) for b in bounds):
                return None
        return axis
    known = rank(value)
    if is_op(node, *_POOLS):
        read = any(o.name and is_read(o) for o in node.outputs[1:])
        return axis if known is not None and axis == 1 - known and not read else None
    if is_op(node, *_SHAPING):
        before, after = dims(value), dims(node.outputs[0])
        if before is None or after is None or len(before) < 3 or len(after) != 2 or axis != 1 - len(before):
            return None
        alone = all(d == 1 for d in before[2:]) and before[1] == after[1] == count
        return -1 if alone and (node.op_type != "Flatten" or int_attr(node, "axis", 1) == 1) else None
    return None


def peaks(linear: Linear) -> Wide:
    """The largest magnitude for each output channel and each input it sums over: [outputs, inputs of it]."""
    rows = np.abs(linear.rows(np.asarray(linear.w, np.float64)))
    if linear.node.op_type in ("Conv", "ConvTranspose"):
        return rows.reshape(*rows.shape[:2], -1).max(axis=2)
    return rows.reshape(rows.shape[0], -1, rows.shape[-1]).max(axis=1)


def largest_by_input(table: Wide, group: int) -> Wide:
    """Of the table of `peaks`, the largest for each input channel."""
    return table.reshape(group, -1, table.shape[1]).max(axis=1).reshape(-1)


Move: TypeAlias = tuple[Layer | None, Sequence[Layer], Wide]
"""Float64 s for each channel, by which a source's outputs are divided and its readers' inputs multiplied.

The source is None where it is no layer.
"""

T = TypeVar("T")


@dataclass(frozen=True)
class Scaling:
    """What one layer is multiplied by: float64 factors of its inputs and of its outputs."""

    layer: Layer
    before: Wide
    after: Wide

    def folded(self) -> Folded | Miss:
        """Its new weights, or why they cannot be had."""
        return self.layer.linear.scaled(self.before, self.after)


def fold_together(
    items: Sequence[T], moves: Callable[[Sequence[T]], Sequence[Move | None]], declined: Callable[[str], None]
) -> tuple[list[T], list[tuple[Layer, Folded]]]:
    """Fold the moves of as many items as layers can take in together.

    Those that a layer cannot take in are left out, and the rest is tried again.

    Args:
        items: what to fold.
        moves: the moves of the items that are left, in their order; None for one that asks for none.
        declined: told why a layer's new weights cannot be had.

    Returns:
        The items whose moves are folded, and the layers with their new weights.
    """
    left = list(items)
    while True:
        wanted = list(zip(left, moves(left), strict=True))
        plan = _scalings(move for _, move in wanted if move is not None)
        folded = [(scaling.layer, scaling.folded()) for scaling in plan.values()]
        bad: set[Node] = set()
        for layer, found in folded:
            if isinstance(found, Miss):
                declined(found.reason)
                bad.add(layer.linear.node)
        if not bad:
            ready = [(layer, found) for layer, found in folded if not isinstance(found, Miss)]
            return [item for item, move in wanted if move is not None], ready
        left = [item for item, move in wanted if move is None or not bad & _nodes(move)]


def _nodes(move: Move) -> set[Node]:
    source, sinks, _ = move
    return {layer.linear.node for layer in (*sinks, *(() if source is None else (source,)))}


def _scalings(moves: Iterable[Move]) -> dict[Node, Scaling]:
    """Each layer's factors when all moves are made."""
    found: dict[Node, Scaling] = {}

    def of(layer: Layer) -> Scaling:
        linear = layer.linear
        ones = Scaling(layer, np.ones(linear.inputs), np.ones(linear.outputs))
        return found.get(linear.node, ones)

    for source, sinks, s in moves:
        if source is not None:
            known = of(source)
            found[source.linear.node] = Scaling(source, known.before, known.after / s)
        for sink in sinks:
            known = of(sink)
            found[sink.linear.node] = Scaling(sink, known.before * s, known.after)
    return found


def replace_layer(layer: Layer, folded: Folded, rw: Rewriter) -> None:
    """Put the layer with its new weights in place; its input is whatever the node reads by now."""
    node, root = layer.linear.node, layer.root
    x = node.inputs[1 if layer.linear.weight_on_left else 0]
    assert x is not None
    nodes = [root] if root is node else [root, node]
    with rw.standing_for(nodes[::-1]):
        rw.replace(root.outputs[0], folded.emit(x, rw, root))
    rw.erase_all(nodes)
