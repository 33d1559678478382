# SPDX-License-Identifier: Apache-2.0
"""Where a model may be written: under which names, and never over what is no model of that name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from .errors import ModelError, UsageError
from .ops import walk_graphs
from .protos import parts_of

MAX_PROTO_BYTES = 2**31 - 2**24  # protobuf's limit, less room for the graph itself
EXTERNAL_FROM = 1024  # bytes; smaller weights stay in the model file, where shape inference can read them

FORMATS = {
    ".onnx": "protobuf",
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
    ".textproto": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".json": "json",
    ".onnxjson": "json",
}
_OTHERS_USE = (".textproto", ".prototxt", ".pbtxt", ".json")  # so that the name alone tells little
_HEAD = 1024  # bytes, in which a model in text says its `ir_version`, the first field


def format_of(path: Path) -> str | None:
    """How a model is written under a name: protobuf, onnxtxt, textproto or json; None for other names."""
    return FORMATS.get("." + path.name.lower().rpartition(".")[2])  # a name may be nothing but `.onnx`


def data_file(target: Path) -> Path:
    """Where the weights of a model go when they are stored outside of it."""
    return target.with_name(target.name + ".data")


def weights_of(model: ir.Model) -> dict[ir.Value, ir.TensorProtocol]:
    """The weights of all graphs."""
    values = [value for graph in walk_graphs(model) for value in graph.initializers.data.values()]
    return {value: value.const_value for value in values if value.const_value is not None}


def external_files(model: ir.Model) -> list[Path]:
    """The files that hold weights of the model, each once."""
    tensors = weights_of(model).values()
    return list(dict.fromkeys(Path(t.path) for t in tensors if isinstance(t, ir.ExternalTensor)))


def kept_outside(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is stored outside where weights are."""
    return tensor.nbytes >= EXTERNAL_FROM and tensor.dtype != ir.DataType.STRING


def goes_outside(model: ir.Model, target: Path, external_data: bool | None = None) -> bool:
    """Whether `save` stores weights outside of the file."""
    if format_of(target) != "protobuf" or external_data is False:
        return False
    tensors = weights_of(model).values()
    if external_data is None and not any(isinstance(each, ir.ExternalTensor) for each in tensors):
        external_data = _too_large(tensors)
    return external_data is not False and any(map(kept_outside, tensors))


def _too_large(tensors: Iterable[ir.TensorProtocol]) -> bool:
    """Whether one protobuf cannot hold the weights."""
    return sum(map(_stored_bytes, tensors)) > MAX_PROTO_BYTES


def _stored_bytes(tensor: ir.TensorProtocol) -> int:
    """About what a tensor takes in a file; numbers that are not raw take other room than in memory."""
    packed = isinstance(tensor, ir.TensorProtoTensor) and not tensor.raw.HasField("raw_data")
    return tensor.raw.ByteSize() if packed else tensor.nbytes


def refuse_name(target: Path, external_data: bool | None = None) -> None:
    """Refuse a name that no model is written under, or whose file is there already and no model.

    Raises:
        UsageError: naming the file.
        ModelError: weights are to lie outside of a text, which holds them itself.
    """
    kind, shown = format_of(target), str(target)
    if kind is None:
        raise UsageError(
            f"{shown!r} does not end in .onnx; give such a name, or one of .onnxtxt, .textproto and .json "
            "for a model as text"
        )
    if external_data and kind != "protobuf":
        raise ModelError(f"{shown!r} is a text format, which holds all weights itself; save as .onnx")
    if target.suffix.lower() in _OTHERS_USE and target.is_file():
        with target.open("rb") as file:
            head = file.read(_HEAD)
        if head and b"ir_version" not in head and b"irVersion" not in head:
            raise UsageError(f"{shown!r} is there already and is no model; give another name, or remove it")


def refuse_own_weights(target: Path, model: ir.Model, *, beside: bool = True) -> None:
    """Refuse to write over the files that hold a model's own weights.

    Args:
        target: where it goes.
        model: as it was read.
        beside: whether the file for its weights must not be one of them either.

    Raises:
        UsageError: naming the file.
    """
    files = external_files(model)
    for written in (target, data_file(target))[: 1 + beside]:
        if written.exists() and any(file.exists() and written.samefile(file) for file in files):
            raise UsageError(
                f"{str(written)!r} holds weights of the model, which are never touched; give another output"
            )


def refuse_foreign_weights(target: Path, model: ir.Model, external_data: bool | None = None) -> None:
    """Refuse to write weights over a file that is not the weights of the model that will be replaced.

    Args:
        target: where the model goes.
        model: what is to be written.
        external_data: see `graph_ir.save`.

    Raises:
        UsageError: naming the file.
    """
    data = data_file(target)
    if data.exists() and goes_outside(model, target, external_data) and not owns_weights(target):
        raise UsageError(
            f"{str(data)!r} is there already and is not of {str(target)!r}; give another output, or remove it"
        )


def owns_weights(target: Path) -> bool:
    """Whether there is a model at `target` whose weights lie in the file that its new ones would go to."""
    data = data_file(target)
    if not target.is_file() or not data.is_file() or format_of(target) != "protobuf":
        return False
    try:
        proto = onnx.load_model(target, load_external_data=False)
    except (DecodeError, OSError, ValueError):
        return False
    return any(
        entry.key == "location" and entry.value == data.name
        for tensor in parts_of(proto).weights()
        for entry in tensor.external_data
    )
