# SPDX-License-Identifier: Apache-2.0
"""Run a pass on ONNX text and hold it to the signature, the verifier and its own claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from tersor.graph_ir import Model, from_proto, parse, signature_of, to_text, verify
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context, Exactness, Pass
from tests.support.numerics import assert_bitwise, assert_rounding, feeds_for, snapshot


@dataclass
class Rewritten:
    """What a pass made of a model."""

    before: onnx.ModelProto
    model: Model
    changed: bool
    context: Context

    @property
    def text(self) -> str:
        """The model after, as text."""
        return to_text(self.model)

    @property
    def ops(self) -> list[str]:
        """Operators after, bodies and functions included, without Constants."""
        return [node.op_type for node in walk_nodes(self.model) if node.op_type != "Constant"]

    @property
    def reasons(self) -> set[str]:
        """Why matches were declined."""
        return {reason for _, reason in self.context.misses}


def model_of(
    body: str, weights: str = "", *, x: str = "", y: str = "", opset: int = 17, functions: str = ""
) -> Model:
    """A one-graph model from the text of its nodes.

    Args:
        body: the nodes.
        weights: declared initializers, without the angle brackets.
        x: the inputs with types.
        y: the outputs with types.
        opset: of ai.onnx.
        functions: their text, in domain `local`.
    """
    imports = f'"" : {opset}' + (', "local" : 1' if functions else "")
    head = f"<ir_version: 8, opset_import: [{imports}]>"
    return parse(f"{head}\ngraph ({x}) => ({y}) <{weights}> {{ {body} }}\n{functions}")


def retyped(model: Model, dtype: onnx.TensorProto.DataType) -> Model:
    """A float model without bodies in another float type (ONNX text has no float16 literals)."""
    proto = snapshot(model)
    graph = proto.graph
    for port in (*graph.input, *graph.output, *graph.value_info):
        if port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            port.type.tensor_type.elem_type = dtype
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return from_proto(proto)


def with_array(model: Model, name: str, array: NDArray[Any]) -> Model:
    """The model with other data in an initializer (ONNX text has no infinity)."""
    proto = snapshot(model)
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return from_proto(proto)


def rewrite(passes: Pass | tuple[Pass, ...], model: Model, *, numbers: bool = True, **dims: int) -> Rewritten:
    """Run passes; the result verifies, keeps the signature and is as exact as the passes claim.

    Args:
        passes: one or several, in order.
        model: edited in place.
        numbers: also run both models on a seeded feed.
        dims: sizes of symbolic dimensions for that.
    """
    before, signature, context = snapshot(model), signature_of(model), Context()
    todo = passes if isinstance(passes, tuple) else (passes,)
    changed = False
    for item in todo:
        changed = item.run(model, context) or changed
        verify(model, signature)
    after = snapshot(model)
    if not changed:
        assert after == before, "a pass that changed something says it did not"
    elif numbers:
        exact = all(item.exact is Exactness.BITWISE for item in todo)
        judge = assert_bitwise if exact else assert_rounding
        judge(before, after, feeds_for(before, dims=dims))
    return Rewritten(before, model, changed, context)


def declined(passes: Pass | tuple[Pass, ...], model: Model) -> set[str]:
    """Run passes that must leave the model alone; the reasons they gave."""
    result = rewrite(passes, model)
    assert not result.changed, result.text
    return result.reasons
