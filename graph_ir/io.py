# SPDX-License-Identifier: Apache-2.0
"""Load: the border between files and the IR, where a model is checked once and for all.

External weights stay memory-mapped. What is loaded holds by the verifier, so that an error after a pass names
a fault of the pass. The garbage collector is paused while many objects are made: it takes half of the time.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf import json_format, text_format  # loaded at their first use, see `basis`
from google.protobuf.message import DecodeError

from .data_check import check_external, check_tensors
from .errors import ModelError, UnsupportedModelError, VerifyError, one_line
from .export import MAX_MESSAGE_BYTES, save, to_proto
from .files import atomic_write, gc_paused
from .given import given_path
from .guard import after_import, before_import, has_external, import_domains, quiet, rename_shadows
from .ops import INFERRED, has_subgraph, label, subgraphs, walk_graphs
from .protos import Parts, parts_of
from .provenance import restore
from .streaming import read_streamed
from .targets import format_of
from .verify import verify

__all__ = [
    "INFERRED",
    "atomic_write",
    "from_proto",
    "gc_paused",
    "load",
    "save",
    "to_proto",
]

LARGE = 2**25  # bytes of a file that is worth a collection beforehand

_IMPORT_ERRORS = (
    ir.serde.SerdeError,
    ArithmeticError,
    AttributeError,  # text that is not UTF-8 arrives as bytes
    LookupError,
    MemoryError,
    NotImplementedError,
    TypeError,
    ValueError,
)

_OTHERS = (
    (
        0,
        b"PK\x03\x04",
        "a zip archive, such as .npz (give it to --data) or PyTorch's (export it to ONNX)",
    ),
    (0, b"\x93NUMPY", "a NumPy array; data goes to --data"),
    (0, b"\x89HDF", "an HDF5 file; export the model in it to ONNX"),
    (4, b"TFL3", "a TensorFlow Lite model; export the model it was made from to ONNX"),
)  # by place and first bytes there


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read a model file: protobuf (.onnx and others), ONNX text (.onnxtxt), protobuf text or JSON.

    Raises:
        ModelError: when the file is missing, empty, not a model, truncated, cyclic, or names external data
            that is missing, too short or outside the model's folder.
        UsageError: it is no path.
    """
    file = given_path("path", path)
    if file.is_dir():
        raise ModelError(f"{str(file)!r} is a folder; give the .onnx file itself")
    if not file.exists():
        raise ModelError(f"no such file: {str(file)!r}")
    if not file.is_file():
        raise ModelError(f"{str(file)!r} is no ordinary file; store the model in one")
    try:
        size = file.stat().st_size
        if size == 0:
            raise ModelError(f"{str(file)!r} is empty")
        if size >= LARGE:
            gc.collect()  # models are cyclic: those no longer used would hold their weights for long
        kind = format_of(file) or "protobuf"
        if kind == "onnxtxt":  # onnx.load_model warns that this format is young
            proto = onnx.parser.parse_model(file.read_text(encoding="utf-8"))
        else:
            apart = kind == "protobuf" and LARGE <= size <= MAX_MESSAGE_BYTES
            proto = _in_parts(file, size) if apart else None
            if proto is None:
                proto = onnx.load_model(str(file), format=kind, load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {str(file)!r}: {error.strerror}") from error
    except (
        DecodeError,
        json_format.ParseError,
        text_format.ParseError,
        onnx.parser.ParseError,
        ValueError,
        IndexError,
    ) as error:
        other = None if isinstance(error, onnx.parser.ParseError) else _other_format(file)
        why = f"is {other}" if other else f"is not an ONNX model, or is truncated: {one_line(error, 160)}"
        raise ModelError(f"{str(file)!r} {why}") from error
    except RuntimeError as error:
        raise ModelError(f"{str(file)!r} cannot be read as ONNX text: {one_line(error, 160)}") from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output or proto.graph.input):
        raise ModelError(f"{str(file)!r} holds no ONNX graph; is it another kind of file?")
    return from_proto(proto, str(file.parent or "."), name=str(file))


