# SPDX-License-Identifier: Apache-2.0
"""Writes a model's message with its weights one after the other, never two at once in memory.

A message is its fields in the order of their numbers, each as tag, length and content, so the bytes are those
that protobuf itself writes (https://protobuf.dev/programming-guides/encoding, "Message Structure").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import onnx
import onnx_ir as ir

_Proto = TypeVar("_Proto", onnx.ModelProto, onnx.GraphProto)
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # numbers of fields: of the model, the graph, a tensor


def write_streamed(
    proto: onnx.ModelProto, weights: Sequence[tuple[str, ir.TensorProtocol]], file: BinaryIO
) -> int:
    """Write a message as if the main graph held the weights, too.

    Args:
        proto: the message without the main graph's initializers.
        weights: (name, tensor) in order.
        file: to write to.

    Returns:
        The bytes written.
    """
    before, after = _parted(proto.graph, _INITIALIZER)
    parts = [_part(name, tensor) for name, tensor in weights]
    inside = len(before) + len(after) + sum(len(_head(_INITIALIZER, size)) + size for size, _ in parts)
    first, last = _parted(proto, _GRAPH)
    start = first + _head(_GRAPH, inside)
    file.write(start)
    file.write(before)
    for size, content in parts:
        file.write(_head(_INITIALIZER, size))
        file.writelines(content())
    file.write(after)
    file.write(last)
    return len(start) + inside + len(last)


def _part(name: str, tensor: ir.TensorProtocol) -> tuple[int, Callable[[], list[bytes]]]:
    """The size of a tensor's message, and what makes it."""
    if _is_raw(tensor):
        form = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
        start = form.SerializeToString(deterministic=True) + _head(_RAW_DATA, tensor.nbytes)
        return len(start) + tensor.nbytes, lambda: [start, tensor.tobytes()]
    proto = onnx.TensorProto()
    ir.serde.serialize_tensor_into(proto, tensor)
    return proto.ByteSize(), lambda: [proto.SerializeToString(deterministic=True)]


def _is_raw(tensor: ir.TensorProtocol) -> bool:
    """Whether nothing but name, type, sizes and raw data belong to a tensor's message."""
    if tensor.metadata_props or tensor.doc_string:
        return False
    if not isinstance(tensor, ir.TensorProtoTensor):
        return type(tensor) is ir.Tensor
    raw = tensor.raw
    more = raw.HasField("data_location") or raw.HasField("segment") or raw.metadata_props
    return raw.HasField("raw_data") and not more


def _parted(proto: _Proto, number: int) -> tuple[bytes, bytes]:
    """The bytes of a message's fields below and above one, which is left out."""
    below, above = type(proto)(), type(proto)()
    for half in (below, above):
        half.CopyFrom(proto)
    for field in proto.DESCRIPTOR.fields:
        if field.number >= number:
            below.ClearField(field.name)
        if field.number <= number:
            above.ClearField(field.name)
    return _partial(below), _partial(above)


def _partial(proto: onnx.ModelProto | onnx.GraphProto) -> bytes:
    return proto.SerializePartialToString(deterministic=True)


def _head(number: int, size: int) -> bytes:
    """Tag and length of a field of bytes."""
    out = bytearray([number << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)
