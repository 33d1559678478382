# SPDX-License-Identifier: Apache-2.0
"""Reads and writes a model's message with its weights one after the other, never two at once in memory.

A message is its fields, each as tag, length and content, in the order of their numbers where protobuf itself
writes it; merging its parts one by one makes the same message as reading it whole
(https://protobuf.dev/programming-guides/encoding, "Message Structure" and "Last One Wins").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import onnx
import onnx_ir as ir

_Proto = TypeVar("_Proto", onnx.ModelProto, onnx.GraphProto)
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # numbers of fields: of the model, the graph, a tensor


def read_streamed(file: BinaryIO, size: int) -> onnx.ModelProto:
    """Read a model's message of so many bytes; protobuf alone would hold them twice meanwhile.

    Raises:
        ValueError: a field is of a form that models have none of, or goes on past the end.
        DecodeError: a part is no message.
    """
    proto = onnx.ModelProto()

    def weight(start: int, end: int) -> None:
        proto.graph.initializer.add().MergeFromString(_bytes(file, start, end))

    def graph(start: int, end: int) -> None:
        _merge(file, start, end, proto.graph, _INITIALIZER, weight)

    _merge(file, 0, size, proto, _GRAPH, graph)
    return proto


def _merge(
    file: BinaryIO,
    start: int,
    end: int,
    proto: onnx.ModelProto | onnx.GraphProto,
    apart: int,
    take: Callable[[int, int], None],
) -> None:
    """Merge the fields between two places into a message; the contents of those of one number go apart."""
    begun = place = start
    while place < end:
        number, content, last = _field(file, place)
        if last > end:
            raise ValueError
        if number == apart:
            proto.MergeFromString(_bytes(file, begun, place))
            take(content, last)
            begun = last
        place = last
    proto.MergeFromString(_bytes(file, begun, end))


def _field(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """A field's number, and where its content begins and ends."""
    file.seek(place)
    tag, more = _varint(file)
    size, most = _varint(file)
    content = place + more + most
    if tag & 7 == 0:  # a number itself
        return tag >> 3, content, content
    if tag & 7 != 2:
        raise ValueError
    return tag >> 3, content, content + size


def _varint(file: BinaryIO) -> tuple[int, int]:
    """A number of seven bits in each byte, the lowest first, and how many bytes it takes."""
    value = count = 0
    while count < 10:
        byte = file.read(1)
        if not byte:
            raise ValueError
        value |= (byte[0] & 127) << 7 * count
        count += 1
        if byte[0] < 128:
            return value, count
    raise ValueError


def _bytes(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


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
    proto.name = name  # not the tensor's own: weights may share it
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
