# SPDX-License-Identifier: Apache-2.0
"""The one door for edits.

Counts, provenance, the worklist and the protection of the model's signature all hang off `Rewriter`; a pass
that edits the IR in any other way cannot be bisected, reported or trusted.

Long because it is one class on purpose: there is one door.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import onnx_ir as ir

from .names import Names
from .ops import INFERRED, constant_tensor, graphs_within, opset_in, subgraphs
from .origins import Together, set_origins

Allow = Callable[[str, ir.Node], bool]

_FREE_INITIALIZERS_IR_VERSION = 4


class _Block(AbstractContextManager[None]):
    """A block in which new nodes stand for others; a class, as one is entered for each rewrite.

    Args:
        nodes: what new nodes stand for.
        blocks: those entered and not left yet.
        fresh: values made in the block, cleared at its end.
    """

    __slots__ = ("_blocks", "_fresh", "_known", "_nodes")

    def __init__(self, nodes: tuple[ir.Node, ...], blocks: list[_Block], fresh: set[ir.Value]) -> None:
        self._nodes = nodes
        self._blocks = blocks
        self._fresh = fresh
        self._known: Together | None = None  # while nobody asked

    def __enter__(self) -> None:
        if self._blocks:
            self._blocks[-1].origins()
        self._blocks.append(self)

    def __exit__(self, *_: object) -> None:
        self._blocks.pop()
        self._fresh.clear()

    def origins(self) -> Together | None:
        """What nodes made in the block stand for; None where it stands for nothing."""
        if self._known is None and self._nodes:
            self._known = Together(self._nodes)
        return self._known


class Rewriter:
    """Edits one model.

    Args:
        model: the model; edited in place.
        allow: asked before each named rewrite with (rule name, root node); False skips it (bisection).
        on_node: told of each node that was made, or whose inputs or uses changed (the driver's worklist).
        names: of this model, kept up from one Rewriter to the next; made when needed if None.

    Attributes:
        edits: how many were made.
        released: values that lost their last reader when a node was erased or given another input (they may
            have others since).
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        allow: Allow | None = None,
        on_node: Callable[[ir.Node], None] | None = None,
        names: Names | None = None,
    ) -> None:
        self.model = model
        self.edits = 0
        self.on_node = on_node
        self._allow = allow
        self._blocks: list[_Block] = []  # of `standing_for`, the innermost last
        self._known = names
        self._fresh: set[ir.Value] = set()
        self.released: dict[ir.Value, None] = {}

    # -- names and scopes ---------------------------------------------------------------------------------

    @property
    def _names(self) -> Names:
        if self._known is None:
            self._known = Names(self.model)
        return self._known

    def adopt(self, graph: ir.Graph, near: ir.Node) -> None:
        """Index a new graph and its bodies as part of the one that holds `near`; the caller names."""
        self._names.adopt(graph, self._names.outermost(_graph_of(near)))

    def occurs(self, op_type: str) -> bool:
        """Whether there may be nodes of the operator type in the model; False is certain."""
        return self._names.operators[op_type] > 0

    def graphs(self) -> Sequence[ir.Graph]:
        """Every graph of the model: the main graph and its bodies, then each function's and its bodies."""
        return self._names.graphs()

    def graphs_within(self, graph: ir.Graph) -> Sequence[ir.Graph]:
        """The graph, then every body nested in it, outer before inner."""
        return self._names.graphs_within(graph)

    def nodes(self, op_types: Iterable[str]) -> list[ir.Node]:
        """All nodes of these operator types, of whatever domain, graph by graph in their order."""
        return self._names.nodes(op_types)

    def fresh_name(self, hint: str) -> str:
        """A value name used nowhere in the model: the hint itself, or the hint with a number."""
        return self._names.fresh_value(hint or "value")

    def fresh_node_name(self, hint: str) -> str:
        """A node name used nowhere in the model: the hint itself, or the hint with a number."""
        return self._names.fresh_node(hint)

    def opset(self, node: ir.Node, domain: str = "") -> int:
        """The opset version of a domain in force at the node; 0 when not imported."""
        return opset_in(self._imports(node), domain)

    def import_domain(self, node: ir.Node, domain: str) -> None:
        """Have a domain in force at the node: version 1 where none is."""
        self._imports(node).setdefault(domain, 1)
        self.model.opset_imports.setdefault(domain, 1)

    def _imports(self, node: ir.Node) -> dict[str, int]:
        if self.model.functions and (function := self._names.function(_graph_of(node))) is not None:
            return function.opset_imports
        return self.model.opset_imports

    # -- making things ------------------------------------------------------------------------------------

    def standing_for(self, nodes: Sequence[ir.Node]) -> AbstractContextManager[None]:
        """Nodes made inside this block carry the origins of the given ones."""
        return _Block(tuple(nodes), self._blocks, self._fresh)

    def _origins_of_block(self) -> Together | None:
        """What nodes made now stand for: asked for when it is needed, and before names change."""
        return self._blocks[-1].origins() if self._blocks else None

    def allowed(self, rule: str, node: ir.Node) -> bool:
        """Whether the named rewrite may fire here (always, unless a bisection limits it)."""
        return self._allow is None or self._allow(rule, node)

    def constant(
        self,
        array: np.ndarray[Any, Any] | ir.TensorProtocol,
        name: str,
        near: ir.Node,
        *,
        inside: bool = False,
    ) -> ir.Value:
        """A new constant, visible at `near`: a weight of the outermost graph, or a Constant in a function.

        Args:
            array: the data; any ONNX dtype, also through ml_dtypes.
            name: a hint for the name.
            near: the node that will read it; a Constant node is put before it.
            inside: make it a weight of the very graph that `near` is in, which may be a body.
        """
        graph = _graph_of(near)
        tensor = _as_tensor(array)
        if self._names.function(graph) is not None:
            attribute = ir.AttrTensor("value", tensor)
            made = self.node("Constant", [], [attribute], before=near, name=name).outputs[0]
            made.type, made.shape = ir.TensorType(tensor.dtype), _shape_of(tensor)
            return made
        value = ir.Value(
            name=self.fresh_name(name),
            shape=_shape_of(tensor),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        (graph if inside else self._names.outermost(graph)).register_initializer(value)
        # Before IR version 4 every initializer had to be listed as an input, too.
        self.model.ir_version = max(self.model.ir_version, _FREE_INITIALIZERS_IR_VERSION)
        self.edits += 1
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | Sequence[ir.Attr] = (),
        *,
        before: ir.Node,
        name: str = "",
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """Insert a new node before another one.

        Args:
            op_type: the operator.
            inputs: its inputs; None for one left out.
            attributes: attributes by name (Python values or arrays), or ready ones (copied from a node).
            before: the node it is put in front of, in the same graph.
            name: a hint for the names of the node and its outputs; `before`'s own when empty.
            domain: the operator's domain.
            outputs: how many outputs it has.
        """
        hint = name or before.name or op_type
        if isinstance(attributes, Mapping):
            ready = list(ir.node(op_type, [], attributes).attributes.values())
        else:
            ready = list(attributes)
        made = ir.Node(
            domain,
            op_type,
            inputs,
            ready,
            outputs=[
                ir.Value(name=self.fresh_name(hint if i == 0 else f"{hint}_{i}")) for i in range(outputs)
            ],
            name=self._names.add_node(op_type, hint),
        )
        _graph_of(before).insert_before(before, made)
        if (known := self._origins_of_block()) is not None:
            set_origins(made, known)
        self._fresh.update(made.outputs)
        self.edits += 1
        self._tell(made)
        return made

    # -- changing things ----------------------------------------------------------------------------------

    def remade(self, node: ir.Node, *, result: bool) -> None:
        """Count a node that was edited in place as new: it carries the origins of the block it was edited in.

        Args:
            node: any node of the model.
            result: its outputs hold other values than before. What is known of them is forgotten, and they
                may take over the names of values they replace, as those of a new node do.
        """
        if (known := self._origins_of_block()) is not None:
            set_origins(node, known)
        if result:
            for output in node.outputs:
                output.type = output.shape = output.doc_string = None
                output.meta.data.clear()
                output.metadata_props.clear()
            self._fresh.update(node.outputs)
        self.edits += 1
        self._tell(node)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Make every user of `old` read `new`, keeping graph outputs' names, types and order.

        `new` must hold the same values as `old` and be defined wherever `old` is read. A graph output keeps
        its name: a new value takes the name over, any other one is copied through an Identity.
        """
        if old is new:
            return
        old_producer = old.producer()
        if old.is_graph_output() and old_producer is None:
            raise ValueError(f"graph output {old.name!r} has no producer to stand in front of")
        if not (new.is_graph_output() or new.is_graph_input()):  # those are the signature's
            if INFERRED in old.meta.data and (new.type is None or new.shape is None):
                new.meta[INFERRED] = True
            if new.type is None:
                new.type = old.type
            if new.shape is None:
                new.shape = old.shape
        output_of = old.graph if old.is_graph_output() else None
        takes_over = new in self._fresh and old_producer is not None and not new.is_graph_output()
        for user, index in old.uses():
            user.replace_input_with(index, new)
            self._tell(user)
        if output_of is not None:
            if not self.can_take_output(old, new):
                assert old_producer is not None
                new = self.node("Identity", [new], before=old_producer, name=old.name or "").outputs[0]
            new.type, new.shape = old.type, old.shape
            if INFERRED not in old.meta.data:  # declared: the runtime may need it in a body, so it is saved
                new.meta.pop(INFERRED, None)
            self._swap_output(output_of, old, new)
        elif takes_over:
            self._swap_names(old, new)
        self.edits += 1
        producer = new.producer()
        if producer is not None:
            self._tell(producer)

    def can_take_output(self, old: ir.Value, new: ir.Value) -> bool:
        """Whether `new` can become the graph output `old` is, without an Identity in between."""
        producer = new.producer()
        return producer is not None and producer.graph is old.graph and not new.is_graph_output()

    def _swap_names(self, old: ir.Value, new: ir.Value) -> None:
        name, spare = old.name, new.name
        self._origins_of_block()
        old.name = self.fresh_name(f"{name}_replaced")
        new.name = name
        self._names.free_value(spare)

    def _swap_output(self, graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
        for i, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[i] = new
        new.metadata_props.update(old.metadata_props)
        new.doc_string = old.doc_string
        self._swap_names(old, new)

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Change one input of a node (appending it when the index is the next one)."""
        before = node.inputs[index] if index < len(node.inputs) else None
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)
        self.edits += 1
        self._tell(node)
        if before is None:
            return
        if not before.uses():
            self.released[before] = None
        if (producer := before.producer()) is not None:
            self._tell(producer)

    def trim_inputs(self, node: ir.Node, count: int) -> None:
        """Drop a node's inputs from `count` on."""
        node.resize_inputs(count)
        self.edits += 1
        self._tell(node)

    def set_attribute(self, node: ir.Node, name: str, value: object) -> None:
        """Set an attribute to a Python value or array; None removes it."""
        if value is None:
            node.attributes.pop(name, None)
        else:
            made = ir.node(node.op_type, [], {name: value})  # pyright: ignore[reportArgumentType]
            node.attributes[name] = made.attributes[name]
        self.edits += 1
        self._tell(node)

    def set_data(self, value: ir.Value, array: np.ndarray[Any, Any]) -> None:
        """Give a constant other data of the same type, perhaps of another shape, for all who read it.

        Args:
            value: an initializer that is no input, or the output of a Constant.
            array: the data; a copy is not made.
        """
        held = constant_tensor(value)
        if held is None:
            raise ValueError(f"{value.name!r} is no constant")
        tensor = ir.Tensor(array, dtype=held.dtype, name=value.name)
        producer = value.producer()
        if producer is None:
            value.const_value = tensor
        else:
            producer.attributes.clear()
            producer.attributes["value"] = ir.AttrTensor("value", tensor)
        value.shape = _shape_of(tensor)
        self.edits += 1
        for user, _ in value.uses():
            self._tell(user)

    def erase(self, node: ir.Node) -> None:
        """Remove a node none of whose outputs is used or is a graph output.

        Raises:
            ValueError: if it is still used.
        """
        self.erase_all([node])

    def erase_all(self, nodes: Sequence[ir.Node]) -> None:
        """Remove nodes of one graph, users before producers; see `erase`."""
        if not nodes:
            return
        for node in nodes:
            for output in node.outputs:
                if output.is_graph_output() or output.uses():
                    raise ValueError(f"node {node.name!r} is still used through {output.name!r}")
            self._let_go(node)
            for body in subgraphs(node):
                # What a body reads from outside must not look as if it were still read.
                for graph in graphs_within(body):
                    for inner in graph:
                        self._let_go(inner)
            self._names.free_node(node)
        _graph_of(nodes[0]).remove(nodes)
        self.edits += len(nodes)

    def _let_go(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            node.replace_input_with(index, None)
            if not value.uses():
                self.released[value] = None
            if (producer := value.producer()) is not None:
                self._tell(producer)

    def drop_initializer(self, value: ir.Value) -> None:
        """Remove an initializer that nothing reads and that is neither input nor output."""
        if value.uses() or value.is_graph_input() or value.is_graph_output() or value.graph is None:
            raise ValueError(f"initializer {value.name!r} is still in use")
        name = value.name or ""
        del value.graph.initializers[name]
        self._names.free_value(name)
        self.edits += 1

    def move_initializer(self, value: ir.Value, body: ir.Graph) -> None:
        """Give an initializer to a body within its graph, where all that reads it is; it keeps its name."""
        if value.is_graph_input() or value.is_graph_output() or value.graph is None:
            raise ValueError(f"initializer {value.name!r} belongs where it is")
        del value.graph.initializers[value.name or ""]
        body.register_initializer(value)
        self.model.ir_version = max(self.model.ir_version, _FREE_INITIALIZERS_IR_VERSION)
        self.edits += 1

    def freeze_default(self, value: ir.Value) -> None:
        """Make an initializer that is also an input a plain constant: the caller can no longer override it.

        The one edit of the signature there is; only asked for by the user (`--freeze-default-inputs`).
        """
        if not (value.is_initializer() and value.is_graph_input()) or value.graph is None:
            raise ValueError(f"{value.name!r} is not an input with a default")
        value.graph.inputs.remove(value)
        self.model.ir_version = max(self.model.ir_version, _FREE_INITIALIZERS_IR_VERSION)
        self.edits += 1
        for user, _ in value.uses():
            self._tell(user)

    def _tell(self, node: ir.Node) -> None:
        if self.on_node is not None and node.graph is not None:
            self.on_node(node)


def _as_tensor(array: np.ndarray[Any, Any] | ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(array, np.ndarray):
        return array
    # The general constructor asks for protocols at run time, which is slow.
    return ir.tensor(array) if array.dtype.kind in "OUST" else ir.Tensor(array)


def _shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    """The tensor's own shape object, which is frozen."""
    shape = tensor.shape
    return shape if isinstance(shape, ir.Shape) else ir.Shape(shape.numpy())


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    if graph is None:
        raise ValueError(f"node {node.name!r} is in no graph")
    return graph
