# SPDX-License-Identifier: Apache-2.0
"""What a Slice with constant bounds takes."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph_ir import Node, constant
from ...graph_ir.ops import input_at, is_op

WHOLE = 2**31 - 1
"""An end from which on a Slice is meant to go to the end of any axis."""


@dataclass(frozen=True)
class Taken:
    """Elements start, start + step, ... before end of one axis, as written: any of them may be negative."""

    axis: int
    start: int
    end: int
    step: int

    def whole(self, size: object) -> bool:
        """Whether it goes on to the end of an axis of this size (an int where known), forwards."""
        return self.step > 0 and (self.end >= WHOLE or (isinstance(size, int) and self.end >= size))


def taken(node: Node | None) -> tuple[Taken, ...] | None:
    """What a Slice takes of each axis it names; None for other nodes, unknown bounds, and below opset 10.

    None also against the standard: where there are not as many bounds as axes.
    """
    if node is None or not is_op(node, "Slice") or input_at(node, 1) is None:
        return None
    rows: list[list[int]] = []
    for place in range(1, 5):
        value = input_at(node, place)
        data = constant(value)
        if value is None and place > 2:
            rows.append(list(range(len(rows[0]))) if place == 3 else [1] * len(rows[0]))
        elif data is None:
            return None
        else:
            rows.append([int(v) for v in data.reshape(-1)])
    starts, ends, axes, steps = rows
    if len({len(row) for row in rows}) > 1:
        return None
    return tuple(Taken(a, s, e, k) for a, s, e, k in zip(axes, starts, ends, steps, strict=True))
