# SPDX-License-Identifier: Apache-2.0
"""From the IR to messages, in one walk.

onnx-ir's own writer is right but asks for each thing in many steps, and has to be shown a model without the
types that do not belong in the file. This writes plain graphs with their bodies, leaves those types out on
the way, and hands whatever is not plain (types, devices, rare attributes) to onnx-ir, part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import onnx
import onnx_ir as ir

from .ops import INFERRED

_ANNOTATION = "quant_parameter_tensor_names"  # where onnx-ir keeps a value's quantization annotation
_KIND = ir.AttributeType
Held = list[tuple[str, ir.TensorProtocol]]
# Tensors of these types onnx-ir looks into before it copies them.
_CHECKED_TYPES = frozenset(int(t) for t in ir.DataType if t.name.startswith("FLOAT6"))


def plain(model: ir.Model) -> bool:
    """Whether `model_proto` can write the model: it has no functions, and no devices are laid out."""
    return not model.functions and not model.device_configurations


def model_proto(model: ir.Model, held: Held | None = None) -> onnx.ModelProto:
    """The message of a plain model, without types that were inferred or only repeat a weight's own.

    Args:
        model: a plain one.
        held: takes the main graph's weights in order, which the message is without then.

    Raises:
        SerdeError, ValueError, TypeError: the model holds what protobuf cannot.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        given = getattr(model, field)
        if given:
            setattr(proto, field, given)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    _entries_into(proto.metadata_props, model.metadata_props)
    _graph_into(proto.graph, model.graph, model.ir_version, held)
    return proto


def redundantly_typed(value: ir.Value) -> bool:
    """Whether a weight's type only repeats its tensor's."""
    return not (value.is_graph_input() or value.is_graph_output() or value.metadata_props)


def _graph_into(
    proto: onnx.GraphProto, graph: ir.Graph, ir_version: int | None, held: Held | None = None
) -> None:
    if graph.name:
        proto.name = graph.name
    if graph.doc_string:
        proto.doc_string = graph.doc_string
    weights = graph.initializers.data
    for value in graph.inputs:
        ir.serde.serialize_value_into(proto.input.add(), value)
        if value.name not in weights:
            _annotate(proto, value)
    for value in weights.values():
        _weight_into(proto, value, held)
    add = proto.node.add
    for node in graph:
        _node_into(add, node, ir_version)
        for output in node.outputs:
            if not output.is_graph_output():
                meta = cast("dict[str, Any]", output.meta.data)
                if _ANNOTATION in meta:
                    _annotate(proto, output)
                _info_into(proto, output, INFERRED not in meta)
    for value in graph.outputs:
        ir.serde.serialize_value_into(proto.output.add(), value)
        _annotate(proto, value)
    _entries_into(proto.metadata_props, graph.metadata_props)


def _info_into(proto: onnx.GraphProto, value: ir.Value, typed: bool) -> None:
    """Write what a file says of a value besides its producer; without its type if that is not to be told."""
    if typed and (value.type is not None or value.shape is not None):
        if value.name:
            ir.serde.serialize_value_into(proto.value_info.add(), value)
    elif value.name and (value.metadata_props or value.doc_string):
        info = proto.value_info.add(name=value.name)
        if value.doc_string:
            info.doc_string = value.doc_string
        _entries_into(info.metadata_props, value.metadata_props)


def _weight_into(proto: onnx.GraphProto, value: ir.Value, held: Held | None) -> None:
    _annotate(proto, value)
    if not value.is_graph_input():
        _info_into(proto, value, not redundantly_typed(value))
    tensor = value.const_value
    if tensor is None:
        return
    name = value.name
    if held is not None:
        held.append((name or "", tensor))
        return
    tensor_into(proto, name, tensor)


def tensor_into(proto: onnx.GraphProto, name: str | None, tensor: ir.TensorProtocol) -> None:
    """Write a weight under a name, for weights may share a tensor; an external one stays a reference."""
    kind = type(tensor)
    if tensor.name != name:
        tensor.name = name
    if kind is ir.Tensor and not tensor.metadata_props and not tensor.doc_string:
        sizes = tensor.shape.numpy()
        data = tensor.tobytes()
        proto.initializer.add(name=name, data_type=int(tensor.dtype), dims=sizes, raw_data=data)
        return
    if isinstance(tensor, ir.TensorProtoTensor):
        raw = tensor.raw
        if raw.data_type not in _CHECKED_TYPES and not tensor.metadata_props:
            proto.initializer.append(raw)
            return
    ir.serde.serialize_tensor_into(proto.initializer.add(), tensor)


def _node_into(add: Callable[..., onnx.NodeProto], node: ir.Node, ir_version: int | None) -> None:
    if node.device_configurations:
        ir.serde.serialize_node_into(add(), node, model_ir_version=ir_version)
        return
    outputs = [output.name for output in node.outputs]
    while outputs and not outputs[-1]:
        del outputs[-1]
    inputs = ["" if value is None else value.name for value in node.inputs]
    made = add(op_type=node.op_type, input=inputs, output=outputs)
    if node.name:
        made.name = node.name
    if node.domain:
        made.domain = node.domain
    if node.overload:
        made.overload = node.overload
    if node.doc_string:
        made.doc_string = node.doc_string
    _entries_into(made.metadata_props, node.metadata_props)
    for attr in node.attributes.data.values():
        _attribute_into(made.attribute.add, attr)


def _attribute_into(add: Callable[..., onnx.AttributeProto], attr: ir.Attr) -> None:
    kind, value = attr.type, attr.value
    if attr.is_ref():
        ir.serde.serialize_reference_attribute_into(add(), attr)
    elif attr.doc_string:
        ir.serde.serialize_attribute_into(add(), attr)
    elif kind is _KIND.INT:
        add(name=attr.name, type=onnx.AttributeProto.INT, i=value)
    elif kind is _KIND.INTS:
        add(name=attr.name, type=onnx.AttributeProto.INTS, ints=value)
    elif kind is _KIND.FLOAT:
        add(name=attr.name, type=onnx.AttributeProto.FLOAT, f=value)
    elif kind is _KIND.GRAPH:
        _graph_into(add(name=attr.name, type=onnx.AttributeProto.GRAPH).g, attr.as_graph(), None)
    elif kind is _KIND.GRAPHS:
        made = add(name=attr.name, type=onnx.AttributeProto.GRAPHS)
        for graph in attr.as_graphs():
            _graph_into(made.graphs.add(), graph, None)
    else:
        ir.serde.serialize_attribute_into(add(), attr)


def _annotate(proto: onnx.GraphProto, value: ir.Value) -> None:
    names = cast("Mapping[str, str] | None", value.meta.data.get(_ANNOTATION))
    if names:
        made = proto.quantization_annotation.add(tensor_name=value.name)
        _entries_into(made.quant_parameter_tensor_names, names)


def _entries_into(entries: Any, given: Mapping[str, str]) -> None:
    for key in sorted(given):
        entries.add(key=key, value=given[key])
