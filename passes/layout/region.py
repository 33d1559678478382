# SPDX-License-Identifier: Apache-2.0
"""Regions of operators that one permutation reaches, and the parts of them worth moving.

A region is a set of nodes of one graph, each with the plan of how it carries its permutation. To move it is
to compute all its results in the layout before the permutation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ...graph_ir import Graph, Node, Value
from .borders import Borders, Region, touched
from .carry import Plan
from .perms import Perm, is_identity, perm_of
from .plans import may_carry, plan


def grow(
    seeds: Iterable[tuple[Node, Perm]],
    graph: Graph,
    opset: Callable[[Node], int],
    known: Callable[[Node, Perm], bool],
) -> Region:
    """All nodes of the graph that the permutation reaches from the seeds through what they read and make.

    Args:
        seeds: nodes with the permutation they read their operands through.
        graph: no node of another graph joins.
        opset: in force at a node.
        known: asked once for each node and permutation; False keeps the node out.
    """
    region: dict[Node, Plan] = {}
    waiting = deque(seeds)
    layouts: dict[Value, Perm] = {}
    while waiting:
        node, perm = waiting.popleft()
        if node in region or node.graph is not graph or not known(node, perm):
            continue
        found = plan(node, perm, opset(node))
        if found is None or _reads_across(node, found, graph):
            continue
        values = list(touched(node, found))
        if any(layouts.get(value, layout) != layout for value, layout in values):
            continue  # one value cannot be in two layouts
        region[node] = found
        for value, layout in values:
            if value in layouts:
                continue
            layouts[value] = layout
            if is_identity(layout):
                continue
            producer = value.producer()
            if producer is not None and may_carry(producer):
                waiting.append((producer, layout))
            waiting.extend((user, layout) for user, _ in value.uses() if may_carry(user))
    return region


def _reads_across(node: Node, found: Plan, graph: Graph) -> bool:
    """Whether a moved operand is made in an outer graph: a Transpose for it would be run once a loop."""
    for i in found.moved:
        value = node.inputs[i]
        if value is None:
            continue
        producer = value.producer()
        home = value.graph if producer is None else producer.graph
        if home is not graph and perm_of(producer) != found.perm:
            return True
    return False


def best_parts(region: Region) -> list[Region]:
    """The connected parts of a region that are worth moving.

    Nodes at the border whose removal costs nothing are taken out one by one; of the regions passed on the way
    the largest of the cheapest is kept. Each node is taken out once, and looked at again only when one of its
    values turns from inner to border: linear in nodes and edges.
    """
    borders = Borders(region)
    taken: list[Node] = []
    cost = least = borders.cost()
    keep = 0
    waiting = deque(region)
    queued = set(region)
    while waiting:
        node = waiting.popleft()
        queued.discard(node)
        if node not in borders.region:
            continue
        more = borders.gain(node)
        if more > 0:
            continue
        near = [value for value, _ in touched(node, region[node])]
        borders.drop(node)
        taken.append(node)
        cost += more
        if cost < least:
            least, keep = cost, len(taken)
        for value in near:
            border = borders.values[value]
            producer = value.producer()
            if border.plain > 1 and border.inside > 1 and producer is not node:
                continue
            for other in (producer, *(user for user, _ in value.uses())):
                if other in borders.region and other not in queued:
                    queued.add(other)
                    waiting.append(other)
    gone = set(taken[:keep])
    return list(parts({node: found for node, found in region.items() if node not in gone}))


def parts(region: Region) -> Iterator[Region]:
    """The connected parts: nodes that make or read a common value."""
    at: dict[Value, list[Node]] = {}
    for node, found in region.items():
        for value, _ in touched(node, found):
            at.setdefault(value, []).append(node)
    left = dict.fromkeys(region)
    while left:
        first = next(iter(left))
        stack, part = [first], dict.fromkeys([first])
        while stack:
            node = stack.pop()
            for value, _ in touched(node, region[node]):
                for other in at.pop(value, []):
                    if other not in part:
                        part[other] = None
                        stack.append(other)
        for node in part:
            del left[node]
        yield {node: region[node] for node in part}
