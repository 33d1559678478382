# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN: hidden units can go, with their share of every gate.

The hidden units are a virtual axis of the node. W and R have a row for each unit, gate after gate; B has
first W's, then R's; P those of the peepholes. R's columns read the state of the step before, so removing a
unit is exact where its state stays zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....graph_ir.ops import int_attr
from ..ties import AxisKey, Rule, Ties
from .common import operand, pin_axes, result, table, tie_same

if TYPE_CHECKING:
    from ....graph_ir import Value

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(ties: Ties) -> None:
    """X [T, N, I], W [D, g H, I], R [D, g H, H], B [D, 2 g H], initial states [D, N, H], P [D, 3 H].

    Tied: I of X and W (summed over); N of X, states, lengths and results; H everywhere, also across the two
    directions, whose results lie side by side. Pinned: time, for the recurrence runs along it, and the
    directions; everything when the sizes do not fit `hidden_size`.
    """
    x, w, r = (operand(ties, i) for i in range(3))
    if x is None or w is None or r is None:
        return
    hidden = ties.size((r, 2)) if ties.rank(r) == 3 else None
    gates = _GATES[ties.node.op_type]
    fits = hidden is not None and ties.size((w, 1)) == ties.size((r, 1)) == gates * hidden
    if not fits or int_attr(ties.node, "hidden_size", hidden or 0) != hidden or ties.rank(x) != 3:
        ties.pin_node("the sizes of its weights do not fit its hidden size")
        return
    units = ties.virtual(0, hidden)
    ties.contracts((x, 2), (w, 2))
    ties.spread(units, (w, 1), gates, 1)
    ties.spread(units, (r, 1), gates, 1)
    ties.contracts(units, (r, 2))
    _vectors(ties, units, gates)
    states = [v for v in (operand(ties, 5), operand(ties, 6) if gates == 4 else None) if v is not None]
    made = _results(ties, x, states)
    ties.produces(units, *made)
    pin_axes(ties, [0], "it has a position for each direction", w, r, operand(ties, 3), operand(ties, 7))


def _vectors(ties: Ties, units: AxisKey, gates: int) -> None:
    bias, peepholes = operand(ties, 3), operand(ties, 7)
    if bias is not None:
        ties.spread(units, (bias, 1), 2 * gates, 1)
    if peepholes is not None:
        ties.spread(units, (peepholes, 1), 3, 1)


def _results(ties: Ties, x: Value, states: list[Value]) -> list[AxisKey]:
    """Tie the batch, pin time and directions; the axes of all states and results that hold the units."""
    swapped = int_attr(ties.node, "layout", 0) == 1
    batch: list[AxisKey] = [(x, 0 if swapped else 1)]
    ties.pin((x, 1 if swapped else 0), "the recurrence runs along it")
    lengths = operand(ties, 4)
    if lengths is not None:
        batch.append((lengths, 0))
    y = result(ties, 0)
    made: list[AxisKey] = []
    if y is not None:
        batch.append((y, 0 if swapped else 2))
        ties.pin((y, 1 if swapped else 0), "the recurrence runs along it")
        ties.pin((y, 2 if swapped else 1), "it has a position for each direction")
        made.append((y, 3))
    for value in (*states, result(ties, 1), result(ties, 2)):
        if value is not None:
            batch.append((value, 0 if swapped else 1))
            ties.pin((value, 1 if swapped else 0), "it has a position for each direction")
            made.append((value, 2))
    tie_same(ties, *batch)
    return made


RULES: dict[tuple[str, str], Rule] = table(recurrent, *_GATES)
