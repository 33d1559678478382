# SPDX-License-Identifier: Apache-2.0
"""Convolutions: input channels are summed over, output channels are made."""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value, is_constant
from ....graph_ir.ops import int_attr, ints_attr
from ..ties import AxisKey, Ties
from .common import operand, pin_axes, pointwise, result, table, tie_same

_WINDOW = "a window slides over it"
_UNEVEN = "its channels do not divide into the groups of a convolution"


def conv(ties: Ties) -> None:
    """Conv, FusedConv: x [N, C, ...], W [M, C / group, ...], B [M], y [N, M, ...].

    Tied: batch of x and y; C of x with axis 1 of W (summed over); M of W, B and y (made); FusedConv's added Z
    with y. In groups, see `_grouped`. Pinned: the spatial axes, for a window slides over them; but see
    `_over_channels`, and axes of which every window sees one position are tied (`pointwise`).
    """
    x, w, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    _conv(ties, x, w, y, [operand(ties, 2)], operand(ties, 3))


def conv_integer(ties: Ties) -> None:
    """ConvInteger: as Conv, with zero points of x (one) and w (one, or one for each of M)."""
    zero = operand(ties, 2)
    if zero is not None and ties.rank(zero) == 1 and ties.size((zero, 0)) != 1:
        ties.pin_node("it has a zero point for each channel of its input")
        return
    _conv(ties, operand(ties, 0), operand(ties, 1), result(ties, 0), [operand(ties, 3)], None)


def qlinear_conv(ties: Ties) -> None:
    """QLinearConv: as Conv; scales and zero points of w are one, or one for each of M, the others scalars."""
    x, w, y = operand(ties, 0), operand(ties, 3), result(ties, 0)
    _conv(ties, x, w, y, [operand(ties, 4), operand(ties, 5), operand(ties, 8)], None)


def _conv(
    ties: Ties,
    x: Value | None,
    w: Value | None,
    y: Value | None,
    per_output: list[Value | None],
    added: Value | None,
) -> None:
    if x is None or w is None or y is None:
        return
    rank = ties.rank(x) or 0
    if rank < 3 or ties.rank(w) != rank or ties.rank(y) != rank:
        ties.pin_node("its ranks are not those of a convolution")
        return
    alone = pointwise(ties, [ties.size((w, axis)) for axis in range(2, rank)], x, y)
    over = [axis for axis in _over_channels(ties, rank, x, y) if axis not in alone]
    _windows(ties, rank, x, w, y, [*over, *alone])
    for axis in over:
        ties.contracts((x, axis), (y, axis))
    for axis in alone:
        ties.same((x, axis), (y, axis))
    made = _made(ties, (w, 0), (y, 1), per_output)
    if added is not None:
        for axis in range(rank):
            tie_same(ties, (y, axis), (added, axis))
    group = int_attr(ties.node, "group", 1)
    if group == 1:
        ties.contracts((x, 1), (w, 1))
        ties.produces(*made)
    else:
        _grouped(ties, (x, 1), (y, 1), (w, 1), made, group)


def _made(ties: Ties, rows: AxisKey, out: AxisKey, per_output: list[Value | None]) -> list[AxisKey]:
    """Output, weight rows, and the vectors with an element for each output channel."""
    vectors = [(v, 0) for v in per_output if v is not None and ties.rank(v) == 1]
    return [out, rows, *(axis for axis in vectors if ties.size(axis) != 1 or ties.size(out) == 1)]


def _over_channels(ties: Ties, rank: int, x: Value, y: Value) -> list[int]:
    """Axes a window slides over that hold channels: attention by channels, as ECA has it.

    There x and y have a single channel for the Conv, and the axis keeps its length. Such an axis may be cut:
    the window goes on seeing zeros where channels were (`fixes.counts.conv`). Axes of pictures with a
    single channel look alike, but are pinned by the other ends.
    """
    node = ties.node
    if node.op_type != "Conv" or ties.size((x, 1)) != 1 or ties.size((y, 1)) != 1:
        return []
    strides = ints_attr(node, "strides") or [1] * (rank - 2)
    return [
        axis
        for axis in range(2, rank)
        if strides[axis - 2] == 1 and (size := ties.size((x, axis))) != 1 and size == ties.size((y, axis))
    ]


