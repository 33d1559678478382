# SPDX-License-Identifier: Apache-2.0
"""The worklist driver: applies rules until none fires, in every graph, body and function of a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..graph_ir import Model, Node, Rewriter, UsageError
from ..graph_ir.ops import STANDARD_DOMAINS, label
from .base import Context
from .matching import match
from .pattern import Match, Miss, Rule, may_match

MAX_REWRITES_PER_NODE = 16


def apply_rules(model: Model, ctx: Context, rules: Sequence[Rule], rewriter: Rewriter | None = None) -> bool:
    """Apply rules until nothing changes; True if anything did.

    Nodes are visited in topological order; after a rewrite, the nodes it touched are visited again. Time is
    linear in nodes plus rewrites; a rule whose operators do not occur in the model costs nothing.

    Args:
        model: edited in place.
        ctx: counters and misses are added to.
        rules: tried in this order at each node.
        rewriter: a new one to edit through, for who wants to ask it afterwards; one of its own when None.

    Raises:
        UsageError: when rules undo each other for ever; names the rule.
    """
    work = _Worklist()
    if rewriter is None:
        rewriter = ctx.rewriter(model)
    rewriter.on_node = work.add
    while work.take_up(rules, rewriter):
        work.drain(rewriter, ctx)
    return rewriter.edits > 0


class _Worklist:
    """Nodes to visit, and the rules to try on them by the root's operator."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._index: dict[str, list[Rule]] = {}
        self._queue: deque[Node] = deque()
        self._queued: set[Node] = set()

    def add(self, node: Node) -> None:
        """Have a node visited, if any rule starts at its operator."""
        if node.op_type in self._index and node not in self._queued:
            self._queued.add(node)
            self._queue.append(node)

    def take_up(self, rules: Sequence[Rule], rewriter: Rewriter) -> bool:
        """Have all nodes visited with the rules that may fire; False if none came up since the last time.

        A rule once taken up stays: rules that undo each other must meet in one list to be caught.
        """
        chosen = [r for r in rules if r in self._rules or may_match(r.root, rewriter.occurs)]
        if len(chosen) == len(self._rules):
            return False
        self._rules = chosen
        self._index.clear()
        for rule in chosen:
            for op_type in rule.root.op_types:
                self._index.setdefault(op_type, []).append(rule)
        self._queue.extend(rewriter.nodes(self._index))
        self._queued.update(self._queue)
        return True

    def drain(self, rewriter: Rewriter, ctx: Context) -> None:
        """Visit nodes until none is left; see `apply_rules`."""
        budget = MAX_REWRITES_PER_NODE * (len(self._queue) + 100)
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            if node.graph is None or node.domain not in STANDARD_DOMAINS:
                continue
            for rule in self._index[node.op_type]:
                if _apply(rule, node, rewriter, ctx):
                    budget -= 1
                    if budget < 0:
                        raise UsageError(f"rule {rule.name} fires for ever, last at node {label(node)!r}")
                    break


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
    # Two parts of a pattern may be one node: both sides of y + y.
    waiting = [n for n in dict.fromkeys(found.nodes.values()) if n.graph is not None]
    again = True
    while again:
        again = False
        kept: list[Node] = []
        for node in waiting:
            if any(o.uses() or o.is_graph_output() for o in node.outputs):
                kept.append(node)
            else:
                rewriter.erase(node)
                again = bool(kept)  # one that was read by this node only may go now
        waiting = kept
    for node in waiting:
        if node.graph is not None and rewriter.on_node is not None:
            rewriter.on_node(node)
