# SPDX-License-Identifier: Apache-2.0
"""Single attributes and types as protobuf messages, for callers of onnx's own per-node functions."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def attribute_proto(attr: ir.Attr) -> onnx.AttributeProto:
    """The attribute as a message; graphs and tensors are written out in full."""
    return ir.serde.serialize_attribute(attr)


def type_proto(value: ir.Value) -> onnx.TypeProto | None:
    """The value's recorded type and shape as a message, or None when no type is recorded."""
    if value.type is None:
        return None
    proto = onnx.TypeProto()
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def tensor_form(tensor: ir.TensorProtocol) -> tuple[int, tuple[int, ...]]:
    """Element type number and shape of a tensor.

    Read from the message where there is one: the IR's tensor makes both anew each time it is asked.
    """
    if isinstance(tensor, ir.TensorProtoTensor):
        return tensor.raw.data_type, tuple(tensor.raw.dims)
    return int(tensor.dtype), tuple(d for d in tensor.shape if isinstance(d, int))


def set_type(value: ir.Value, proto: onnx.TypeProto) -> None:
    """Record a type and shape given as a message on a value."""
    value.type = ir.serde.deserialize_type_proto_for_type(proto)
    value.shape = ir.serde.deserialize_type_proto_for_shape(proto)
