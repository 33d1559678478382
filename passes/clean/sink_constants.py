# SPDX-License-Identifier: Apache-2.0
"""Constants that only one body reads, kept there."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Graph, Model
from ...graph_ir.ops import graphs_within, subgraphs
from ..base import Context, Exactness, Pass


class SinkConstants(Pass):
    """Move weights that one body of a Loop, Scan or If alone reads into that body.

    A body's own weights are set up once. Those it reads from outside onnxruntime hands in anew for each
    iteration: 19 of them took a sixth of the time of a scripted recurrent cell of 64 units. Weights that a
    caller may override or that are read elsewhere, too, stay; so does everything in functions, which have
    Constant nodes in place of weights.
    """

    name: ClassVar[str] = "sink-constants"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        for graph in rewriter.graphs_within(model.graph):  # outermost first: what sinks may sink on
            body_of = _bodies(graph)
            for value in list(graph.initializers.values()) if body_of else ():
                if value.is_graph_input() or value.is_graph_output():
                    continue
                readers = {id(user.graph) for user, _ in value.uses()}
                bodies = {id(body): body for each in readers if (body := body_of.get(each)) is not None}
                if len(bodies) == 1 and readers <= body_of.keys():
                    rewriter.move_initializer(value, *bodies.values())
                    ctx.counters["sunk"] += 1
        return rewriter.edits > 0


def _bodies(graph: Graph) -> dict[int, Graph]:
    """Of each graph within a body of a graph's nodes, by identity: that body."""
    return {id(inner): body for node in graph for body in subgraphs(node) for inner in graphs_within(body)}
