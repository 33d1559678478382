# SPDX-License-Identifier: Apache-2.0
"""The message of what some values of a model need, without its large weights: a session is lent these.

A model of which a stretch is run again and again, layer by layer, is neither written as a whole nor are its
weights copied each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph_ir import DataType, Model, Value, to_proto
from ..graph_ir.extract import declare_inputs, keep_needed, written_weights
from ..graph_ir.writing import Held, plain, tensor_into

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

LENT = "lent"  # the location of lent weights
_LENT_FROM = 1024  # bytes; smaller tensors stay in the proto, where shape inference can read them
_LENDABLE = frozenset("?bBhHiIlLqQefd")  # numpy type characters that onnxruntime takes as they are


def excerpt(
    model: Model, outputs: Sequence[str] | None, given: Mapping[str, Any]
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """What computes some values, and the weights by name that it refers to as external data in `LENT`.

    Args:
        model: left unchanged.
        outputs: names of the values; None for the model's own outputs.
        given: see `Evaluator`.
    """
    held: Held | None = [] if plain(model) else None
    proto = to_proto(model, held=held)
    if outputs is not None:
        known = {output.name: output for output in proto.graph.output}
        del proto.graph.output[:]
        for name in outputs:
            if name in known:
                proto.graph.output.append(known[name])
            else:
                proto.graph.output.add(name=name)
    lent = _lend(proto, model)
    declare_inputs(proto.graph, given)
    needed = keep_needed(proto.graph)
    for name, tensor in held or ():
        value = model.graph.initializers[name]
        if name in needed or value.is_graph_input():
            array = _lendable(value)
            if array is None:
                tensor_into(proto.graph, name, tensor)
                _bring_in(proto.graph.initializer[-1], value)
            else:
                sizes, kind = tensor.shape.numpy(), int(tensor.dtype)
                _refer(proto.graph.initializer.add(name=name, data_type=kind, dims=sizes))
                lent[name] = array
    kept = {tensor.name for tensor in proto.graph.initializer}
    return proto, {name: array for name, array in lent.items() if name in kept}


def _lend(proto: onnx.ModelProto, model: Model) -> dict[str, NDArray[Any]]:
    """Take the large weights out of the proto; they are lent to the session by name.

    Those of bodies are not: onnxruntime gives them other names where it inlines a body.
    """
    lent: dict[str, NDArray[Any]] = {}
    for tensor, value in written_weights(proto, model):
        array = _lendable(value) if value.graph is model.graph else None
        if array is None:
            _bring_in(tensor, value)
            continue
        lent[tensor.name] = array
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        del tensor.external_data[:]
        _refer(tensor)
    return lent


def _refer(tensor: onnx.TensorProto) -> None:
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value=LENT)


def _lendable(value: Value) -> NDArray[Any] | None:
    """The value's array when it is large, fixed, and of a type that needs no unpacking."""
    if value.is_graph_input() or value.const_value is None:
        return None
    tensor = value.const_value
    if tensor.nbytes < _LENT_FROM or tensor.dtype in (DataType.STRING, DataType.BFLOAT16):
        return None
    array = tensor.numpy()
    if array.dtype.char not in _LENDABLE or array.nbytes != tensor.nbytes:
        return None
    return np.ascontiguousarray(array)


def _bring_in(proto: onnx.TensorProto, value: Value) -> None:
    """Have an external weight in the message: onnxruntime has no folder to look in."""
    if not proto.external_data:
        return
    assert value.const_value is not None
    del proto.external_data[:]
    proto.data_location = proto.DEFAULT
    proto.raw_data = value.const_value.tobytes()
