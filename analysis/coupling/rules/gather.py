# SPDX-License-Identifier: Apache-2.0
"""Operators that pick or place elements by index."""

from __future__ import annotations

import numpy as np

from ....graph_ir import Value, constant
from ....graph_ir.ops import from_front, int_attr
from ..ties import Positions, Rule, Ties
from .common import (
    equal_rank,
    integers,
    is_weight,
    operand,
    pin_axes,
    pin_operands,
    result,
    table,
    tie_except,
    tie_same,
)

_LOOKED_UP = "its positions are looked up by computed indices"


def gather(ties: Ties) -> None:
    """Gather: axis `axis` of the data gives way to the axes of the indices; the other axes are tied.

    Constant indices of rank 1 pick: position j of the result is position indices[j] of the data. Other
    indices have their axes tied with the result's. Where the data is a weight (an embedding), the node makes
    the channels of the last axis. Pinned: the axis looked up, unless by constants of rank 1; constant
    indices.
    """
    x, indices, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or indices is None or y is None:
        return
    rank, extent = ties.rank(x) or 0, ties.rank(indices) or 0
    at = from_front([int_attr(ties.node, "axis", 0)], rank)
    if at is None or ties.rank(y) != rank + extent - 1:
        ties.pin_node("its axis is not one of its operand's")
        return
    axis = at[0]
    embeds = is_weight(x) and not is_weight(indices) and axis != rank - 1
    for i in range(rank):
        if i == axis:
            continue
        out = (y, i if i < axis else i + extent - 1)
        if embeds and i == rank - 1:
            ties.produces(out, (x, i))
        else:
            tie_same(ties, (x, i), out)
    chosen = _indices(indices, ties.size((x, axis)))
    if chosen is not None and extent == 1:
        ties.pin_value(indices, "it holds indices")
        ties.pick((x, axis), (y, axis), chosen)
        return
    ties.pin((x, axis), _LOOKED_UP if extent else "a single position of it is read")
    for k in range(extent):
        tie_same(ties, (indices, k), (y, axis + k))


def _indices(value: Value, size: int | None) -> Positions | None:
    """Known indices in `[0, size)`; None when they are not all known, or out of range."""
    found = constant(value)
    if found is None:
        known = integers(value)
        found = None if known is None else np.asarray(known, dtype=np.int64)
    if size is None or found is None or found.dtype.kind not in "iu" or found.ndim > 1:
        return None
    flat = found.reshape(-1).astype(np.int64)
    if ((flat < -size) | (flat >= size)).any():
        return None
    return np.where(flat < 0, flat + size, flat)


def gather_elements(ties: Ties) -> None:
    """GatherElements: the axis looked up is pinned in the data; indices and result have one shape.

    The other axes of the data are tied where they are as long as the result's, else pinned.
    """
    x, indices, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or indices is None or y is None or not equal_rank(ties, x, indices, y):
        ties.pin_node("its ranks differ")
        return
    tie_except(ties, (), indices, y)
    _by_element(ties, x, [y])


def scatter_elements(ties: Ties) -> None:
    """ScatterElements: data and result tied, indices and updates tied; the axis written to is pinned.

    The other axes tie the two where they are equally long, else all are pinned. Along the axis written to,
    indices and updates are pinned, too: each of their positions is written somewhere.
    """
    x, indices, updates, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    if x is None or indices is None or updates is None or y is None or not equal_rank(ties, x, indices, y):
        ties.pin_node("its ranks differ")
        return
    tie_except(ties, (), x, y)
    tie_except(ties, (), indices, updates)
    _by_element(ties, x, [indices])
    at = from_front([int_attr(ties.node, "axis", 0)], ties.rank(x) or 0)
    pin_axes(ties, at or (), "each of its positions is written somewhere", indices, updates)


def _by_element(ties: Ties, x: Value, others: list[Value]) -> None:
    rank = ties.rank(x) or 0
    looked_up = from_front([int_attr(ties.node, "axis", 0)], rank)
    for axis in range(rank):
        for other in others:
            if looked_up == [axis]:
                pin_axes(ties, [axis], _LOOKED_UP, x)
            elif looked_up is None or ties.size((x, axis)) != ties.size((other, axis)):
                pin_axes(ties, [axis], "only a part of it is looked up", x, other)
            else:
                tie_same(ties, (x, axis), (other, axis))


def gather_nd(ties: Ties) -> None:
    """GatherND: some axes of the data are looked up by the last axis of the indices and pinned, as it is.

    They are the first ones behind `batch_dims` axes that data, indices and result share. The axes of the data
    that follow are tied with the result's last ones, the other axes of the indices with its first ones.
    """
    x, indices, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or indices is None or y is None:
        return
    extent = ties.rank(indices) or 0
    depth = ties.size((indices, extent - 1)) if extent else None
    rank, shared = ties.rank(x) or 0, int_attr(ties.node, "batch_dims", 0)
    if depth is None or not 0 <= shared <= min(extent - 1, rank - depth):
        ties.pin_node("which axes it looks up is not known")
        return
    first = shared + depth  # behind those looked up
    if ties.rank(y) != extent - 1 + rank - first:
        ties.pin_node("its ranks do not fit")
        return
    pin_axes(ties, range(shared, first), _LOOKED_UP, x)
    ties.pin((indices, extent - 1), "it holds indices")
    for axis in range(extent - 1):
        tie_same(ties, (indices, axis), (y, axis))
    for axis in range(shared):
        tie_same(ties, (x, axis), (y, axis))
    for axis in range(first, rank):
        tie_same(ties, (x, axis), (y, axis + extent - 1 - first))


def scatter_nd(ties: Ties) -> None:
    """ScatterND: data and result tied; axes written to by index pinned, others tied with those of updates.

    Pinned too: the axes of indices and updates that count what is written.
    """
    x, indices, updates, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    if x is None or indices is None or updates is None or y is None:
        return
    extent = ties.rank(indices) or 0
    depth = ties.size((indices, extent - 1)) if extent else None
    if depth is None or not equal_rank(ties, x, y):
        ties.pin_node("which axes it writes to is not known")
        return
    tie_except(ties, (), x, y)
    pin_axes(ties, range(depth), _LOOKED_UP, x)
    ties.pin((indices, extent - 1), "it holds indices")
    pin_axes(ties, range(extent - 1), "each of its positions is written somewhere", indices, updates)
    for axis in range(depth, ties.rank(x) or 0):
        tie_same(ties, (x, axis), (updates, axis + extent - 1 - depth))


def one_hot(ties: Ties) -> None:
    """OneHot: the axes of the indices are tied with the result's; the new axis is pinned."""
    indices, y = operand(ties, 0), result(ties, 0)
    if indices is None or y is None:
        return
    pin_operands(ties, 1)
    at = from_front([int_attr(ties.node, "axis", -1)], ties.rank(y) or 0)
    if at is None or ties.rank(y) != (ties.rank(indices) or 0) + 1:
        ties.pin_node("its axis is not one of its result's")
        return
    ties.pin((y, at[0]), "it has a position for each class")
    kept = [axis for axis in range(ties.rank(y) or 0) if axis != at[0]]
    for axis, out in enumerate(kept):
        tie_same(ties, (indices, axis), (y, out))


RULES: dict[tuple[str, str], Rule] = {
    **table(gather, "Gather"),
    **table(gather_elements, "GatherElements"),
    **table(scatter_elements, "ScatterElements", "Scatter"),
    **table(gather_nd, "GatherND"),
    **table(scatter_nd, "ScatterND"),
    **table(one_hot, "OneHot"),
}
