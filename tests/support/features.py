# SPDX-License-Identifier: Apache-2.0
"""Models that use what exporters seldom do, for round trips."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


def _props(target: Any, **entries: str) -> None:
    for key, value in entries.items():
        target.metadata_props.add(key=key, value=value)


def port(name: str, kind: int = TensorProto.FLOAT, dims: Any = ("N", 2)) -> onnx.ValueInfoProto:
    """A typed input, output or inner value."""
    return helper.make_tensor_value_info(name, kind, None if dims is None else list(dims))


def odd_initializers() -> list[onnx.TensorProto]:
    """One initializer of each type that needs care."""
    made = [
        numpy_helper.from_array(np.array([[1, -2], [3, -4], [5, 6]], ml_dtypes.int4), "i4"),
        numpy_helper.from_array(np.array([1, 15, 7], ml_dtypes.uint4), "u4"),
        numpy_helper.from_array(np.array([1.5, -2.5], ml_dtypes.bfloat16), "bf16"),
        numpy_helper.from_array(np.array([0.5, 448], ml_dtypes.float8_e4m3fn), "f8"),
        numpy_helper.from_array(np.array([0.5, -2], ml_dtypes.float8_e4m3fnuz), "f8uz"),
        numpy_helper.from_array(np.array([1.5], np.float16), "f16"),
        numpy_helper.from_array(np.array([1 + 2j], np.complex64), "c64"),
        numpy_helper.from_array(np.array([[True], [False]]), "flag"),
        helper.make_tensor("typed", TensorProto.FLOAT, [2], [0.1, float("inf")]),
        onnx.TensorProto(
            name="text", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", "é".encode()]
        ),
        numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"),
        numpy_helper.from_array(np.array(7, np.int64), "scalar"),
    ]
    _props(made[0], packed="yes")
    made[0].doc_string = "four bits"
    return made


def feature_model() -> onnx.ModelProto:
    """Bodies with captures, odd initializers, optional inputs and outputs, documentation and metadata."""
    neg = helper.make_node("Neg", ["h"], ["then_y"], name="dup", doc_string="inner")
    _props(neg, where="then")
    then = helper.make_graph([neg], "then", [], [port("then_y")], doc_string="a branch")
    _props(then, branch="then")
    other = helper.make_graph([helper.make_node("Abs", ["h"], ["else_y"])], "else", [], [port("else_y")])
    loop = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["carried", "h"], ["next"]),
        ],
        "loop",
        [port("i", TensorProto.INT64, ()), port("go", TensorProto.BOOL, ()), port("carried")],
        [port("go_on", TensorProto.BOOL, ()), port("next")],
    )
    nodes = [
        helper.make_node("Add", ["x", "w"], ["h"], name="dup"),
        helper.make_node("If", ["c"], ["branch"], then_branch=then, else_branch=other),
        helper.make_node("Loop", ["trips", "", "branch"], ["looped"], body=loop),
        helper.make_node("Clip", ["looped", "", "top"], ["y"]),
        helper.make_node("Dropout", ["h"], ["dropped", ""]),
        helper.make_node("Custom", ["dropped"], ["z"], domain="my.own", strings=["a"], none=0.5),
    ]
    nodes[5].attribute.append(helper.make_attribute("empty", [], attr_type=onnx.AttributeProto.INTS))
    nodes[5].attribute.append(helper.make_attribute("raw", b"\xff\xfe"))
    nodes[5].attribute.append(helper.make_attribute("tensors", [numpy_helper.from_array(np.arange(3), "t")]))
    nodes[5].attribute[0].doc_string = "about strings"
    _props(nodes[0], source="layer 1")
    weights = [
        numpy_helper.from_array(np.array([1.5, -2], np.float32), "w"),
        numpy_helper.from_array(np.array(3, np.int64), "trips"),
        numpy_helper.from_array(np.array(9, np.float32), "top"),
        *odd_initializers(),
    ]
    _props(weights[0], trained="yes")
    x = port("x")
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    x.type.denotation = "TENSOR"
    x.doc_string = "an input"
    _props(x, unit="V")
    graph = helper.make_graph(
        nodes,
        "main",
        [x, port("c", TensorProto.BOOL, ()), port("w", dims=(2,))],
        [port("y"), port("z")],
        weights,
        doc_string="all there is",
        value_info=[port("h"), port("looped", dims=("N", None))],
    )
    _props(graph, graph="main")
    note = graph.quantization_annotation.add(tensor_name="h")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("my.own", 3)],
        ir_version=10,
        producer_name="tests",
        domain="org.example",
        model_version=7,
        doc_string="a model",
    )
    _props(model, author="us")
    return model


def function_model() -> onnx.ModelProto:
    """Two overloads of one function, attributes with defaults and references, a call in a function."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    reference = helper.make_node("Elu", ["a"], ["b"])
    reference.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type="FLOAT"))
    first = helper.make_function(
        "local",
        "f",
        ["a"],
        ["b"],
        [reference],
        opsets,
        attribute_protos=[helper.make_attribute("slope", 0.5)],
    )
    second = helper.make_function(
        "local", "f", ["a"], ["b"], [helper.make_node("f", ["a"], ["b"], domain="local")], opsets
    )
    second.overload = "other"
    second.doc_string = "calls the first"
    _props(second, kind="overload")
    second.value_info.append(port("b"))
    nodes = [
        helper.make_node("f", ["x"], ["m"], domain="local", slope=0.25),
        helper.make_node("f", ["m"], ["y"], domain="local", overload="other"),
    ]
    graph = helper.make_graph(nodes, "main", [port("x")], [port("y")])
    return helper.make_model(graph, opset_imports=opsets, functions=[first, second], ir_version=10)


def container_model() -> onnx.ModelProto:
    """Sequence and optional types."""
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    sequence = helper.make_sequence_type_proto(tensor)
    optional = helper.make_optional_type_proto(sequence)
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("Optional", ["s"], ["o"]),
        helper.make_node("OptionalGetElement", ["o"], ["t"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [port("x", dims=(2,))],
        [helper.make_value_info("t", sequence)],
        value_info=[helper.make_value_info("o", optional)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
