# SPDX-License-Identifier: Apache-2.0
"""The import guard: what the IR would lose is carried, made explicit, or refused by name.

onnx-ir drops sparse initializers (leaving dangling inputs) and training_info, and doubles the metadata of
initializers; it cannot hold map types or sparse-tensor attributes. Measured in docs/decisions/0001.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from .errors import ModelError, UnsupportedModelError
from .ops import walk_graphs, walk_nodes

NOTES = "tersor.notes"
TRAINING_INFO = "tersor.training_info"


def notes(model: ir.Model) -> list[str]:
    """What was changed or left alone on import, a line each (in memory only)."""
    return cast("list[str]", model.meta.setdefault(NOTES, []))


def before_import(proto: onnx.ModelProto) -> list[str]:
    """Make the proto safe for the IR, in place; returns notes.

    Raises:
        UnsupportedModelError: for a map type or a sparse-tensor attribute, which the IR cannot hold.
    """
    found: list[str] = []
    for graph in _graph_protos(proto):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if _has_map(info.type):
                raise UnsupportedModelError(f"value {info.name!r} has a map type, which tersor cannot hold")
        for sparse in graph.sparse_initializer:
            graph.initializer.append(_dense(sparse))
            found.append(f"sparse initializer {sparse.values.name!r} was made dense")
        del graph.sparse_initializer[:]
        for node in graph.node:
            for attr in node.attribute:
                if attr.type in (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS):
                    raise UnsupportedModelError(
                        f"node {node.name or node.op_type!r}: attribute {attr.name!r} is a sparse tensor, "
                        "which tersor cannot hold"
                    )
    return found


def after_import(model: ir.Model, proto: onnx.ModelProto, found: list[str]) -> None:
    """Attach to the IR what import alone would lose."""
    model.meta[NOTES] = found
    if proto.training_info:
        model.meta[TRAINING_INFO] = [t.SerializeToString() for t in proto.training_info]
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.TensorProtoTensor) and tensor.raw.metadata_props:
                tensor.metadata_props.clear()  # the raw proto is written back with its own


def after_export(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Re-attach to the exported proto what `after_import` carried."""
    for data in cast("list[bytes]", model.meta.get(TRAINING_INFO, [])):
        proto.training_info.add().ParseFromString(data)


def check_external(model: ir.Model, base_dir: str) -> None:
    """Refuse external data outside the model's folder, behind links, missing or too short.

    Raises:
        ModelError: naming the tensor, the file and what is wrong with it.
    """
    seen: dict[str, int] = {}
    for tensor in _external_tensors(model):
        location = str(cast("str", tensor.location))
        if location not in seen:
            seen[location] = _checked_size(location, base_dir, tensor.name or "")
        needed = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if needed > seen[location]:
            raise ModelError(
                f"tensor {tensor.name!r}: external data file {location!r} holds {seen[location]} bytes, "
                f"{needed} are needed; the file is truncated or belongs to another model"
            )
        if tensor.length is not None and tensor.length < tensor.nbytes:
            raise ModelError(
                f"tensor {tensor.name!r}: external data is {tensor.length} bytes, {tensor.nbytes} needed"
            )


def _checked_size(location: str, base_dir: str, name: str) -> int:
    path = Path(location)
    if path.is_absolute() or ".." in path.parts or "\\" in location:
        raise ModelError(
            f"tensor {name!r}: external data location {location!r} leaves the model's folder; refused"
        )
    step = Path(base_dir)
    for part in path.parts:
        step /= part
        if step.is_symlink():
            raise ModelError(
                f"tensor {name!r}: external data {location!r} goes through a symbolic link; refused"
            )
    if not step.is_file():
        raise ModelError(f"tensor {name!r}: external data file {location!r} is missing beside the model")
    return step.stat().st_size


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    for node in walk_nodes(model):
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
                yield attr.value


def _graph_protos(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    stack = [proto.graph]
    stack += [a.g for f in proto.functions for n in f.node for a in n.attribute if a.HasField("g")]
    while stack:
        graph = stack.pop()
        yield graph
        for node in graph.node:
            for attr in node.attribute:
                if attr.HasField("g"):
                    stack.append(attr.g)
                stack.extend(attr.graphs)


def _has_map(type_proto: onnx.TypeProto) -> bool:
    kind = type_proto.WhichOneof("value")
    if kind == "sequence_type":
        return _has_map(type_proto.sequence_type.elem_type)
    if kind == "optional_type":
        return _has_map(type_proto.optional_type.elem_type)
    return kind == "map_type"


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    shape = tuple(int(d) for d in sparse.dims)
    values = np.asarray(numpy_helper.to_array(sparse.values))
    indices = np.asarray(numpy_helper.to_array(sparse.indices), np.int64)
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices[:, k] for k in range(len(shape)))] = values
    return numpy_helper.from_array(dense, sparse.values.name)
