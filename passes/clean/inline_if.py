# SPDX-License-Identifier: Apache-2.0
"""Inlining of the branch an If with a constant condition takes."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import INFERRED, Graph, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import graphs_within, input_at, is_op, label, subgraphs
from ..base import Context, Exactness, Pass


class InlineConstantIf(Pass):
    """Put the branch that an If with a constant condition takes in the place of the If.

    If(true, A, B) = A and If(false, A, B) = B. What the branch reads from outside stays as it is, its weights
    become the model's, and its names are made unique. Ifs in bodies, functions and the branch itself are
    treated alike. Not valid for a condition a caller may override, or a branch that is only known where a
    function is called: those stay.
    """

    name: ClassVar[str] = "inline-constant-if"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        if not rewriter.occurs("If"):
            return False
        stack = [node for f in model.functions.values() for node in f.graph][::-1]
        stack += list(model.graph)[::-1]
        inlined = 0
        while stack:
            node = stack.pop()
            branch = _taken(node)
            if branch is not None and rewriter.allowed(self.name, node):
                stack.extend(reversed(_hoist(node, branch, rewriter)))
                inlined += 1
                continue
            for body in subgraphs(node):
                stack.extend(reversed(list(body)))
        ctx.counters["inlined"] += inlined
        return inlined > 0


def _taken(node: Node) -> Graph | None:
    """The branch that runs, when that is known."""
    if not is_op(node, "If"):
        return None
    condition = constant(input_at(node, 0))
    if condition is None or condition.size != 1:
        return None
    attr = node.attributes.get("then_branch" if condition.reshape(()) else "else_branch")
    return None if attr is None or attr.is_ref() else attr.as_graph()


def _hoist(node: Node, branch: Graph, rewriter: Rewriter) -> list[Node]:
    """Move a branch's nodes in front of the If and drop the If; returns the moved nodes."""
    graph = node.graph
    assert graph is not None
    prefix = label(node)
    results = list(branch.outputs)
    branch.outputs.clear()
    with rewriter.standing_for([node]):
        for value in list(branch.initializers.values()):
            if value.const_value is not None:
                made = rewriter.constant(value.const_value, f"{prefix}/{value.name}", near=node)
                rewriter.replace(value, made)
                results = [made if result is value else result for result in results]
        for value in _named_within(branch):
            value.name = rewriter.fresh_name(f"{prefix}/{value.name}")
        moved = list(branch)
        branch.remove(moved)
        graph.insert_before(node, moved)
        for output, result in zip(node.outputs, results, strict=True):
            if result.producer() is not None and not result.is_graph_output():
                # Declared for the branch alone; its names of sizes mean nothing (torch gives one to several).
                result.shape, result.meta[INFERRED] = None, True
            rewriter.replace(output, result)
        rewriter.erase(node)
    return moved


def _named_within(branch: Graph) -> list[Value]:
    """What a branch's nodes make and bodies within it declare: bodies may use names of the graph outside."""
    found = [value for graph in graphs_within(branch) for node in graph for value in node.outputs]
    for body in graphs_within(branch):
        if body is not branch:
            found += [*body.inputs, *body.initializers.values()]
    return [value for value in found if value.name]
