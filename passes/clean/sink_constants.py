# SPDX-License-Identifier: Apache-2.0
"""Constants that only one body reads, kept there."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Graph, Model
from ...graph_ir.ops import graphs_within, is_op, subgraphs
from ..base import Context, Exactness, Pass

_LARGE = 1 << 20  # bytes; weights of the main graph can be lent to a session, those of bodies are copied


class SinkConstants(Pass):
    """Move weights that one body of a Loop, Scan or If alone reads into that body.

    A body's own weights are set up once. Those it reads from outside onnxruntime hands in anew for each
    iteration: 19 of them took a sixth of the time of a scripted recurrent cell of 64 units. Weights that a
    caller may override or that are read elsewhere, too, stay, and so do those of 1 MiB or more, beside whose
    reading that is nothing; so does everything in functions, which have Constant nodes in place of weights.
    """

    name: ClassVar[str] = "sink-constants"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        for graph in rewriter.graphs_within(model.graph):  # outermost first: what sinks may sink on
            body_of = _bodies(graph)
            for value in list(graph.initializers.values()) if body_of else ():
                small = value.const_value is not None and value.const_value.nbytes < _LARGE
                if value.is_graph_input() or value.is_graph_output() or not small:
                    continue
                readers = {id(user.graph) for user, _ in value.uses()}
                bodies = {id(body): body for each in readers if (body := body_of.get(each)) is not None}
                if len(bodies) == 1 and readers <= body_of.keys():
                    rewriter.move_initializer(value, *bodies.values())
                    ctx.counters["sunk"] += 1
        return rewriter.edits > 0


def _bodies(graph: Graph) -> dict[int, Graph]:
    """Of each graph within a Loop's, Scan's or If's body of a graph, by identity: that body."""
    bodies = [body for node in graph if is_op(node, "Loop", "Scan", "If") for body in subgraphs(node)]
    return {id(inner): body for body in bodies for inner in graphs_within(body)}
