# SPDX-License-Identifier: Apache-2.0
"""From the IR to ModelProto and to files; external weights are copied from file to file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from .errors import ModelError, one_line
from .files import atomic_files, atomic_write, gc_paused
from .fingerprint import fingerprint
from .given import given_model, given_path
from .guard import after_export, quiet
from .ops import INFERRED, walk_graphs
from .provenance import stamp, unstamp
from .streaming import write_streamed
from .targets import (
    data_file,
    external,
    format_of,
    goes_outside,
    kept_outside,
    refuse_foreign_weights,
    refuse_name,
    refuse_own_weights,
    stored_bytes,
    weights_of,
)
from .writing import Held, model_proto, plain, redundantly_typed

MAX_MESSAGE_BYTES = 2**31 - 1
STREAMED_FROM = 2**25  # bytes of weights; smaller files are written sooner in one piece

_OVER = "{!r} would be over protobuf's 2 GB; save it with external data"


def to_proto(model: ir.Model, *, provenance: bool = False, held: Held | None = None) -> onnx.ModelProto:
    """Export to a ModelProto; external tensors stay references.

    Args:
        model: left unchanged.
        provenance: write each node's origins to the metadata (see `provenance`).
        held: see `writing.model_proto`; for plain models only.

    Raises:
        ModelError: when the model holds what protobuf cannot (text that is not UTF-8, say).
    """
    stamped: list[ir.Node] = []
    with quiet(), gc_paused():
        try:
            if provenance:
                stamped = stamp(model)
            proto = model_proto(model, held) if plain(model) else by_onnx_ir(model)
        except (ir.serde.SerdeError, ValueError, TypeError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ModelError(f"the model cannot be written: {one_line(cause, 240)}") from error
        finally:
            if provenance:
                unstamp(model, stamped)
    after_export(model, proto)
    return proto


def by_onnx_ir(model: ir.Model) -> onnx.ModelProto:
    """Any model's message; types that do not belong in the file are hidden meanwhile."""
    hidden: list[tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]] = []
    try:
        for value in _redundantly_typed(model):
            hidden.append((value, value.type, value.shape))
            value.type, value.shape = None, None
        return ir.serde.serialize_model(model)
    finally:
        for value, value_type, shape in hidden:
            value.type, value.shape = value_type, shape


def _redundantly_typed(model: ir.Model) -> Iterator[ir.Value]:
    for graph in walk_graphs(model):
        yield from filter(redundantly_typed, graph.initializers.data.values())
        for node in graph:
            for output in node.outputs:
                if INFERRED in output.meta and not output.is_graph_output():
                    yield output


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    provenance: bool = False,
) -> None:
    """Write a model: protobuf, or text when the suffix says so. Written beside and renamed; never half.

    A model of that name is replaced, also the one that `model` was loaded from; any other file is not.

    Args:
        model: left unchanged.
        path: where to: .onnx, or for text .onnxtxt, .textproto or .json; weights go to `<path>.data` beside
            it when external.
        external_data: store large weights outside; None does so when some were external or one protobuf
            cannot hold them. Text formats hold all weights themselves.
        provenance: see `to_proto`.

    Raises:
        ModelError: when the file cannot be written, or cannot hold the model.
        UsageError: one of the two is something else, the name is none for a model, or a file that is there
            already is no model, or holds weights of this one or of another.
    """
    given_model("model", model)
    target = given_path("path", path)
    refuse_name(target, external_data)
    refuse_own_weights(target, model, beside=False)
    if goes_outside(model, target, external_data):
        refuse_foreign_weights(target, model, external_data)
        _save_external(model, target, provenance)
        return
    kind = format_of(target)
    weights = weights_of(model)
    outside = external(weights)
    with atomic_write(target) as beside:
        if kind == "protobuf" and plain(model) and stored_bytes(weights) >= STREAMED_FROM:
            with _stored_as(_in_memory(outside)):
                _stream(model, beside, provenance, str(target))
            return
        with _stored_as(_in_memory(outside)):
            proto = to_proto(model, provenance=provenance)
        if kind == "onnxtxt":
            beside.write_text(_onnx_text(proto, str(target)), encoding="utf-8")
        elif kind == "protobuf":
            beside.write_bytes(_serialized(proto, str(target)))
        else:
            onnx.save_model(proto, str(beside), format=kind)


