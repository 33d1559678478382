# SPDX-License-Identifier: Apache-2.0
"""The worklist driver: applies rules until none fires, in every graph, body and function of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..graph_ir import Model, Node, Rewriter, UsageError
from ..graph_ir.ops import is_standard, label, walk_graphs
from .base import Context
from .matching import match
from .pattern import Match, Miss, Rule

MAX_REWRITES_PER_NODE = 16


def apply_rules(model: Model, ctx: Context, rules: Sequence[Rule]) -> bool:
    """Apply rules until nothing changes; True if anything did.

    Nodes are visited in topological order; after a rewrite, the nodes it touched are visited again. Time is
    linear in nodes plus rewrites.

    Raises:
        UsageError: when rules undo each other for ever; names the rule.
    """
    index: dict[str, list[Rule]] = {}
    for rule in rules:
        for op_type in rule.root.op_types:
            index.setdefault(op_type, []).append(rule)
    queue: deque[Node] = deque()
    queued: set[Node] = set()

    def enqueue(node: Node) -> None:
        if node.op_type in index and node not in queued:
            queued.add(node)
            queue.append(node)

    for graph in walk_graphs(model):
        for node in graph:
            enqueue(node)
    rewriter = ctx.rewriter(model, on_node=enqueue)
    before = rewriter.edits
    budget = MAX_REWRITES_PER_NODE * (len(queue) + 100)
    while queue:
        node = queue.popleft()
        queued.discard(node)
        if node.graph is None or not is_standard(node):
            continue
        for rule in index[node.op_type]:
            if _apply(rule, node, rewriter, ctx):
                budget -= 1
                if budget < 0:
                    raise UsageError(f"rule {rule.name} fires for ever, last at node {label(node)!r}")
                break
    return rewriter.edits != before


def _apply(rule: Rule, node: Node, rewriter: Rewriter, ctx: Context) -> bool:
    found = match(rule.root, node)
    if found is None or not rewriter.allowed(rule.name, node):
        return False
    matched = list(found.nodes.values())
    edits = rewriter.edits
    with rewriter.standing_for(matched):
        result = rule.rewrite(found, rewriter)
        if isinstance(result, Miss):
            ctx.misses[rule.name, result.reason] += 1
            return False
        if result is not None:
            rewriter.replace(node.outputs[0], result)
    if rewriter.edits == edits:
        return False
    _sweep(found, rewriter)
    ctx.counters[rule.name] += 1
    return True


def _sweep(found: Match, rewriter: Rewriter) -> None:
    """Erase the matched nodes nothing reads any more, users before producers."""
    waiting = [n for n in found.nodes.values() if n.graph is not None]
    progress = True
    while progress:
        progress = False
        for node in list(waiting):
            if any(o.uses() or o.is_graph_output() for o in node.outputs):
                continue
            rewriter.erase(node)
            waiting.remove(node)
            progress = True
    for node in waiting:
        if node.graph is not None and rewriter.on_node is not None:
            rewriter.on_node(node)
