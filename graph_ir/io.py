# SPDX-License-Identifier: Apache-2.0
"""Load and save: the one border between files and the IR.

Weights in external files stay memory-mapped; a model over 2 GB is never one protobuf message. The garbage
collector is paused while many small objects are made (it takes half of the time otherwise).
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from .errors import ModelError, one_line
from .guard import after_export, after_import, before_import, check_external
from .ops import ORIGINS, walk_graphs, walk_nodes

INFERRED = "tersor.inferred"
MAX_PROTO_BYTES = 2**31 - 2**24  # protobuf's limit, less room for the graph itself
METADATA_IR_VERSION = 10  # nodes have metadata_props from here on

_TEXT_FORMATS = {
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
    ".textproto": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".json": "json",
    ".onnxjson": "json",
}


@contextmanager
def gc_paused() -> Generator[None]:
    """Pause Python's cyclic garbage collector inside the block."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """Give a path beside `path` to write to, renamed onto it at the end; on any error nothing is left.

    Raises:
        ModelError: when the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise ModelError(f"cannot write {str(target)!r}: {error.strerror}") from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        beside.replace(target)
    except OSError as error:
        raise ModelError(f"cannot write {str(target)!r}: {error.strerror or one_line(error)}") from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read a model file: protobuf (.onnx and others), ONNX text (.onnxtxt), protobuf text or JSON.

    Raises:
        ModelError: when the file is missing, empty, not a model, truncated, cyclic, or names external data
            that is missing, too short or outside the model's folder.
    """
    file = Path(path)
    if file.is_dir():
        raise ModelError(f"{str(file)!r} is a folder; give the .onnx file itself")
    if not file.exists():
        raise ModelError(f"no such file: {str(file)!r}")
    try:
        size = file.stat().st_size
        if size == 0:
            raise ModelError(f"{str(file)!r} is empty")
        proto = onnx.load_model(
            str(file), format=_TEXT_FORMATS.get(file.suffix, "protobuf"), load_external_data=False
        )
    except OSError as error:
        raise ModelError(f"cannot read {str(file)!r}: {error.strerror}") from error
    except (DecodeError, ValueError, onnx.parser.ParseError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{str(file)!r} is not an ONNX model, or is truncated: {one_line(error, 160)}"
        ) from error
    except RuntimeError as error:
        raise ModelError(f"{str(file)!r} cannot be read as ONNX text: {one_line(error, 160)}") from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output or proto.graph.input):
        raise ModelError(f"{str(file)!r} holds no ONNX graph; is it another kind of file?")
    return from_proto(proto, str(file.parent or "."), name=str(file))


def from_proto(proto: onnx.ModelProto, base_dir: str | None = None, *, name: str = "model") -> ir.Model:
    """Import a ModelProto (which the IR goes on referring to; do not edit it afterwards).

    Args:
        proto: the model.
        base_dir: the folder external data lies in; None when there is none.
        name: how errors call the model.

    Raises:
        ModelError: when the graph is not valid, or holds what the IR cannot keep.
    """
    found = before_import(proto)
    try:
        with gc_paused():
            model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        cause = error.__cause__ or error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(f"{name!r} is not a valid ONNX graph: {one_line(cause, 240)}") from error
    after_import(model, proto, found)
    if base_dir is not None:
        for graph in walk_graphs(model):
            ir.external_data.set_base_dir(graph, base_dir)
    check_external(model, base_dir or ".")
    for graph in walk_graphs(model):
        _check_sorted(graph, name, found)
    return model


def _check_sorted(graph: ir.Graph, name: str, found: list[str]) -> None:
    """Sort a graph whose nodes are out of order; refuse a cyclic one."""
    done: set[ir.Node] = set()
    for node in graph:
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer.graph is graph and producer not in done:
                try:
                    graph.sort()
                except ValueError as error:
                    raise ModelError(f"{name!r}: the graph has a cycle through node {node.name!r}") from error
                found.append(f"graph {graph.name!r}: nodes were out of order and were sorted")
                return
        done.add(node)


def to_proto(model: ir.Model, *, provenance: bool = False) -> onnx.ModelProto:
    """Export to a ModelProto; external tensors stay references.

    Args:
        model: left unchanged.
        provenance: write each node's origins to its metadata_props (IR version 10 and later only).
    """
    hidden: list[tuple[ir.Value, ir.TypeProtocol | None, ir.Shape | None]] = []
    with gc_paused():
        try:
            # Types that were inferred, or only repeat an initializer's own, do not belong in the file.
            for value in _redundantly_typed(model):
                hidden.append((value, value.type, value.shape))
                value.type, value.shape = None, None
            stamped = _stamp_origins(model) if provenance and model.ir_version >= METADATA_IR_VERSION else []
            proto = ir.serde.serialize_model(model)
            for node in stamped:
                del node.metadata_props[ORIGINS]
        finally:
            for value, value_type, shape in hidden:
                value.type, value.shape = value_type, shape
    after_export(model, proto)
    return proto


def _redundantly_typed(model: ir.Model) -> Iterator[ir.Value]:
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            if not (value.is_graph_input() or value.is_graph_output() or value.metadata_props):
                yield value
        for node in graph:
            for output in node.outputs:
                if INFERRED in output.meta and not output.is_graph_output():
                    yield output


def _stamp_origins(model: ir.Model) -> list[ir.Node]:
    stamped: list[ir.Node] = []
    for node in walk_nodes(model):
        recorded = cast("tuple[str, ...] | None", node.meta.get(ORIGINS))
        if recorded is not None and ORIGINS not in node.metadata_props:
            node.metadata_props[ORIGINS] = "\n".join(recorded)
            stamped.append(node)
    return stamped


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, wherever they are stored."""
    return sum(
        v.const_value.nbytes
        for graph in walk_graphs(model)
        for v in graph.initializers.values()
        if v.const_value is not None
    )


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    provenance: bool = False,
) -> None:
    """Write a model: protobuf, or text when the suffix says so. Written beside and renamed; never half.

    Args:
        model: left unchanged.
        path: where to; weights go to `<path>.data` beside it when external.
        external_data: store weights outside; None does so when they were external or one protobuf cannot hold
            them.
        provenance: see `to_proto`.

    Raises:
        ModelError: when the file cannot be written.
    """
    target = Path(path)
    kind = _TEXT_FORMATS.get(target.suffix, "protobuf")
    if external_data is None:
        external_data = kind == "protobuf" and (weight_bytes(model) > MAX_PROTO_BYTES or _has_external(model))
    if external_data:
        _save_external(model, target, provenance)
        return
    with atomic_write(target) as beside:
        export = _inline if _has_external(model) else to_proto
        proto = export(model, provenance=provenance)
        if kind == "protobuf":
            # onnx.save_model would parse options we do not need; one write is all there is to do.
            beside.write_bytes(proto.SerializeToString(deterministic=True))
        else:
            onnx.save_model(proto, str(beside), format=kind)


