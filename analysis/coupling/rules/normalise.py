# SPDX-License-Identifier: Apache-2.0
"""Normalisations: by stored statistics, or by those of the elements along some axes."""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value
from ....graph_ir.ops import from_front, int_attr, ints_attr, is_read
from ..ties import Rule, Ties
from .common import (
    equal_rank,
    operand,
    pin_axes,
    result,
    table,
    tie_all,
    tie_except,
    tie_same,
)


def batch_norm(ties: Ties) -> None:
    """BatchNormalization by stored statistics: axis 1 of x and y and all vectors tied; the other axes, too.

    Pinned: everything in training mode, or with statistics for each element (`spatial` = 0 before opset 9).
    """
    x, y = operand(ties, 0), result(ties, 0)
    training = int_attr(ties.node, "training_mode", 0) != 0 or any(is_read(v) for v in ties.node.outputs[1:])
    if training or not int_attr(ties.node, "spatial", 1):
        ties.pin_node("it takes statistics of the batch")
    elif x is not None and y is not None:
        _by_channel(ties, x, y, ties.node.inputs[1:])


def _by_channel(ties: Ties, x: Value, y: Value, vectors: Sequence[Value | None]) -> None:
    if (ties.rank(x) or 0) < 2 or not equal_rank(ties, x, y):
        ties.pin_node("it has no channels")
        return
    tie_all(ties, x, y)
    ties.same((x, 1), *((v, 0) for v in vectors if v is not None))


