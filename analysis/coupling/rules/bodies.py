# SPDX-License-Identifier: Apache-2.0
"""Operators with bodies: what crosses their border.

The nodes of a body have their own rules, and what they read from outside is the value itself; so only the
inputs and outputs of bodies are spoken of here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Graph
from ....graph_ir.ops import label, subgraphs
from ..ties import Rule, Ties
from .common import equal_rank, tie_all


def branches(ties: Ties) -> None:
    """If: a result is one of the two branches'; all three are tied. Pinned: results of unequal ranks."""
    bodies = subgraphs(ties.node)
    ties.pin_value(ties.node.inputs[0], "it chooses a branch")
    if len(bodies) != 2 or any(len(body.outputs) != len(ties.node.outputs) for body in bodies):
        _keep_borders(ties, bodies)
        return
    for result, one, other in zip(ties.node.outputs, *(body.outputs for body in bodies), strict=True):
        values = (result, one, other)
        if all(ties.rank(v) is not None for v in values) and equal_rank(ties, *values):
            tie_all(ties, *values)
        else:
            for value in values:
                ties.pin_value(value, f"the branches of If {label(ties.node)!r} do not agree in its rank")


def iterated(ties: Ties) -> None:
    """Loop, Scan: what goes in and comes out is pinned, and what one iteration hands to the next."""
    _keep_borders(ties, subgraphs(ties.node))


def _keep_borders(ties: Ties, bodies: Sequence[Graph]) -> None:
    reason = f"{ties.node.op_type} {label(ties.node)!r} hands it on"
    ties.pin_node(reason)
    for body in bodies:
        for value in (*body.inputs, *body.outputs):
            ties.pin_value(value, reason)


RULES: dict[tuple[str, str], Rule] = {("", "If"): branches, ("", "Loop"): iterated, ("", "Scan"): iterated}
