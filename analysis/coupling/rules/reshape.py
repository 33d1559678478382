# SPDX-License-Identifier: Apache-2.0
"""Reshape, Flatten, DepthToSpace and SpaceToDepth: axes merge and split along shared factors.

The elements keep their row-major order, so the sizes before and after are two factorings of one number.
Reading both from the right, the smaller of two sizes that divides the other is a factor of both, and what it
leaves of the larger one is read next; where neither divides, the same is done from the left. What is then
left in the middle shares no factor that can be told and is pinned. Sizes are numbers or polynomials of named
ones, so equal names cancel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ....graph_ir import Value
from ....graph_ir.ops import int_attr, string_attr
from ... import expr
from ...expr import Dim
from ...shapes import dims_of
from ..ties import AxisKey, Ties
from .common import operand, pin_operands, result, table, tie_same


@dataclass
class _Side:
    """The axes of one tensor, longer than 1, as they are used up from both ends."""

    all: list[AxisKey]
    axes: deque[AxisKey]
    sizes: deque[Dim]
    right: dict[AxisKey, list[int]] = field(default_factory=dict[AxisKey, "list[int]"])
    left: dict[AxisKey, list[int]] = field(default_factory=dict[AxisKey, "list[int]"])

    def take(self, factor: int, rest: Dim, from_right: bool) -> None:
        """Use up a factor of the outermost axis, of which `rest` stays."""
        at = -1 if from_right else 0
        axis = self.axes[at]
        (self.right if from_right else self.left).setdefault(axis, []).append(factor)
        if rest != 1:
            self.sizes[at] = rest
        else:
            del self.axes[at], self.sizes[at]

    def factors(self, axis: AxisKey) -> tuple[int, ...]:
        """Factors of an axis, outermost first."""
        return (*self.left.get(axis, ()), *self.right.get(axis, ())[::-1])


def reshape(ties: Ties) -> None:
    """Reshape, Flatten: axes are tied through the factors that the shapes before and after share.

    Pinned: axes that share no factor; all when a size is 0; the operand of sizes.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    told = shared_factors(x, y)
    if told is None:
        ties.pin_node("it has no elements")
        return
    sizes, factors, apart = told
    lost = {factor for axis in apart for factor in factors[axis]}
    for axis, ids in factors.items():
        if axis in apart or not lost.isdisjoint(ids):
            ties.pin(axis, "it is reshaped in a way that keeps no axis apart")
    _tell(ties, sizes, [(axis, ids) for axis, ids in factors.items() if axis not in apart])


def shared_factors(
    x: Value, y: Value
) -> tuple[list[Dim], dict[AxisKey, tuple[int, ...]], list[AxisKey]] | None:
    """Which factors the axes of a tensor and of the same elements in another shape are products of.

    Args:
        x: before, of known rank.
        y: after, of known rank.

    Returns:
        Sizes of the factors; for each axis longer than 1 the numbers of its factors, outermost first; the
        axes of which a part is no factor that both share. None when a size is 0.
    """
    before, after = _side(x), _side(y)
    if 0 in before.sizes or 0 in after.sizes:
        return None
    sizes: list[Dim] = []
    for from_right in (True, False):
        _match(before, after, sizes, from_right)
    factors = {axis: side.factors(axis) for side in (before, after) for axis in side.all}
    return sizes, factors, [*before.axes, *after.axes]


def _side(value: Value) -> _Side:
    sizes = dims_of(value) or ()
    kept = [((value, i), size) for i, size in enumerate(sizes) if size != 1]
    axes: list[AxisKey] = [axis for axis, _ in kept]
    return _Side(axes, deque(axes), deque(size for _, size in kept))


def _match(before: _Side, after: _Side, sizes: list[Dim], from_right: bool) -> None:
    at = -1 if from_right else 0
    while before.axes and after.axes:
        one, other = before.sizes[at], after.sizes[at]
        if one is not None and one == other:
            factor, rests = one, (1, 1)
        elif (rest := _quotient(other, one)) is not None:
            factor, rests = one, (1, rest)
        elif (rest := _quotient(one, other)) is not None:
            factor, rests = other, (rest, 1)
        else:
            return
        for side, left in zip((before, after), rests, strict=True):
            side.take(len(sizes), left, from_right)
        sizes.append(factor)


def _quotient(whole: Dim, factor: Dim) -> Dim:
    """The quotient where that is exact for every value of the names."""
    if whole is None or factor is None or expr.mod(whole, factor) != 0:
        return None
    return expr.div(whole, factor)


def _tell(ties: Ties, sizes: Sequence[Dim], axes: Sequence[tuple[AxisKey, tuple[int, ...]]]) -> None:
    """Tie axes through their factors; one that an axis of either tensor is alone ties the two directly."""
    alone: dict[int, list[AxisKey]] = {}
    merged: list[tuple[AxisKey, tuple[int, ...]]] = []
    for axis, ids in axes:
        if len(ids) == 1:
            alone.setdefault(ids[0], []).append(axis)
        else:
            merged.append((axis, ids))
    needed = sorted({i for _, ids in merged for i in ids})
    for factor, same in alone.items():
        if factor not in needed:
            ties.same(*same)
    if not merged:
        return
    number = {factor: i for i, factor in enumerate(needed)}
    told = [(axis, tuple(number[i] for i in ids)) for axis, ids in merged]
    told += [(axis, (number[factor],)) for factor, same in alone.items() if factor in number for axis in same]
    known = [size if isinstance(size := sizes[factor], int) else None for factor in needed]
    ties.regroup(known, told)


def depth_to_space(ties: Ties) -> None:
    """DepthToSpace: channels are (block, block, C), or (C, block, block) in mode CRD; of these C may be cut.

    H and W of the result have the block as inner factor. SpaceToDepth is the same, backwards, its channels in
    the order (block, block, C). Pinned: all when a size does not divide.
    """
    x, y = operand(ties, 0), result(ties, 0)
    block = int_attr(ties.node, "blocksize", 0)
    if x is None or y is None:
        return
    deep, wide = (x, y) if ties.node.op_type == "DepthToSpace" else (y, x)
    channels = ties.size((wide, 1))
    if ties.rank(deep) != 4 or ties.rank(wide) != 4 or block < 1 or channels is None:
        ties.pin_node("its channels are of unknown size")
        return
    crd = string_attr(ties.node, "mode", "DCR") == "CRD"
    tie_same(ties, (x, 0), (y, 0))
    sizes = (block, block, channels, ties.size((deep, 2)), ties.size((deep, 3)))
    rows, columns, *_ = ties.regroup(
        sizes,
        [
            ((deep, 1), (2, 0, 1) if crd else (0, 1, 2)),
            ((wide, 1), (2,)),
            ((deep, 2), (3,)),
            ((deep, 3), (4,)),
            ((wide, 2), (3, 0)),
            ((wide, 3), (4, 1)),
        ],
    )
    for place in (rows, columns):
        ties.pin(place, f"{ties.node.op_type} needs all places of a block")


RULES = {
    **table(reshape, "Reshape", "Flatten"),
    **table(depth_to_space, "DepthToSpace", "SpaceToDepth"),
}
