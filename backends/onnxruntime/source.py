# SPDX-License-Identifier: Apache-2.0
"""Models as they reach the runtime: a path, bytes, or a proto whose weights may lie in other files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ...graph_ir.errors import ModelError, one_line

if TYPE_CHECKING:
    import onnx

ModelSource: TypeAlias = "str | Path | bytes | onnx.ModelProto"
"""A model file, its bytes, or the proto itself."""

MAX_PROTO_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Loadable:
    """What a session is made from; `folder` is where a proto's external weights lie."""

    model: str | bytes
    folder: Path | None
    title: str


def loadable(source: ModelSource, folder: Path | None = None) -> Loadable:
    """The form of `source` that onnxruntime takes, without reading a file that it can read itself.

    Raises:
        ModelError: when there is no such file, or the proto is too large to be handed over in memory.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise ModelError(f"no such model file: {str(path)!r}")
        return Loadable(str(path), None, str(path))
    if isinstance(source, bytes):
        return Loadable(source, folder, "the model")
    return Loadable(_serialized(source), folder, f"the model {source.graph.name!r}")


def graph_proto(source: ModelSource) -> tuple[onnx.ModelProto, Path | None]:
    """A private copy of the model's proto, external weights left unread, and the folder where those lie.

    Raises:
        ModelError: when it cannot be read as an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if isinstance(source, (str, Path)):
            path = Path(source)
            return onnx.load(str(path), load_external_data=False), path.parent
        if isinstance(source, bytes):
            return onnx.ModelProto.FromString(source), None
    except OSError as error:
        raise ModelError(f"cannot read {str(source)!r}: {error.strerror}") from error
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"not an ONNX model, or truncated: {one_line(error, 160)}") from error
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    return copy, None


def walk_graphs(graph: onnx.GraphProto) -> Iterator[tuple[onnx.GraphProto, onnx.GraphProto | None]]:
    """Each graph with the one around it, outer before inner."""
    stack: list[tuple[onnx.GraphProto, onnx.GraphProto | None]] = [(graph, None)]
    while stack:
        current, outer = stack.pop()
        yield current, outer
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append((attribute.g, current))
                stack.extend((body, current) for body in attribute.graphs)


def _serialized(proto: onnx.ModelProto) -> bytes:
    from google.protobuf.message import EncodeError

    try:
        return proto.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"the model {proto.graph.name!r} is over 2 GB; save it with external data and give its path"
        ) from error
