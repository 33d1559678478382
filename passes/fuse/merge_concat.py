# SPDX-License-Identifier: Apache-2.0
"""Concatenations of concatenations become one."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Model, Node, Value
from ...graph_ir.ops import has_reference_attribute, int_attr, is_op, only_user, rank
from ..base import Context, Exactness, Pass


class MergeConcats(Pass):
    """Merge nested Concat along one axis: Concat(a, Concat(b, c), d) = Concat(a, b, c, d).

    The same values in the same order, copied once instead of once a level. Not done when the inner result is
    a graph output or read by others, since it is needed as it is, or when the inner node is of an outer
    scope. Axes counted from either end are compared where the rank is known.
    """

    name: ClassVar[str] = "merge-concat"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Flatten each tree of concatenations from its root, so that no chain is walked twice."""
        rewriter = ctx.rewriter(model)
        for root in reversed(rewriter.nodes(["Concat"])):
            if root.graph is None or not is_op(root, "Concat") or has_reference_attribute(root):
                continue
            leaves, merged = _leaves(root)
            if not merged or not rewriter.allowed(self.name, root):
                continue
            with rewriter.standing_for([root, *merged]):
                attributes = list(root.attributes.values())
                made = rewriter.node("Concat", leaves, attributes, before=root, name=root.name or "Concat")
                rewriter.replace(root.outputs[0], made.outputs[0])
                rewriter.erase(root)
                for node in merged:
                    rewriter.erase(node)
            ctx.counters[self.name] += len(merged)
        return rewriter.edits > 0


def _leaves(root: Node) -> tuple[list[Value | None], list[Node]]:
    """What the tree of a concatenation joins, in order, and its inner nodes, outer ones first."""
    leaves: list[Value | None] = []
    merged: list[Node] = []
    waiting: list[tuple[Node, Value | None]] = [(root, value) for value in reversed(root.inputs)]
    while waiting:
        reader, value = waiting.pop()
        inner = None if value is None else _inner(value, reader)
        if inner is None:
            leaves.append(value)
        else:
            merged.append(inner)
            waiting += [(inner, v) for v in reversed(inner.inputs)]
    return leaves, merged


def _inner(value: Value, reader: Node) -> Node | None:
    """The concatenation along the same axis that makes a value for this reader alone."""
    node = value.producer()
    if node is None or not is_op(node, "Concat") or has_reference_attribute(node):
        return None
    if only_user(value) is not reader:
        return None
    axes = [int_attr(node, "axis", 1), int_attr(reader, "axis", 1)]
    if axes[0] != axes[1]:
        known = rank(value)
        if known is None or (axes[0] - axes[1]) % known:
            return None
    return node
