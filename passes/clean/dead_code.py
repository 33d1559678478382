# SPDX-License-Identifier: Apache-2.0
"""Dead code elimination."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Graph, Model, Node, Rewriter
from ...graph_ir.ops import STANDARD_DOMAINS, graphs_within, subgraphs
from ..base import Context, Exactness, Pass

Identifier = tuple[str, str, str]

# Domains whose operators are known to do nothing but compute their outputs.
_PURE_DOMAINS = STANDARD_DOMAINS | {"ai.onnx.ml", "com.microsoft"}


class EliminateDeadCode(Pass):
    """Remove nodes, weights and functions that no output depends on.

    Valid for every input: what is removed cannot be observed. Nodes of unknown domains stay even when unused
    (they may have effects of their own), as do graph inputs (they are part of the signature).
    """

    name: ClassVar[str] = "eliminate-dead-code"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        # Innermost bodies first: what they stop reading may be dead outside.
        for graph in reversed(rewriter.graphs()):
            ctx.counters["dead nodes"] += _sweep(graph, model, rewriter)
        for graph in rewriter.graphs():
            for value in list(graph.initializers.data.values()):
                if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                    rewriter.drop_initializer(value)
                    ctx.counters["dead weights"] += 1
        unused = _unused_functions(model)
        for identifier in unused:
            del model.functions[identifier]
        ctx.counters["dead functions"] += len(unused)
        return rewriter.edits > 0 or bool(unused)


def _sweep(graph: Graph, model: Model, rewriter: Rewriter) -> int:
    removed = 0
    for node in reversed(list(graph)):
        for output in node.outputs:
            if output.uses() or output.is_graph_output():
                break
        else:
            if _removable(node, model):
                rewriter.erase(node)
                removed += 1
    return removed


def _removable(node: Node, model: Model, calls: frozenset[Identifier] = frozenset()) -> bool:
    """Whether the node, its bodies and the function it calls do nothing but compute their outputs."""
    identifier = node.op_identifier()
    function = model.functions.get(identifier)
    if function is not None:
        if identifier in calls:
            return False
        return all(_removable(inner, model, calls | {identifier}) for inner in function)
    if node.domain not in _PURE_DOMAINS:
        return False
    return all(_removable(inner, model, calls) for body in subgraphs(node) for inner in body)


def _unused_functions(model: Model) -> list[Identifier]:
    if not model.functions:
        return []
    used: set[Identifier] = set()
    stack = [n.op_identifier() for n in _reachable_nodes(model.graph)]
    while stack:
        identifier = stack.pop()
        if identifier in model.functions and identifier not in used:
            used.add(identifier)
            stack.extend(n.op_identifier() for n in _reachable_nodes(model.functions[identifier].graph))
    return [identifier for identifier in model.functions if identifier not in used]


def _reachable_nodes(graph: Graph) -> list[Node]:
    return [node for inner in graphs_within(graph) for node in inner]
