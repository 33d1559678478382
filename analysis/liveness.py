# SPDX-License-Identifier: Apache-2.0
"""When values are alive, and how much memory activations need at the worst moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..graph_ir import Function, Graph, Node, Value, is_constant
from ..graph_ir.ops import graphs_within, label, subgraphs


@dataclass(frozen=True)
class Peak:
    """The worst moment of a run.

    Attributes:
        bytes: memory of the activations alive then, the node's own body included.
        node: label of the node that runs then, empty for a graph without nodes.
    """

    bytes: int
    node: str


def reads(node: Node) -> Iterator[Value]:
    """Values a node reads: its inputs, and what its bodies (nested ones too) take from outside."""
    for value in node.inputs:
        if value is not None:
            yield value
    for body in subgraphs(node):
        inner = list(graphs_within(body))
        local = {o for g in inner for n in g for o in n.outputs} | {v for g in inner for v in g.inputs}
        for graph in inner:
            used = [v for n in graph for v in n.inputs if v is not None]
            yield from (v for v in (*used, *graph.outputs) if v not in local)


def lifetimes(graph: Graph | Function) -> dict[Value, tuple[int, int]]:
    """First and last position at which each activation of a graph is alive (constants and weights left out).

    A value is alive from the node that makes it to its last reader.  Graph inputs belong to the caller and
    graph outputs are handed over, so both live from the start, respectively to the end, which is position
    ``len(graph)``; inputs are at -1.
    """
    end = len(graph)
    alive: dict[Value, tuple[int, int]] = {v: (-1, end) for v in graph.inputs if not v.is_initializer()}
    for position, node in enumerate(graph):
        for value in reads(node):
            if value in alive:
                alive[value] = (alive[value][0], max(alive[value][1], position))
        for value in node.outputs:
            if value.name and not is_constant(value):
                alive[value] = (position, position)
    for value in graph.outputs:
        if value in alive:
            alive[value] = (alive[value][0], end)
    return alive


def peak_activations(
    graph: Graph | Function,
    size_of: Callable[[Value], int],
    functions: Mapping[tuple[str, str, str], Function],
    *,
    inputs: bool = True,
) -> Peak:
    """Most bytes of activations alive at once, in the order the nodes stand, without reuse in place.

    Args:
        graph: the graph; nodes in topological order.
        size_of: bytes of a value.
        functions: the model's functions; a call needs its body's peak besides.
        inputs: whether the graph's inputs count (for a body they are the caller's).
    """
    alive = lifetimes(graph)
    ends: dict[int, list[Value]] = {}
    for value, (_, last) in alive.items():
        ends.setdefault(last, []).append(value)
    current = sum(size_of(value) for value in graph.inputs if value in alive) if inputs else 0
    peak = Peak(current, "")
    for position, node in enumerate(graph):
        current += sum(size_of(value) for value in node.outputs if value in alive)
        bodies: list[Graph | Function] = list(subgraphs(node))
        function = functions.get(node.op_identifier())
        if function is not None:
            bodies.append(function)
        inside = max((peak_activations(b, size_of, functions, inputs=False).bytes for b in bodies), default=0)
        if current + inside > peak.bytes:
            peak = Peak(current + inside, label(node))
        current -= sum(size_of(value) for value in ends.get(position, ()))
    return peak
