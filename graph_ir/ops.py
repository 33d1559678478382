# SPDX-License-Identifier: Apache-2.0
"""Facts about operators, attributes and constants that every floor above leans on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
INFERRED = "tersor.inferred"  # in a value's meta: its type is not the file's own

_IN_MESSAGE = 0  # TensorProto.DataLocation.DEFAULT
# Element types whose raw data is an array as it stands, by their number.
_RAW_TYPES: dict[int, np.dtype[Any]] = {
    int(t): t.numpy().newbyteorder("<")
    for t in (
        *(ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL),
        *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
        *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    )
}

# Ops whose result is not a function of their inputs and attributes alone.
RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)

# The ai.onnx operators with bodies; asking a node for its attributes costs more than asking for its type.
BODY_OPS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def is_standard(node: ir.Node) -> bool:
    """Whether the node's operator belongs to the ai.onnx domain."""
    return node.domain in STANDARD_DOMAINS


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of the given ai.onnx operators."""
    return node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS


def opset_in(imports: Mapping[str, int], domain: str = "") -> int:
    """The version of a domain among opset imports, 0 if none; ai.onnx is imported by either of its names."""
    if domain in STANDARD_DOMAINS:
        return imports.get("", imports.get("ai.onnx", 0))
    return imports.get(domain, 0)


def opset_of(model: ir.Model) -> int:
    """The ai.onnx opset that the model imports, 0 if none."""
    return opset_in(model.opset_imports)


def subgraphs(node: ir.Node) -> Sequence[ir.Graph]:
    """The bodies held by the node's attributes (If, Loop, Scan and custom ops), in attribute order."""
    if node.op_type not in BODY_OPS and node.domain in STANDARD_DOMAINS:
        return ()
    found: list[ir.Graph] = []
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
            found.append(attr.as_graph())
        elif attr.type == ir.AttributeType.GRAPHS and not attr.is_ref():
            found.extend(attr.as_graphs())
    return found


def has_subgraph(node: ir.Node) -> bool:
    """Whether any attribute of the node holds a graph."""
    if node.op_type not in BODY_OPS and node.domain in STANDARD_DOMAINS:
        return False
    return any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())


def has_reference_attribute(node: ir.Node) -> bool:
    """Whether an attribute's value is only known where the enclosing function is called."""
    attributes = node.attributes.data  # the dict itself: asking through its wrapper is slow
    return bool(attributes) and any(a.is_ref() for a in attributes.values())


