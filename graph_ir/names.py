# SPDX-License-Identifier: Apache-2.0
"""Names and operators in use, where nodes are, and which outermost graph holds each body.

Kept up by the Rewriter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter

import onnx_ir as ir

from .ops import graphs_within, has_subgraph, walk_graphs

_FIRST = itemgetter(0)


class Names:
    """The names of all values and nodes of a model, its bodies and functions.

    Args:
        model: as it stands; what is added later must be named through this object.

    Attributes:
        operators: how often each operator type occurs, of whatever domain; never too few.
        changes: how often names were taken or freed.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._functions = {f.graph: f for f in model.functions.values()}
        self._owners: dict[ir.Graph, ir.Graph] = {}
        self._places: dict[str, list[tuple[int, ir.Node]]] | None = None  # by operator, while they hold
        self._placed_at = 0
        self._unplaced: set[str] = set()  # operators of nodes made since
        self._placed = 0  # how many nodes there are by now, if all came and went through this object
        self._values: Counter[str] = Counter()  # bodies side by side may use one name twice
        self._nodes: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self.operators: Counter[str] = Counter()
        self.changes = 0
        outermost = model.graph
        for graph in walk_graphs(model):
            if graph in self._functions:
                outermost = graph
            self._owners[graph] = outermost
            nodes = list(graph)
            self._values.update([v.name for v in graph.inputs if v.name])
            self._values.update(list(graph.initializers.data))  # of names, not as a mapping
            self._values.update([o.name for node in nodes for o in node.outputs if o.name])
            self._nodes.update([node.name for node in nodes if node.name])
            self.operators.update([node.op_type for node in nodes])

    def adopt(self, graph: ir.Graph, outermost: ir.Graph) -> None:
        """Count a graph and its bodies, newly made, as part of an outermost one."""
        for inner in graphs_within(graph):
            self._owners[inner] = outermost
            self.operators.update(node.op_type for node in inner)
        self.changes += 1
        self._places = None

    def graphs(self) -> Sequence[ir.Graph]:
        """Every graph of the model, in the order of `walk_graphs`."""
        if self._flat():
            return list(self._owners)
        return list(walk_graphs(self._model))

    def graphs_within(self, graph: ir.Graph) -> Sequence[ir.Graph]:
        """The graph and the bodies in it, in the order of `ops.graphs_within`."""
        return [graph] if self._flat() else list(graphs_within(graph))

    def _flat(self) -> bool:
        """Whether there never were bodies, so that no node need be asked for them."""
        return len(self._owners) == 1 + len(self._model.functions)

    def nodes(self, op_types: Iterable[str]) -> list[ir.Node]:
        """All nodes of these operator types, of whatever domain, in the order of `walk_graphs`."""
        wanted = set(op_types)
        places = self._places
        if places is None or not self._in_place(wanted):
            places = self._places = {}
            self._placed_at = self.changes
            self._unplaced.clear()
            self._placed = 0
            for node in chain.from_iterable(self.graphs()):
                places.setdefault(node.op_type, []).append((self._placed, node))
                self._placed += 1
        found = [places[op_type] for op_type in wanted if op_type in places]
        in_order = found[0] if len(found) == 1 else sorted(chain.from_iterable(found), key=_FIRST)
        return [node for _, node in in_order if node.graph is not None]

    def _in_place(self, op_types: set[str]) -> bool:
        """Whether nodes of these types still are where they were found, but for those removed since."""
        if self._placed_at == self.changes:
            return True
        if not self._flat() or not self._unplaced.isdisjoint(op_types):
            return False
        return self._placed == sum(map(len, self._owners))

    def moved(self) -> None:
        """Forget where nodes are, as some may have been moved past the Rewriter from graph to graph."""
        if not self._flat():
            self._places = None

    def outermost(self, graph: ir.Graph) -> ir.Graph:
        """The main graph or the function's graph that holds this one."""
        return self._owners[graph]

    def function(self, graph: ir.Graph) -> ir.Function | None:
        """The function the graph belongs to, None in the main graph and its bodies."""
        return self._functions.get(self._owners[graph])

    def fresh_value(self, hint: str) -> str:
        """A value name not in use (then in use): the hint, or the hint with a number."""
        return self._fresh(self._values, hint)

    def fresh_node(self, hint: str) -> str:
        """The same for a node."""
        return self._fresh(self._nodes, hint)

    def add_node(self, op_type: str, hint: str) -> str:
        """A name for a node that is made now."""
        self.operators[op_type] += 1
        self._unplaced.add(op_type)
        self._placed += 1
        return self.fresh_node(hint)

    def _fresh(self, taken: Counter[str], base: str) -> str:
        name = base
        while taken.get(name, 0) > 0:  # a number is never tried twice, so this stays linear
            self._numbers[base] = self._numbers.get(base, 0) + 1
            name = f"{base}_{self._numbers[base]}"
        taken[name] += 1
        self.changes += 1
        return name

    def free_value(self, name: str | None) -> None:
        """Let a value's name be used again."""
        if name:
            self._values[name] -= 1
        self.changes += 1

    def free_node(self, node: ir.Node) -> None:
        """Let the names of a removed node and its outputs be used again."""
        if node.name:
            self._nodes[node.name] -= 1
        self.operators[node.op_type] -= 1
        self._placed -= 1
        if has_subgraph(node):
            self._places = None  # nodes of its bodies still are in these
        for output in node.outputs:
            self.free_value(output.name)
