# SPDX-License-Identifier: Apache-2.0
"""One grid for all that a Concat joins, so that codes are copied and not computed anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...graph_ir import Node, Value, constant
from ...graph_ir.ops import is_op
from .kinds import BOUNDS, NATIVE, PASSING, bounds_of
from .quant_plan import HasRange, RangeMap

MOST_WIDER = 2.0  # a tensor gives up one bit at most


@dataclass(frozen=True)
class _Range:
    lo: float
    hi: float
    unsafe: str | None = None


@dataclass(eq=False)
class _Group:
    """Values that share a range, and their own widths and limits."""

    names: list[str]
    lo: float
    hi: float
    narrowest: float
    lowest: float  # what an absorbed Relu or Clip lets the range have
    highest: float

    def with_(self, other: _Group) -> _Group | None:
        """Both as one, or None where one of them would lose too much or its clamp."""
        made = _Group(
            [*self.names, *other.names],
            min(self.lo, other.lo),
            max(self.hi, other.hi),
            min(self.narrowest, other.narrowest),
            max(self.lowest, other.lowest),
            min(self.highest, other.highest),
        )
        wide = made.hi - made.lo > MOST_WIDER * made.narrowest
        return None if wide or made.lo < made.lowest or made.hi > made.highest else made


def joined(nodes: Iterable[Node], ranges: RangeMap) -> RangeMap:
    """Ranges in which the inputs and the result of a Concat have the same, where that costs each little.

    The union of their ranges is taken if it is at most `MOST_WIDER` times as wide as the narrowest and does
    not undo a Relu or Clip that the quantizer of one of them does. Concats that share a tensor share a range.

    Args:
        nodes: of one graph, in its order.
        ranges: by value name; not changed.
    """
    groups: dict[str, _Group] = {}
    for node in nodes:
        if not is_op(node, "Concat"):
            continue
        values = [_root(v) for v in node.inputs if v is not None and constant(v) is None]
        found = [_group(value, ranges, groups) for value in [*values, node.outputs[0]]]
        merged: _Group | None = None
        for group in found:
            if group is None:
                merged = None
                break
            merged = group if merged is None or merged is group else merged.with_(group)
            if merged is None:
                break
        if merged is not None:
            merged.names = list(dict.fromkeys(merged.names))
            groups.update(dict.fromkeys(merged.names, merged))
    shared = {name: _Range(group.lo, group.hi) for name, group in groups.items()}
    return {**ranges, **shared}


def _root(value: Value) -> Value:
    """The value whose codes a value has: that before Reshape, MaxPool and the like."""
    while (producer := value.producer()) is not None and is_op(producer, *PASSING, *NATIVE):
        first = producer.inputs[0]
        if first is None:
            break
        value = first
    return value


def _group(value: Value, ranges: RangeMap, groups: dict[str, _Group]) -> _Group | None:
    name = value.name or ""
    if name in groups:
        return groups[name]
    found: HasRange | None = ranges.get(name)
    if found is None or found.unsafe:
        return None
    producer = value.producer()
    clamp = bounds_of(producer) if producer is not None and is_op(producer, *BOUNDS) else None
    low, high = clamp or (float("-inf"), float("inf"))
    return _Group([name], found.lo, found.hi, found.hi - found.lo, low, high)