def graphs_within(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The graph, then every body nested in it, outer before inner."""
    stack = [graph]
    while stack:
        current = stack.pop()
        yield current
        # The quick look of `subgraphs` without a call for each node: every walk of a model begins here.
        nodes = list(current)
        holders = [n for n in nodes if n.op_type in BODY_OPS or n.domain not in STANDARD_DOMAINS]
        stack.extend(reversed([body for node in holders for body in subgraphs(node)]))


def walk_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Every graph of the model: the main graph and its bodies, then each function's graph and its bodies."""
    yield from graphs_within(model.graph)
    for function in model.functions.values():
        yield from graphs_within(function.graph)


def walk_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of every graph of the model."""
    for graph in walk_graphs(model):
        yield from graph


def is_random(node: ir.Node) -> bool:
    """Whether two runs of the node on the same inputs may differ (Dropout only in training mode)."""
    if is_op(node, *RANDOM_OPS):
        return True
    return is_op(node, "Dropout") and len(node.inputs) > 2 and node.inputs[2] is not None


def is_pure(node: ir.Node) -> bool:
    """Whether the node may be removed when unused and merged with an equal one.

    Unknown domains and nodes with bodies are not called pure: their effects are not ours to judge.
    """
    return is_standard(node) and not is_random(node) and not has_subgraph(node)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor a value always holds, or None.

    An initializer that is also listed as a graph input is only a default a caller may override: not constant.
    """
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        if value.is_initializer() and not value.is_graph_input():
            return value.const_value
        return None
    if producer.op_type != "Constant" or not is_standard(producer) or has_reference_attribute(producer):
        return None
    for name, attr in producer.attributes.items():
        if name == "value":
            return attr.as_tensor()
        if name in ("value_float", "value_floats"):
            return ir.tensor(np.asarray(attr.value, dtype=np.float32))
        if name in ("value_int", "value_ints"):
            return ir.tensor(np.asarray(attr.value, dtype=np.int64))
    return None


def is_constant(value: ir.Value | None) -> bool:
    """Whether `constant` would give an array, without reading the data."""
    return constant_tensor(value) is not None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant's array (memory-mapped when external; do not write into it), or None if not constant.

    String tensors are not given: no rewrite computes with them.
    """
    tensor = constant_tensor(value)
    if tensor is None:
        return None
    array = array_of(tensor)
    return None if array.dtype.kind == "O" else array  # cheaper than to ask the tensor for its type


def array_of(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """What `tensor.numpy()` gives, for the common types in a third of the time."""
    if type(tensor) is ir.TensorProtoTensor:
        message = tensor.raw
        dtype = _RAW_TYPES.get(message.data_type)
        if dtype is not None and message.HasField("raw_data") and message.data_location == _IN_MESSAGE:
            return np.frombuffer(message.raw_data, dtype).reshape(tuple(message.dims))
    return tensor.numpy()


def int_attr(node: ir.Node, name: str, default: int) -> int:
    """An INT attribute, or the default the operator's schema gives."""
    attr = node.attributes.data.get(name)
    return default if attr is None else attr.as_int()


def float_attr(node: ir.Node, name: str, default: float) -> float:
    """A FLOAT attribute, or the default the operator's schema gives."""
    attr = node.attributes.data.get(name)
    return default if attr is None else attr.as_float()


def string_attr(node: ir.Node, name: str, default: str) -> str:
    """A STRING attribute, or the default the operator's schema gives."""
    attr = node.attributes.data.get(name)
    return default if attr is None else attr.as_string()


def ints_attr(node: ir.Node, name: str) -> list[int] | None:
    """An INTS attribute as a list, or None when absent."""
    attr = node.attributes.data.get(name)
    return None if attr is None else [int(i) for i in attr.as_ints()]


def rank(value: ir.Value | None) -> int | None:
    """The value's rank when known."""
    if value is None or value.shape is None:
        return None
    return len(value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The value's shape when every dimension is a known integer."""
    if value is None or value.shape is None:
        return None
    dims = [d for d in value.shape if isinstance(d, int)]
    return tuple(dims) if len(dims) == len(value.shape) else None


def dims(value: ir.Value | None) -> tuple[int | str | None, ...] | None:
    """The value's dimensions as integers, symbol names, or None where nothing is known."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def may_enlarge(value: ir.Value, shape: Sequence[int]) -> bool:
    """Whether broadcasting with a constant of this shape could change the value's shape."""
    known = dims(value)
    if known is None or len(shape) > len(known):
        return len(shape) > 0
    return any(c not in (1, d) for c, d in zip(shape[::-1], known[::-1], strict=False))


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """The node's input at the index, None when absent or left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def ints_at(node: ir.Node, index: int) -> list[int] | None:
    """A constant integer operand of at most one axis as a list; None when it is left out or not constant."""
    data = constant(input_at(node, index))
    if data is None or data.ndim > 1 or data.dtype.kind != "i":
        return None
    return [int(i) for i in data.reshape(-1)]


def from_front(axes: Iterable[int] | None, rank: int) -> list[int] | None:
    """Axes, of which negative ones count from the back; None when unknown, out of range or given twice."""
    if axes is None:
        return None
    given = list(axes)
    found = [axis % rank for axis in given if -rank <= axis < rank]
    return found if len(set(found)) == len(given) else None


def is_read(value: ir.Value) -> bool:
    """Whether anything reads the value: a node, or who runs the graph."""
    return bool(value.uses()) or value.is_graph_output()


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, in its producer's graph; None when others do or it is an output."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    user, producer = uses[0][0], value.producer()
    return user if producer is not None and user.graph is producer.graph else None


def label(node: ir.Node) -> str:
    """How a node is named to people: its name, or its operator and first output."""
    if node.name:
        return node.name
    first = next((o.name for o in node.outputs if o.name), "")
    return f"{node.op_type}({first})"
