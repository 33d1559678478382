# SPDX-License-Identifier: Apache-2.0
"""What a model costs: multiply-accumulates, parameters, bytes moved per node, and peak activation memory.

Named dims take the sizes given in ``bindings``; any other name counts as 1 and is listed in
``CostTable.assumed``.  What cannot be counted is listed with its reason and left out of the sums; nothing
is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil, prod
from typing import TypeAlias

from ..graph_ir import DataType, Function, Graph, Model, Node, TensorProtocol, Value, gc_paused
from ..graph_ir.ops import constant_tensor, has_subgraph, is_standard, label, subgraphs, walk_graphs
from . import cost_contrib as contrib
from . import expr
from .contrib_rules import MICROSOFT
from .cost_rules import RULES, UNCOUNTED, Case, Sizes, Uncountable
from .liveness import peak_activations
from .shapes import dims_of, infer_shapes

Branches: TypeAlias = "tuple[tuple[Node, int], ...]"
"""The Ifs that a node is in, outermost first, and in which branch of each."""


@dataclass(frozen=True)
class NodeCost:
    """One node, what its bodies and functions cost included.

    Attributes:
        node: the node.
        name: its label.
        op: its operator.
        macs: multiply-accumulates, None when not counted.
        parameters: elements of the constants it reads.
        parameter_bytes: bytes of them.
        bytes_moved: bytes of inputs, constants and outputs; None when a size is unknown.
        reason: why something is None, else empty.
    """

    node: Node
    name: str
    op: str
    macs: int | None
    parameters: int
    parameter_bytes: int
    bytes_moved: int | None
    reason: str = ""


@dataclass(frozen=True)
class CostTable:
    """A model's costs.

    Attributes:
        nodes: one entry per node of the main graph, in order.
        macs: sum over the nodes that could be counted.
        parameters: elements of all constants in the model, each counted once however often it is read.
        parameter_bytes: bytes of them.
        bytes_moved: sum over the nodes whose sizes are known.
        peak_activation_bytes: see `liveness.peak_activations`; values of unknown size count as nothing.
        peak_node: label of the node at which that happens.
        assumed: sizes taken for names without a binding.
        notes: (node, reason) of whatever is missing from the sums, or counted with a proviso.
        uncounted: how many nodes, those in bodies and functions included, are missing from the MACs.
    """

    nodes: tuple[NodeCost, ...]
    macs: int
    parameters: int
    parameter_bytes: int
    bytes_moved: int
    peak_activation_bytes: int
    peak_node: str
    assumed: Mapping[str, int]
    notes: tuple[tuple[str, str], ...]
    uncounted: int = 0


def cost(model: Model, *, bindings: Mapping[str, int] | None = None) -> CostTable:
    """Count what a model costs for inputs of given sizes.

    Args:
        model: its shapes are inferred first (`infer_shapes`).
        bindings: sizes of named dims; an input's unnamed dim goes by ``?input.axis``.
    """
    infer_shapes(model)
    counter = _Counter(model, dict(bindings or {}))
    nodes = counter.graph(model.graph)
    counter.note_nodes(nodes)
    peak = peak_activations(model.graph, counter.known_bytes, model.functions)
    tensors = {id(t): t for t in map(_weight, _constants(model)) if t is not None}.values()
    return CostTable(
        nodes=tuple(nodes),
        macs=sum(n.macs or 0 for n in nodes),
        parameters=sum(counter.held(t)[0] for t in tensors),
        parameter_bytes=sum(counter.held(t)[1] for t in tensors),
        bytes_moved=sum(n.bytes_moved or 0 for n in nodes),
        peak_activation_bytes=peak.bytes,
        peak_node=peak.node,
        assumed=dict(sorted(counter.assumed.items())),
        notes=tuple(dict.fromkeys(counter.notes)),
        uncounted=counter.uncounted,
    )


def macs_by_node(
    model: Model, *, bindings: Mapping[str, int] | None = None
) -> list[tuple[Node, int, Branches]]:
    """The MACs of the nodes that have any and can be counted, in order, and the branches of Ifs they are in.

    Unlike in `cost`, nodes in bodies stand for themselves. There only the dearest branch of an If counts.

    Args:
        model: shapes inferred.
        bindings: sizes of named dims; any other name counts as 1.
    """
    counter = _Counter(model, dict(bindings or {}))
    with gc_paused():
        counted = ((node, counter.counted(node), within) for node, within in _working(model.graph, ()))
        return [(node, macs, within) for node, macs, within in counted if macs]


def working_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph, in order; in place of one with bodies, the nodes of these."""
    return (node for node, _ in _working(graph, ()))


def _working(graph: Graph, within: Branches) -> Iterator[tuple[Node, Branches]]:
    for node in graph:
        if has_subgraph(node):
            for number, body in enumerate(subgraphs(node)):
                yield from _working(body, (*within, (node, number)) if node.op_type == "If" else within)
        else:
            yield node, within


def _weight(value: Value | None) -> TensorProtocol | None:
    """The tensor a value holds, overridable initializers included: they are stored like any other weight."""
    if value is not None and value.is_initializer():
        return value.const_value
    return constant_tensor(value)


def _constants(model: Model) -> Iterable[Value]:
    for graph in walk_graphs(model):
        yield from graph.initializers.values()
        for node in graph:
            if node.op_type == "Constant":
                yield from node.outputs