def instance_norm(ties: Ties) -> None:
    """InstanceNormalization: channels tied with scale and bias; statistics are over the spatial axes."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    _by_channel(ties, x, y, ties.node.inputs[1:])
    for axis in range(2, ties.rank(x) or 0):
        ties.normalises((x, axis))


def group_norm(ties: Ties) -> None:
    """GroupNormalization: whole groups of channels can go, with their statistics; the other axes are tied.

    Scale and bias have an element for each group before opset 21, for each channel after. Statistics are
    taken over the spatial axes, too. Pinned: everything when the channels do not divide into the groups.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    groups, channels = int_attr(ties.node, "num_groups", 0), ties.size((x, 1))
    if channels is None or groups < 1 or channels % groups or not equal_rank(ties, x, y):
        ties.pin_node("its channels do not divide into its groups")
        return
    tie_all(ties, x, y)
    whole = ties.virtual(0, groups)
    ties.spread(whole, (x, 1), 1, channels // groups)
    for vector in ties.node.inputs[1:3]:
        if vector is not None:
            ties.same(whole if ties.opset < 21 else (x, 1), (vector, 0))
    for axis in range(2, ties.rank(x) or 0):
        ties.normalises((x, axis))


def layer_norm(ties: Ties) -> None:
    """LayerNormalization, RMSNormalization, SimplifiedLayerNormalization: x, y, scale and bias tied.

    Statistics are taken over the axes from `axis` on: these may be cut, and the statistics are then of what
    is left. Mean and inverse deviation, where read, have one element there.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    first = from_front([int_attr(ties.node, "axis", -1)], ties.rank(x) or 0)
    if first is None or not equal_rank(ties, x, y):
        ties.pin_node("its axis is not one of its operand's")
        return
    _over(ties, range(first[0], ties.rank(x) or 0), x, [y], ties.node.inputs[1:], ties.node.outputs[1:])


def skip_layer_norm(ties: Ties) -> None:
    """SkipLayerNormalization and its simplified kin of com.microsoft: the norm of a sum, over the last axis.

    Input, skip (which may lack the batch), result and sum are tied, and gamma, beta and bias with the last
    axis.
    """
    x, skip, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or skip is None or y is None or not equal_rank(ties, x, y):
        ties.pin_node("its operands are not those of a norm of a sum")
        return
    last = (ties.rank(x) or 0) - 1
    vectors = [skip, *ties.node.inputs[2:]]
    _over(ties, [last], x, [y, result(ties, 3)], vectors, ties.node.outputs[1:3])


def embeddings_norm(ties: Ties) -> None:
    """EmbedLayerNormalization of com.microsoft: the norm, over the width, of two or three embeddings' sum.

    Tables [*, H], gamma, beta, the result [B, S, H] and the sum are tied along H, which the node makes.
    Pinned: rows of the tables, indices, the mask and the lengths found in it.
    """
    y, total = result(ties, 0), result(ties, 2)
    tables, vectors = (
        [ties.node.inputs[i] for i in at if i < len(ties.node.inputs)] for at in ((2, 3, 4), (5, 6))
    )
    if y is None or ties.rank(y) != 3 or any(ties.rank(v) != 2 for v in tables if v is not None):
        ties.pin_node("its operands are not those of a norm of embeddings")
        return
    if total is not None:
        tie_all(ties, y, total)
    width = [(v, 1) for v in tables if v is not None] + [(v, 0) for v in vectors if v is not None]
    ties.produces((y, 2), *width)
    ties.normalises((y, 2))
    for value in tables:
        pin_axes(ties, [0], "its positions are looked up by computed indices", value)
    pin_axes(ties, [0, 1], "indices and a mask are given for each", y)
    for value in (*(operand(ties, i) for i in (0, 1, 7, 8)), result(ties, 1)):
        ties.pin_value(value, "it holds indices, a mask or lengths")


def _over(
    ties: Ties,
    axes: Sequence[int],
    x: Value,
    full: Sequence[Value | None],
    vectors: Sequence[Value | None],
    statistics: Sequence[Value],
) -> None:
    """Statistics over some axes of x; `vectors` are broadcast to it, `statistics` have one element there."""
    rank = ties.rank(x) or 0
    tie_all(ties, x, *full)
    for value in (*(v for v in vectors if v is not None), *(v for v in statistics if is_read(v))):
        shift = rank - (ties.rank(value) or 0)
        if shift < 0:
            ties.pin_node("an operand has a higher rank than the one that is normalised")
            return
        for axis in range(shift, rank):
            tie_same(ties, (x, axis), (value, axis - shift))
    for axis in axes:
        ties.normalises((x, axis))


def along(ties: Ties) -> None:
    """LpNormalization: x and y tied; the norm is taken over `axis`, and is then that of what is left."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    at = from_front([int_attr(ties.node, "axis", -1)], ties.rank(x) or 0)
    if at is None:
        ties.pin_node("its axis is not one of its operand's")
        return
    _over(ties, at, x, [y], (), ())


def mean_variance(ties: Ties) -> None:
    """MeanVarianceNormalization: x and y tied; statistics over `axes` are then those of what is left."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    axes = from_front(ints_attr(ties.node, "axes") or [0, 2, 3], ties.rank(x) or 0)
    if axes is None:
        ties.pin_node("its axes are not its operand's")
        return
    _over(ties, axes, x, [y], (), ())


def local_response(ties: Ties) -> None:
    """LRN: x and y tied but for the channels, which are pinned: each is divided by its neighbours."""
    x, y = operand(ties, 0), result(ties, 0)
    tie_except(ties, (1,), x, y)
    pin_axes(ties, [1], "LRN divides each channel by its neighbours", x, y)


_LAYER_NORMS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_SKIP_NORMS = ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")

RULES: dict[tuple[str, str], Rule] = {
    **table(batch_norm, "BatchNormalization"),
    **table(instance_norm, "InstanceNormalization"),
    **table(group_norm, "GroupNormalization"),
    **table(layer_norm, *_LAYER_NORMS),
    **table(skip_layer_norm, *_SKIP_NORMS, domain="com.microsoft"),
    **table(embeddings_norm, "EmbedLayerNormalization", domain="com.microsoft"),
    **table(along, "LpNormalization"),
    **table(mean_variance, "MeanVarianceNormalization"),
    **table(local_response, "LRN"),
}