def _other_format(file: Path) -> str | None:
    """What a file that is no model seems to be by its first bytes, and the mend; None if unknown."""
    with file.open("rb") as opened:
        head = opened.read(256)
    for place, mark, what in _OTHERS:
        if head[place : place + len(mark)] == mark:
            return what
    text = head.decode("utf-8", errors="ignore")
    is_text = len(head) - len(text.encode()) < 4 and all(c.isprintable() or c.isspace() for c in text)
    return "text, not an ONNX model; ONNX's own text form is told by the ending .onnxtxt" if is_text else None


def _in_parts(file: Path, size: int) -> onnx.ModelProto | None:
    """A large model without a second copy of its weights; None where it is not of the usual form."""
    with file.open("rb") as opened, suppress(ValueError, DecodeError):
        return read_streamed(opened, size)
    return None


def from_proto(proto: onnx.ModelProto, base_dir: str | None = None, *, name: str = "model") -> ir.Model:
    """Import a ModelProto.

    Args:
        proto: the model. The IR goes on referring to its tensors, which take new names as their values do: do
            not edit it afterwards, and hand over a copy of what is needed again as it is.
        base_dir: the folder external data lies in; None when there is none.
        name: how errors call the model.

    Raises:
        ModelError: when the graph is not valid, or holds what the IR cannot keep.
    """
    try:
        with quiet(), gc_paused():
            parts = parts_of(proto)
            found = before_import(parts)
            model = ir.serde.deserialize_model(proto)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{name!r}: {error}") from error
    except _IMPORT_ERRORS as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(f"{name!r} is not a valid ONNX graph: {one_line(cause, 240)}") from error
    after_import(model, proto, parts, found)
    restore(model)
    try:
        _check_data(model, parts, base_dir, name)
        import_domains(model, parts, found)
        _check_order(model, parts, name, found)
    except (VerifyError, ValueError, TypeError) as error:
        raise ModelError(f"{name!r} is not a valid ONNX graph: {one_line(error, 240)}") from error
    return model


def _check_data(model: ir.Model, parts: Parts, base_dir: str | None, name: str) -> None:
    """Tell the model where its external data lies, and refuse data that is not whole."""
    try:
        if has_external(parts):
            if base_dir is not None:
                for graph in walk_graphs(model):
                    ir.external_data.set_base_dir(graph, base_dir)
            check_external(model, base_dir or ".")
        check_tensors(parts)
    except ModelError as error:
        raise ModelError(f"{name!r}: {error}") from error


def _check_order(model: ir.Model, parts: Parts, name: str, found: list[str]) -> None:
    """Verify the model; if that fails and nodes are out of order, sort them and verify it again."""
    rename_shadows(model, parts, found)
    try:
        verify(model)
    except VerifyError:
        known = len(found)
        for graph in walk_graphs(model):
            _check_sorted(graph, name, found)
        if len(found) == known:
            raise
        rename_shadows(model, parts, found)
        verify(model)


def _check_sorted(graph: ir.Graph, name: str, found: list[str]) -> None:
    """Sort a graph whose nodes are out of order; refuse a cyclic one."""
    done: set[ir.Node] = set()
    for node in graph:
        for value in _reads(node):
            producer = value.producer()
            if producer is not None and producer.graph is graph and producer not in done:
                try:
                    graph.sort()
                except ValueError as error:
                    raise ModelError(
                        f"{name!r}: the graph has a cycle through node {label(node)!r}"
                    ) from error
                found.append(f"graph {graph.name!r}: nodes were out of order and were sorted")
                return
        done.add(node)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, its bodies included."""
    yield from (value for value in node.inputs if value is not None)
    if node.attributes and has_subgraph(node):
        for body in subgraphs(node):
            yield from (value for value in body.outputs)
            for inner in body:
                yield from _reads(inner)
