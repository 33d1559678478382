# SPDX-License-Identifier: Apache-2.0
"""Operators along some axes: reductions, softmax, cumulative sums, sorting."""

from __future__ import annotations

from ....graph_ir import Value
from ....graph_ir.ops import from_front, int_attr, ints_attr
from ..ties import Rule, Ties
from .common import (
    equal_rank,
    integers,
    operand,
    pin_axes,
    pin_operands,
    result,
    table,
    tie_except,
    tie_same,
)

_SUMS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})

_STATISTICS = frozenset({"ReduceMax", "ReduceMean", "ReduceMin"})


def reduction(ties: Ties) -> None:
    """ReduceSum and kin: the axes that stay are tied with the result's.

    Reduced axes: sums (Sum, L1, L2, SumSquare) sum over them, so positions that hold zero can go; a Mean, Max
    or Min is of what is left. Pinned: reduced axes of the others, and all when which axes are reduced is not
    known.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    reduced = _reduced(ties, ties.rank(x) or 0)
    if reduced is None or not _tie_kept(ties, x, y, reduced, int_attr(ties.node, "keepdims", 1) != 0):
        ties.pin_node("which axes it reduces is not known")
        return
    for axis in reduced:
        if ties.node.op_type in _SUMS:
            ties.contracts((x, axis))
        elif ties.node.op_type in _STATISTICS:
            ties.normalises((x, axis))
        else:
            ties.pin((x, axis), f"{ties.node.op_type} takes all of it together")


def _reduced(ties: Ties, rank: int) -> list[int] | None:
    given = operand(ties, 1)
    axes = ints_attr(ties.node, "axes") if given is None else integers(given)
    if given is not None and axes is None:
        return None
    if not axes:
        return [] if int_attr(ties.node, "noop_with_empty_axes", 0) else list(range(rank))
    return from_front(axes, rank)


def _tie_kept(ties: Ties, x: Value, y: Value, reduced: list[int], keeps: bool) -> bool:
    """Tie the axes that are not reduced; False when the ranks do not fit."""
    rank = ties.rank(x) or 0
    kept = [axis for axis in range(rank) if axis not in reduced]
    if ties.rank(y) != (rank if keeps else len(kept)):
        return False
    for at, axis in enumerate(kept):
        tie_same(ties, (x, axis), (y, axis if keeps else at))
    return True


def arg_extreme(ties: Ties) -> None:
    """ArgMax, ArgMin: the axis searched is pinned, for its positions are the result; the others are tied."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    at = from_front([int_attr(ties.node, "axis", 0)], ties.rank(x) or 0)
    if at is None or not _tie_kept(ties, x, y, at, int_attr(ties.node, "keepdims", 1) != 0):
        ties.pin_node("which axis it searches is not known")
        return
    ties.pin((x, at[0]), f"{ties.node.op_type} tells its positions apart")


def top_k(ties: Ties) -> None:
    """TopK: the axis sorted is pinned on x and both results; the others are tied. How many is pinned."""
    x = operand(ties, 0)
    results = [result(ties, 0), result(ties, 1)]
    if x is None:
        return
    pin_operands(ties, 1)
    _along(ties, [int_attr(ties.node, "axis", -1)], "TopK sorts along it", x, *results)


def softmax(ties: Ties) -> None:
    """Softmax, LogSoftmax, Hardmax: the axis it is taken over is pinned, for every position changes all.

    Before opset 13 it is taken over all axes from `axis` on together, so these are pinned.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    rank = ties.rank(x) or 0
    axes: list[int] | None = [int_attr(ties.node, "axis", -1)]
    if ties.opset < 13:
        first = int_attr(ties.node, "axis", 1)
        axes = list(range(first % rank if -rank <= first < 0 else first, rank))
    _along(ties, axes, f"{ties.node.op_type} is taken over it, where a channel of zeros still counts", x, y)


def cumulative(ties: Ties) -> None:
    """CumSum, CumProd: the axis summed along is pinned, for its order counts; the others are tied."""
    pin_operands(ties, 1)
    axes = integers(operand(ties, 1))
    _along(ties, axes, f"{ties.node.op_type} runs along it", operand(ties, 0), result(ties, 0))


def triangle(ties: Ties) -> None:
    """Trilu: the last two axes are pinned, for their indices are compared; the others are tied."""
    pin_operands(ties, 1)
    _along(ties, [-2, -1], "Trilu compares its indices", operand(ties, 0), result(ties, 0))


def reverse_sequence(ties: Ties) -> None:
    """ReverseSequence: time and batch axes are pinned, with the lengths; the others are tied."""
    pin_operands(ties, 1)
    axes = [int_attr(ties.node, "time_axis", 0), int_attr(ties.node, "batch_axis", 1)]
    _along(ties, axes, "sequences run along it", operand(ties, 0), result(ties, 0))


def _along(ties: Ties, axes: list[int] | None, reason: str, *values: Value | None) -> None:
    """Pin some axes of values of one rank and tie the others."""
    given = [v for v in values if v is not None]
    found = from_front(axes, ties.rank(given[0]) or 0) if given else None
    if found is None or not equal_rank(ties, *given):
        ties.pin_node("along which axis it works is not known")
        return
    pin_axes(ties, found, reason, *given)
    tie_except(ties, found, *given)


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

RULES: dict[tuple[str, str], Rule] = {
    **table(reduction, *(f"Reduce{kind}" for kind in _REDUCTIONS.split())),
    **table(arg_extreme, "ArgMax", "ArgMin"),
    **table(top_k, "TopK"),
    **table(softmax, "Softmax", "LogSoftmax", "Hardmax"),
    **table(cumulative, "CumSum", "CumProd"),
    **table(triangle, "Trilu"),
    **table(reverse_sequence, "ReverseSequence"),
}