@dataclass
class _Counter:
    model: Model
    bindings: dict[str, int]
    uncounted: int = 0
    assumed: dict[str, int] = field(default_factory=dict[str, int])
    notes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    found: dict[Value, Sizes] = field(default_factory=dict[Value, Sizes])
    calls: dict[Function, list[NodeCost]] = field(default_factory=dict[Function, list[NodeCost]])
    moved: dict[Value, int] = field(default_factory=dict[Value, int])
    weights: dict[int, tuple[int, int]] = field(default_factory=dict[int, "tuple[int, int]"])

    def note_nodes(self, nodes: Sequence[NodeCost]) -> None:
        self.notes.extend((n.name, n.reason) for n in nodes if n.reason)

    def sizes(self, value: Value) -> Sizes:
        """The value's dims as numbers.

        Raises:
            Uncountable: when one is unknown, or negative under the sizes assumed.
        """
        known = self.found.get(value)
        if known is not None:
            return known
        dims = dims_of(value)
        if dims is None:
            raise Uncountable(f"the shape of {value.name!r} is unknown")
        sizes: list[int] = []
        for dim in dims:
            for name in expr.names(dim):
                if name not in self.bindings:
                    self.bindings[name] = self.assumed[name] = 1
            size = expr.evaluate(dim, self.bindings)
            if size is None:
                raise Uncountable(f"a dim of {value.name!r} is unknown")
            if size < 0:
                taken = ", ".join(f"{name}={self.bindings[name]}" for name in sorted(expr.names(dim)))
                raise Uncountable(f"dim {dim} of {value.name!r} is {size} with {taken}")
            sizes.append(size)
        self.found[value] = tuple(sizes)
        return self.found[value]

    def bytes(self, value: Value) -> int:
        """Bytes of a value; raises `Uncountable`."""
        found = self.moved.get(value)
        if found is None:
            dtype = value.dtype
            if dtype is None or dtype in (DataType.UNDEFINED, DataType.STRING):
                raise Uncountable(f"the element size of {value.name!r} is unknown")
            found = self.moved[value] = ceil(prod(self.sizes(value)) * dtype.itemsize)
        return found

    def held(self, tensor: TensorProtocol) -> tuple[int, int]:
        """Elements and bytes of a weight; both are slow to ask for, and asked for several times."""
        found = self.weights.get(id(tensor))
        if found is None:
            found = self.weights[id(tensor)] = tensor.size, tensor.nbytes
        return found

    def known_bytes(self, value: Value) -> int:
        """Bytes of a value, 0 (noted) when unknown."""
        try:
            return self.bytes(value)
        except Uncountable as reason:
            self.notes.append((value.name or "", f"left out of peak memory: {reason}"))
            return 0

    def graph(self, nodes: Iterable[Node]) -> list[NodeCost]:
        return [self.node(node) for node in nodes]

    def node(self, node: Node) -> NodeCost:
        values = dict.fromkeys(v for v in (*node.inputs, *node.outputs) if v is not None and v.name)
        weights = [t for t in map(_weight, dict.fromkeys(node.inputs)) if t is not None]
        reasons: dict[str, None] = {}
        moved: int | None = None
        macs: int | None = None
        try:
            moved = sum(self.bytes(v) for v in values)
        except Uncountable as reason:
            reasons[str(reason)] = None
        try:
            macs = self.macs(node, reasons)
        except Uncountable as reason:
            reasons[str(reason)] = None
            self.uncounted += 1
        elements, stored = (sum(self.held(t)[i] for t in weights) for i in (0, 1))
        return NodeCost(node, label(node), node.op_type, macs, elements, stored, moved, "; ".join(reasons))

    def macs(self, node: Node, reasons: dict[str, None]) -> int:
        """The node's count; provisos go to ``reasons``."""
        function = self.model.functions.get(node.op_identifier())
        if function is not None:
            if function not in self.calls:
                self.calls[function] = []  # a function that calls itself counts once
                self.calls[function] = self.graph(function)
                self.note_nodes(self.calls[function])
            return sum(n.macs or 0 for n in self.calls[function])
        bodies = list(subgraphs(node))
        if bodies:
            return self.bodies(node, bodies, reasons)
        rule = contrib.RULES.get(node.op_type) if node.domain == MICROSOFT else None
        if rule is None and not is_standard(node):
            raise Uncountable(f"nothing is known of operator {node.domain}.{node.op_type}")
        if rule is None and node.op_type in UNCOUNTED:
            raise Uncountable(f"no count is defined for {node.op_type}")
        rule = rule or RULES.get(node.op_type)
        if rule is None:
            return 0
        inputs = [None if v is None else self.sizes(v) for v in node.inputs]
        # Of fused attention also the states come out, which no rule needs.
        made = node.outputs if is_standard(node) else node.outputs[:1]
        return rule(Case(node, inputs, [self.sizes(v) for v in made if v.name]))

    def counted(self, node: Node) -> int:
        """The node's count; 0 when it cannot be counted."""
        with suppress(Uncountable):
            return self.macs(node, {})
        return 0

    def bodies(self, node: Node, bodies: Sequence[Graph], reasons: dict[str, None]) -> int:
        costs = [self.graph(body) for body in bodies]
        for nodes in costs:
            self.note_nodes(nodes)
        sums = [sum(n.macs or 0 for n in nodes) for nodes in costs]
        if node.op_type == "If":
            return max(sums)
        if any(sums):
            reasons[f"the body of {node.op_type} is counted once"] = None
        return sum(sums)
