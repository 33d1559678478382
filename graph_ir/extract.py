# SPDX-License-Identifier: Apache-2.0
"""Cut some nodes out of a model as a model of their own, keep what some outputs need, or find weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from .ops import constant_tensor, has_subgraph


def extract_constant_nodes(
    nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], opsets: Mapping[str, int], ir_version: int
) -> onnx.ModelProto:
    """A proto without inputs that computes `outputs`, in this order, from constants alone.

    Values get names of their own there: bodies side by side may use one name twice.

    Args:
        nodes: in topological order, from any graphs of one model; every input is a constant or made by one of
        them.
        outputs: values the nodes make.
        opsets: opset imports of the model or function the nodes come from.
        ir_version: of the model.
    """
    proto = onnx.ModelProto(ir_version=ir_version)
    for domain, version in sorted(opsets.items()):
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "constants"
    names: dict[ir.Value, str] = {}
    made = {output for node in nodes for output in node.outputs}
    for node in nodes:
        written = ir.serde.serialize_node(node)
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            if value not in names:
                if value in made:
                    raise ValueError(f"{value.name!r} is read before it is made")
                names[value] = f"v{len(names)}"
                tensor = constant_tensor(value)
                if tensor is None:
                    raise ValueError(f"{value.name!r} is not constant")
                stored = proto.graph.initializer.add()
                stored.CopyFrom(_in_memory(tensor))
                stored.name = names[value]
            written.input[index] = names[value]
        for index, value in enumerate(node.outputs):
            if value.name:
                names[value] = written.output[index] = f"v{len(names)}"
        proto.graph.node.append(written)
    proto.graph.output.extend(onnx.ValueInfoProto(name=names[value]) for value in outputs)
    return proto


def _in_memory(tensor: ir.TensorProtocol) -> onnx.TensorProto:
    written = ir.serde.serialize_tensor(tensor)
    if written.external_data:
        del written.external_data[:]
        written.data_location = onnx.TensorProto.DEFAULT
        written.raw_data = tensor.tobytes()
    return written


def declare_inputs(graph: onnx.GraphProto, given: Mapping[str, Any]) -> None:
    """Make inputs of values that nodes make, of the types of these arrays; `keep_needed` drops the nodes."""
    for name, array in given.items():
        kind = graph.input.add(name=name).type.tensor_type
        kind.elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


def keep_needed(graph: onnx.GraphProto) -> set[str]:
    """Drop the nodes and initializers that the graph's outputs do not need; inputs stay, their makers go.

    onnxruntime runs every node it is given when its optimizer is off.

    Returns:
        The names of the outputs, and of what the nodes that stay read.
    """
    needed = {output.name for output in graph.output}
    given = {value.name for value in graph.input}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(name in needed and name not in given for name in node.output):
            kept.append(node)
            needed.update(_names_read(node))
    if len(kept) == len(graph.node):
        return needed
    fresh = onnx.GraphProto()
    fresh.node.extend(reversed(kept))
    fresh.initializer.extend(tensor for tensor in graph.initializer if tensor.name in needed)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(fresh.node)
    graph.initializer.extend(fresh.initializer)
    return needed


def _names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Every name the node or its bodies mention as an input, or a body gives back."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (output.name for output in body.output)
            for inner in body.node:
                yield from _names_read(inner)


def written_weights(proto: onnx.ModelProto, model: ir.Model) -> Iterator[tuple[onnx.TensorProto, ir.Value]]:
    """Each initializer as it was just exported, with its value: the main graph's first, then those of bodies.

    Args:
        proto: `to_proto(model)`, unchanged.
        model: what it was made of.
    """
    places: list[tuple[Any, Any]] = [(proto.graph, model.graph)]
    places += zip(proto.functions, (f.graph for f in model.functions.values()), strict=True)
    for written, graph in places:  # grows
        if isinstance(written, onnx.GraphProto):
            for tensor in written.initializer:
                yield tensor, graph.initializers[tensor.name]
        for stored, node in zip(written.node, graph, strict=True):
            for attribute in stored.attribute if has_subgraph(node) else ():
                held = node.attributes[attribute.name]
                if attribute.HasField("g"):
                    places.append((attribute.g, held.as_graph()))
                elif attribute.graphs:
                    places += zip(attribute.graphs, held.as_graphs(), strict=True)