def _stream(model: ir.Model, path: Path, provenance: bool, name: str) -> None:
    """Write a plain model without a second copy of its weights in memory."""
    held: Held = []
    proto = to_proto(model, provenance=provenance, held=held)
    with path.open("wb") as file:
        if write_streamed(proto, held, file) > MAX_MESSAGE_BYTES:
            raise ModelError(_OVER.format(name))


def _in_memory(weights: Mapping[ir.Value, ir.TensorProtocol]) -> dict[ir.Value, ir.TensorProtocol]:
    """External weights as tensors that the model file itself holds."""
    return {
        value: ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
        for value, tensor in external(weights).items()
    }


def _serialized(proto: onnx.ModelProto, name: str) -> bytes:
    try:
        return proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(_OVER.format(name)) from error


def _onnx_text(proto: onnx.ModelProto, name: str) -> str:
    """ONNX's own text, if it computes what the model does (there is no place for metadata in it)."""
    try:
        text = onnx.printer.to_text(proto)
        again = ir.serde.deserialize_model(onnx.parser.parse_model(text))
        same = fingerprint(again) == fingerprint(ir.serde.deserialize_model(proto))
    except (onnx.parser.ParseError, ir.serde.SerdeError, ValueError, IndexError, RuntimeError) as error:
        raise ModelError(f"{name!r}: ONNX text cannot hold this model; save it as .textproto") from error
    if not same:
        raise ModelError(f"{name!r}: ONNX text would change this model; save it as .textproto")
    return text


@contextmanager
def _stored_as(tensors: Mapping[ir.Value, ir.TensorProtocol]) -> Generator[None]:
    """Let initializers hold other tensors inside the block."""
    before = [(value, value.const_value) for value in tensors]
    try:
        for value, tensor in tensors.items():
            value.const_value = tensor
        yield
    finally:
        for value, tensor in before:
            value.const_value = tensor


def _save_external(model: ir.Model, target: Path, provenance: bool) -> None:
    data = data_file(target)
    weights = weights_of(model)
    large = {value: tensor for value, tensor in weights.items() if kept_outside(tensor)}
    with atomic_files([data, target]) as (data_beside, beside):
        once = {id(tensor): tensor for tensor in large.values()}
        for tensor in once.values():
            if isinstance(tensor, ir.ExternalTensor) and data.exists() and data.samefile(tensor.path):
                tensor.numpy()  # mapped now, it goes on seeing the old file once the name is the new one's
        moved = ir.external_data.convert_tensors_to_external(
            list(once.values()), str(target.parent), data_beside.name
        )
        by_id = dict(zip(once, moved, strict=True))
        # Small ones would go on naming the file they came from.
        stored = _in_memory({v: t for v, t in weights.items() if v not in large})
        stored |= {v: _at(by_id[id(t)], v, t, data) for v, t in large.items()}
        with _stored_as(stored):
            proto = to_proto(model, provenance=provenance)
        beside.write_bytes(_serialized(proto, str(target)))


def _at(
    moved: ir.ExternalTensor, value: ir.Value, source: ir.TensorProtocol, data: Path
) -> ir.ExternalTensor:
    """A reference to the place in the data file under its final name."""
    return ir.ExternalTensor(
        data.name,
        moved.offset,
        moved.length,
        moved.dtype,
        shape=moved.shape,
        name=value.name or "",
        doc_string=source.doc_string,
        metadata_props=dict(source.metadata_props),
        base_dir=str(data.parent),
    )
