# SPDX-License-Identifier: Apache-2.0
"""Where a model may be written: under which names, and never over what is no model of that name."""

from __future__ import annotations

from collections.abc import Mapping
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
    return list(dict.fromkeys(Path(each.path) for each in external(weights_of(model)).values()))


def external(weights: Mapping[ir.Value, ir.TensorProtocol]) -> dict[ir.Value, ir.ExternalTensor]:
    """Those weights that lie in other files; `isinstance` on each of thousands asks slow protocols."""
    if not any(issubclass(kind, ir.ExternalTensor) for kind in {*map(type, weights.values())}):
        return {}
    return {value: tensor for value, tensor in weights.items() if isinstance(tensor, ir.ExternalTensor)}


def stored_bytes(weights: Mapping[ir.Value, ir.TensorProtocol]) -> int:
    """About what weights take in a file; numbers that are not raw take other room there than in memory."""
    return sum(
        tensor.raw.ByteSize() if type(tensor) is ir.TensorProtoTensor else tensor.nbytes
        for tensor in weights.values()
    )


def kept_outside(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is stored outside where weights are."""
    return tensor.nbytes >= EXTERNAL_FROM and tensor.dtype != ir.DataType.STRING


def goes_outside(model: ir.Model, target: Path, external_data: bool | None = None) -> bool:
    """Whether `save` stores weights outside of the file."""
    if format_of(target) != "protobuf" or external_data is False:
        return False
    weights = weights_of(model)
    if external_data is None and not external(weights):
        external_data = stored_bytes(weights) > MAX_PROTO_BYTES
    return external_data is not False and any(map(kept_outside, weights.values()))


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
    there = [file for file in (target, data_file(target))[: 1 + beside] if file.exists()]
    files = external_files(model) if there else []
    for written in there:
        if any(file.exists() and written.samefile(file) for file in files):
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
