# SPDX-License-Identifier: Apache-2.0
"""Is the data of every tensor where the file says, all of it, and inside the model's folder?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir

from .errors import ModelError
from .ops import walk_graphs, walk_nodes
from .protos import Parts

_BITS = {
    int(t): 0 if t == ir.DataType.STRING else t.bitwidth for t in ir.DataType if t != ir.DataType.UNDEFINED
}
_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.COMPLEX64: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
    onnx.TensorProto.STRING: "string_data",
}
_COMPLEX = frozenset({onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128})


def check_tensors(parts: Parts) -> None:
    """Refuse weights and constants in the file whose data is not as long as their type and shape say.

    Raises:
        ModelError: naming the tensor.
    """
    weights = [tensor for tensor in parts.weights() if tensor.name]  # the IR leaves out those without a name
    constants = [a.t for node, a in parts.attributes if node.op_type == "Constant" and a.HasField("t")]
    for tensor in (*weights, *constants):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not _is_whole(tensor):
            raise ModelError(
                f"tensor {tensor.name!r}: its data does not fit its type and shape; the file is damaged"
            )


def _is_whole(proto: onnx.TensorProto) -> bool:
    sizes, bits = list(proto.dims), _BITS.get(proto.data_type)
    if bits is None or min(sizes, default=0) < 0:
        return False
    size = math.prod(sizes)
    nbytes = (size * bits + 7) // 8
    if proto.HasField("raw_data") and bits:
        return len(proto.raw_data) == nbytes
    stored = len(getattr(proto, _FIELDS.get(proto.data_type, "int32_data")))
    if proto.data_type in _COMPLEX:
        return stored == 2 * size
    return stored in (nbytes, size) if 0 < bits < 8 else stored == size


def check_external(model: ir.Model, base_dir: str) -> None:
    """Refuse external data outside the model's folder, behind links, missing or too short.

    Raises:
        ModelError: naming the tensor, the file and what is wrong with it.
    """
    seen: dict[str, int] = {}
    for graph in walk_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                _check_one(value.const_value, base_dir, seen)
    for node in walk_nodes(model):
        if node.attributes:
            _check_attributes(node, base_dir, seen)


def _check_attributes(node: ir.Node, base_dir: str, seen: dict[str, int]) -> None:
    """Check external tensors of attributes, and map them now: only weights are written to files again."""
    for name, attr in list(node.attributes.items()):
        if attr.is_ref():
            continue
        if attr.type == ir.AttributeType.TENSOR and isinstance(attr.value, ir.ExternalTensor):
            _check_one(attr.value, base_dir, seen)
            node.attributes[name] = ir.Attr(name, attr.type, _mapped(attr.value))
        elif attr.type == ir.AttributeType.TENSORS:
            tensors = list(attr.as_tensors())
            for tensor in tensors:
                if isinstance(tensor, ir.ExternalTensor):
                    _check_one(tensor, base_dir, seen)
            kept: list[ir.TensorProtocol] = [
                _mapped(t) if isinstance(t, ir.ExternalTensor) else t for t in tensors
            ]
            node.attributes[name] = ir.Attr(name, attr.type, kept)


def _check_one(tensor: ir.ExternalTensor, base_dir: str, seen: dict[str, int]) -> None:
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


def _mapped(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)
