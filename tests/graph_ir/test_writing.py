# SPDX-License-Identifier: Apache-2.0
"""Plain models are written as onnx-ir writes them, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, ModelError, Tensor, from_proto, parse, tensor, to_proto
from tersor.graph_ir.export import by_onnx_ir
from tersor.graph_ir.writing import model_proto, plain

HEAD = '<ir_version: 10, opset_import: ["" : 19, "own" : 2], producer_name: "me", domain: "d">\n'
FLOATS = {"alpha": 0.5, "many": [0.5, 2.0]}


def chain() -> Model:
    """Weights of all ways, left out inputs, trailing outputs, types in the file."""
    return parse(
        HEAD
        + """g (float[N,2] x, float[2] d) => (float[N,2] y, float[2] k)
        <float[2] d = {1, 2}, float[2] k = {3, 4}, float[2] w = {5, 6}, int64[2] s = {-1, 2}, float[N,2] h> {
        [first] h = Add(x, w)\n c = Clip(h, , w)\n p, _m = own.Two<at = "é", of = ["a", "b"]>(c, d)
        q, = Dropout(p)\n r = Reshape<allowzero = 0>(q, s)\n y = Mul(r, k) }"""
    )


def bodies() -> Model:
    """Graphs in graphs, with weights of their own."""
    return parse(
        HEAD
        + """g (bool c, float[2] x) => (float[2] y) { y = If<
        then_branch = t () => (float[2] p) <float[2] w = {1, 2}> { p = Add(x, w) },
        else_branch = e () => (float[2] q) { a = Neg(x)\n q = Relu(a) }>(c) }"""
    )


def described() -> Model:
    """Documentation, metadata and annotations at every place that has room for them."""
    proto = to_proto(chain())
    graph = proto.graph
    proto.doc_string, proto.model_version = "model", 3
    for holder, key in ((proto, "m"), (graph, "g"), (graph.node[0], "n"), (graph.input[0], "i")):
        holder.metadata_props.add(key=key, value="v")
        holder.doc_string = f"of {key}"
    graph.initializer[0].doc_string = "tensor"
    graph.initializer[1].metadata_props.add(key="b", value="2")
    graph.initializer[1].metadata_props.add(key="a", value="1")
    graph.value_info.add(name="c", doc_string="only words")
    info = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
    info.metadata_props.add(key="kept", value="with its type")
    graph.value_info.append(info)
    for name in ("x", "w", "h", "y"):
        note = graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="k")
    graph.node[0].attribute.append(helper.make_attribute("note", 1, doc_string="why"))
    for name, value in FLOATS.items():
        graph.node[2].attribute.append(helper.make_attribute(name, value))
    held = numpy_helper.from_array(np.ones(2, np.float32), "t")
    graph.node[2].attribute.append(helper.make_attribute("tensor", held))
    typed = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    graph.node[2].attribute.append(helper.make_attribute("type", typed))
    return from_proto(proto)


def edited() -> Model:
    """Weights that are no longer the file's."""
    model = chain()
    for name, array in (("w", np.zeros(2, np.float32)), ("s", np.array([2, -1]))):
        model.graph.initializers[name].const_value = tensor(array, name="another name")
    described_tensor = Tensor(np.ones(2, np.float32), name="k", doc_string="mine", metadata_props={"a": "b"})
    model.graph.initializers["k"].const_value = described_tensor
    return model


@pytest.mark.parametrize("inferred", [False, True])
@pytest.mark.parametrize("make", [chain, bodies, described, edited])
def test_the_same_bytes(make: Callable[[], Model], inferred: bool) -> None:
    model = make()
    if inferred:
        infer_shapes(model)
    assert plain(model)
    ours, theirs = model_proto(model), by_onnx_ir(model)
    assert ours == theirs
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


def test_models_with_functions_are_left_to_onnx_ir() -> None:
    text = HEAD.replace('"own"', '"local"')
    model = parse(
        f"{text}g (float[2] x) => (float[2] y) {{ y = local.f(x) }}\n"
        '<domain: "local", opset_import: ["" : 19]> f (a) => (b) { b = Relu(a) }'
    )
    assert not plain(model)
    assert [f.name for f in to_proto(model).functions] == ["f"]


def test_text_that_is_not_utf_8_is_refused() -> None:
    model = chain()
    model.graph[0].name = "\udc80"
    with pytest.raises(ModelError, match="cannot be written"):
        to_proto(model)
    assert isinstance(to_proto(chain()), onnx.ModelProto)