def _windows(ties: Ties, rank: int, x: Value, w: Value, y: Value, but: Sequence[int] = ()) -> None:
    tie_same(ties, (x, 0), (y, 0))
    for axis in range(2, rank):
        for value in (w,) if axis in but else (x, w, y):
            ties.pin((value, axis), _WINDOW)


def _grouped(
    ties: Ties, inputs: AxisKey, outputs: AxisKey, inside: AxisKey, made: list[AxisKey], group: int
) -> None:
    """A convolution in groups: its input and output channels hang together.

    Depthwise with one output for each input: they are the same channel. Otherwise a block of inputs goes with
    its block of outputs, or the same relative positions in all blocks; the core decides.
    """
    ins, outs = ties.size(inputs), ties.size(outputs)
    if ins is None or outs is None or group < 1 or ins % group or outs % group:
        for axis in (inputs, inside, *made):
            ties.pin(axis, _UNEVEN)
        return
    ties.produces(*made)
    if ins == outs == group:
        ties.same(inputs, outputs)
    else:
        ties.contracts(inputs)
        weight = inside[0]
        alone = isinstance(weight, Value) and is_constant(weight) and len(weight.uses()) == 1
        own = ties.node.op_type == "Conv" and alone
        ties.grouped(inputs, outputs, group, inside if ins > group else None, own=own)


def deform_conv(ties: Ties) -> None:
    """DeformConv: x [N, C, H, W], W [M, C, h, w], B [M], y [N, M, H', W'], as Conv in one group.

    Pinned: offsets and mask [N, places, H', W'] but for the batch; all with several groups of either kind.
    """
    x, w, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if int_attr(ties.node, "group", 1) != 1 or int_attr(ties.node, "offset_group", 1) != 1:
        ties.pin_node("it works in groups")
        return
    _conv(ties, x, w, y, [operand(ties, 3)], None)
    for value in (operand(ties, 2), operand(ties, 4)):
        if value is not None and y is not None:
            tie_same(ties, (y, 0), (value, 0))
            pin_axes(ties, range(1, ties.rank(value) or 0), "it says where to sample", value)


def conv_transpose(ties: Ties) -> None:
    """ConvTranspose: x [N, C, ...], W [C, M / group, ...], B [M], y [N, M, ...].

    As Conv, but for the weight: its axis 0 is C, and its axis 1 holds the outputs of one group, the same in
    every group. In groups of several outputs, it is those outputs that can go by relative position.
    """
    x, w, y, b = operand(ties, 0), operand(ties, 1), result(ties, 0), operand(ties, 2)
    if x is None or w is None or y is None:
        return
    rank = ties.rank(x) or 0
    if rank < 3 or ties.rank(w) != rank or ties.rank(y) != rank:
        ties.pin_node("its ranks are not those of a convolution")
        return
    _windows(ties, rank, x, w, y)
    group = int_attr(ties.node, "group", 1)
    ins, outs = ties.size((x, 1)), ties.size((y, 1))
    bias: list[AxisKey] = [] if b is None else [(b, 0)]
    if group == 1:
        ties.contracts((x, 1), (w, 0))
        ties.produces((y, 1), (w, 1), *bias)
    elif ins is None or outs is None or group < 1 or ins % group or outs % group:
        for axis in ((x, 1), (w, 0), (w, 1), (y, 1), *bias):
            ties.pin(axis, _UNEVEN)
    else:
        ties.produces((y, 1), *bias)
        if ins == outs == group:
            ties.same((x, 1), (w, 0), (y, 1))
        else:
            ties.contracts((x, 1), (w, 0))
            # Read backwards, y to x, it is a convolution whose weight holds the inputs of one group.
            ties.grouped((y, 1), (x, 1), group, (w, 1) if outs > group else None)


RULES = {
    **table(conv, "Conv"),
    **table(conv, "FusedConv", domain="com.microsoft"),
    **table(conv_transpose, "ConvTranspose"),
    **table(deform_conv, "DeformConv"),
    **table(conv_integer, "ConvInteger"),
    **table(qlinear_conv, "QLinearConv"),
}
