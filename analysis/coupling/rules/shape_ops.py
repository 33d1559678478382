# SPDX-License-Identifier: Apache-2.0
"""Operators that join, cut, pad, turn and repeat tensors without touching the elements."""

from __future__ import annotations

import numpy as np

from ....graph_ir import Value
from ....graph_ir.ops import from_front, input_at, int_attr, ints_attr, string_attr
from ..ties import AxisKey, Rule, Ties
from .common import (
    equal_rank,
    integers,
    numbers,
    operand,
    pin_axes,
    pin_operands,
    result,
    table,
    tie_except,
    tie_same,
)


def concat(ties: Ties) -> None:
    """Concat: each operand's axis is a part of the result's; the other axes are tied.

    Pinned: the joined axis of all when the size of one is not known.
    """
    y = result(ties, 0)
    parts = [v for v in ties.node.inputs if v is not None]
    if y is None:
        return
    axis = _axis(ties, y, int_attr(ties.node, "axis", 1))
    if axis is None or not equal_rank(ties, y, *parts):
        ties.pin_node("its axis is not one of its operands'")
        return
    tie_except(ties, (axis,), y, *parts)
    _pieces(ties, (y, axis), [(v, axis) for v in parts], "operands of unknown size are joined")


def split(ties: Ties) -> None:
    """Split, whichever way its sizes are given: each result's axis is a part of x's; the other axes are tied.

    Pinned: the cut axis when a size is not known; the sizes themselves.
    """
    x = operand(ties, 0)
    if x is None:
        return
    axis = _axis(ties, x, int_attr(ties.node, "axis", 0))
    if axis is None or any(v.shape is None or len(v.shape) != ties.rank(x) for v in ties.node.outputs):
        ties.pin_node("the shapes of its results are not known")
        return
    pin_operands(ties, 1)
    for y in ties.node.outputs:
        tie_except(ties, (axis,), x, y)
    _pieces(ties, (x, axis), [(v, axis) for v in ties.node.outputs], "it is cut into pieces of unknown size")


def _pieces(ties: Ties, whole: AxisKey, parts: list[AxisKey], reason: str) -> None:
    sizes = [size for axis in parts if (size := ties.size(axis)) is not None]
    if len(sizes) < len(parts) or ties.size(whole) != sum(sizes):
        for axis in (whole, *parts):
            ties.pin(axis, reason)
        return
    start = 0
    for axis, size in zip(parts, sizes, strict=True):
        ties.part(whole, axis, start)
        start += size