def _has_external(model: ir.Model) -> bool:
    return any(
        isinstance(v.const_value, ir.ExternalTensor)
        for graph in walk_graphs(model)
        for v in graph.initializers.values()
    )


def _inline(model: ir.Model, *, provenance: bool) -> onnx.ModelProto:
    """Export with external tensors read in (text formats and small models)."""
    proto = to_proto(model, provenance=provenance)
    by_name = {
        name: v.const_value
        for graph in walk_graphs(model)
        for name, v in graph.initializers.items()
        if isinstance(v.const_value, ir.ExternalTensor)
    }
    for tensor in proto.graph.initializer:
        source = by_name.get(tensor.name)
        if source is not None:
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = source.tobytes()
    return proto


def _save_external(model: ir.Model, target: Path, provenance: bool) -> None:
    data_name = target.name + ".data"
    originals = [
        (value, value.const_value)
        for value in model.graph.initializers.values()
        if value.const_value is not None
    ]
    try:
        with atomic_write(target.with_name(data_name)) as data_beside:
            tensors = [t for _, t in originals if t.nbytes >= 1024 and t.dtype != ir.DataType.STRING]
            moved = ir.external_data.convert_tensors_to_external(
                tensors, str(target.parent), data_beside.name
            )
            by_id = dict(zip(map(id, tensors), moved, strict=True))
            for value, tensor in originals:
                if id(tensor) in by_id:
                    value.const_value = by_id[id(tensor)]
            proto = to_proto(model, provenance=provenance)
            for tensor_proto in proto.graph.initializer:
                for entry in tensor_proto.external_data:
                    if entry.key == "location":
                        entry.value = data_name
            for value, tensor in originals:
                value.const_value = tensor
            with atomic_write(target) as beside:
                beside.write_bytes(proto.SerializeToString(deterministic=True))
    finally:
        for value, tensor in originals:
            value.const_value = tensor