def slice_(ties: Ties) -> None:
    """Slice: of a sliced axis the result takes some positions of x's; the others are tied.

    Pinned: axes sliced by bounds that are computed; bounds, axes and steps.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    given = _bounds(ties)
    rank = ties.rank(x) or 0
    at = from_front([axis for axis, *_ in given], rank) if given is not None else None
    if given is None or at is None or not equal_rank(ties, x, y):
        ties.pin_node("which axes it slices is not known")
        return
    pin_operands(ties, 1)
    tie_except(ties, at, x, y)
    for axis, (_, start, end, step) in zip(at, given, strict=True):
        size = ties.size((x, axis))
        if size is None or start is None or end is None or not step:
            pin_axes(ties, [axis], "it is sliced by bounds that are computed", x, y)
        else:
            taken = np.arange(size, dtype=np.int64)[slice(start, end, step)]
            ties.pick((x, axis), (y, axis), taken)


def _bounds(ties: Ties) -> list[tuple[int, int | None, int | None, int | None]] | None:
    """(axis, start, end, step) of each sliced axis, from attributes before opset 10 and operands after."""
    node = ties.node
    if ties.opset < 10:
        starts: list[int | None] | None = [*(ints_attr(node, "starts") or ())]
        ends: list[int | None] | None = [*(ints_attr(node, "ends") or ())]
        axes, steps = ints_attr(node, "axes"), None
    else:
        starts, ends = _open(ties, 1), _open(ties, 2)
        axes, steps = integers(input_at(node, 3)), _open(ties, 4)
        if (input_at(node, 3) is not None and axes is None) or (
            input_at(node, 4) is not None and steps is None
        ):
            return None
    if starts is None or ends is None:
        return None
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    return list(zip(axes, starts, ends, steps, strict=True))


def _open(ties: Ties, index: int) -> list[int | None] | None:
    """Elements of a vector operand, None for those not known; None when not even their count is."""
    value = operand(ties, index)
    found = numbers(value)
    if found is not None or value is None or ties.rank(value) != 1:
        return found
    size = ties.size((value, 0))
    return None if size is None else list[int | None]([None] * size)


def pad(ties: Ties) -> None:
    """Pad: x's axis is a part of the result's (of x's, where the padding is negative); others are tied.

    What is padded on belongs to no channel of x and can go by itself. Pinned: padded axes in modes that copy
    x into the padding (reflect, edge, wrap), and where a padding is not known; the operands that say how
    much.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    rank = ties.rank(x) or 0
    pin_operands(ties, 1)
    before = _pads(ties, rank)
    if before is None or not equal_rank(ties, x, y):
        ties.pin_node("how much it pads is not known")
        return
    copies = string_attr(ties.node, "mode", "constant") != "constant"
    for axis, (low, high) in enumerate(before):
        if low == 0 and high == 0:
            tie_same(ties, (x, axis), (y, axis))
        elif copies or low is None or high is None or low * high < 0:
            pin_axes(ties, [axis], "it is padded with copies, or by an amount that is computed", x, y)
        elif low >= 0 and high >= 0:
            ties.part((y, axis), (x, axis), low)
        else:
            ties.part((x, axis), (y, axis), -low)


def _pads(ties: Ties, rank: int) -> list[tuple[int | None, int | None]] | None:
    """Padding before and after each axis."""
    node = ties.node
    axes: list[int] | None = list(range(rank))
    if ties.opset < 11:
        attribute = ints_attr(node, "pads") or ints_attr(node, "paddings")
        pads: list[int | None] | None = None if attribute is None else [*attribute]
    else:
        pads = _open(ties, 1)
        if input_at(node, 3) is not None:
            axes = from_front(integers(input_at(node, 3)), rank)
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return None
    found: list[tuple[int | None, int | None]] = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        found[axis] = pads[i], pads[i + len(axes)]
    return found


def transpose(ties: Ties) -> None:
    """Transpose: axis i of the result is axis perm[i] of x; nothing is pinned."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    rank = ties.rank(x) or 0
    perm = ints_attr(ties.node, "perm") or list(range(rank))[::-1]
    if sorted(perm) != list(range(rank)) or not equal_rank(ties, x, y):
        ties.pin_node("its permutation does not fit its operand")
        return
    for axis, source in enumerate(perm):
        tie_same(ties, (x, source), (y, axis))


def squeeze(ties: Ties) -> None:
    """Squeeze, Unsqueeze: the axes that stay are tied in order; those dropped or made have one element.

    Pinned: everything when which axes those are is not known.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    long, short = (x, y) if ties.node.op_type == "Squeeze" else (y, x)
    rank = ties.rank(long) or 0
    dropped = _dropped(ties, long, rank)
    kept = [axis for axis in range(rank) if dropped is not None and axis not in dropped]
    if dropped is None or len(kept) != ties.rank(short):
        ties.pin_node("which axes it drops or adds is not known")
        return
    for at, axis in enumerate(kept):
        tie_same(ties, (long, axis), (short, at))


def _dropped(ties: Ties, long: Value, rank: int) -> list[int] | None:
    given = operand(ties, 1)
    attribute = ints_attr(ties.node, "axes")
    if given is not None or attribute is not None:
        return from_front(attribute if given is None else integers(given), rank)
    sizes = [ties.size((long, axis)) for axis in range(rank)]
    return None if None in sizes else [axis for axis, size in enumerate(sizes) if size == 1]


def expand(ties: Ties) -> None:
    """Expand: x's axes are tied with the result's, aligned from the end.

    Axes that are new, or longer than x's single element, are free: all their positions are alike, and the
    pass that cuts rewrites the sizes. Pinned: the operand of sizes.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    shift = (ties.rank(y) or 0) - (ties.rank(x) or 0)
    if shift < 0:
        ties.pin_node("its operand has a higher rank than its result")
        return
    for axis in range(ties.rank(y) or 0):
        if axis < shift or ties.size((x, axis - shift)) == 1:
            ties.free((y, axis))
        else:
            ties.same((x, axis - shift), (y, axis))


def tile(ties: Ties) -> None:
    """Tile: position i of x's axis is the i-th of every repeat in the result's.

    Where x has one element, the result's positions are alike and free, as in Expand. Pinned: axes of unknown
    size that are repeated; the repeats.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    if ties.opset < 6 or not equal_rank(ties, x, y):
        ties.pin_node("how often it repeats is not known")
        return
    for axis in range(ties.rank(x) or 0):
        short, long = ties.size((x, axis)), ties.size((y, axis))
        if not short or long is None or long % short:
            pin_axes(ties, [axis], "how often it is repeated is not known", x, y)
        elif short == 1:
            ties.free((y, axis))
        elif short == long:
            ties.same((x, axis), (y, axis))
        else:
            ties.spread((x, axis), (y, axis), long // short, 1)


def _axis(ties: Ties, value: Value, axis: int) -> int | None:
    found = from_front([axis], ties.rank(value) or 0)
    return None if found is None else found[0]


RULES: dict[tuple[str, str], Rule] = {
    **table(concat, "Concat"),
    **table(split, "Split"),
    **table(slice_, "Slice"),
    **table(pad, "Pad"),
    **table(transpose, "Transpose"),
    **table(squeeze, "Squeeze", "Unsqueeze"),
    **table(expand, "Expand"),
    **table(tile, "Tile"),
}
