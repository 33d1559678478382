# SPDX-License-Identifier: Apache-2.0
"""Small models of unusual make: control flow, odd dtypes, shared weights, broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Dims = Sequence[int | str]


def port(name: str, dims: Dims | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def weight(*shape: int, seed: int = 0, dtype: Any = np.float32, size: float = 0.3) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(dtype)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, Array] | None = None,
    *,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    arrays = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), arrays)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def conv_net(
    dtype: Any = np.float32, *, opset: int = 17, batch: int | str = 1, bad: float | None = None
) -> onnx.ModelProto:
    """Two convolutions that share a weight, a global pool and a Gemm."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shared = weight(8, 8, 3, 3, dtype=dtype)
    if bad is not None:
        shared[0, 0, 0, 0] = bad
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], "one", pads=pads),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "shared"], ["c"], "two", pads=pads),
        helper.make_node("Conv", ["c", "shared"], ["d"], "three", pads=pads),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "last", "bias"], ["y"], "gemm"),
    ]
    arrays = {
        "first": weight(8, 3, 3, 3, seed=1, dtype=dtype),
        "shared": shared,
        "last": weight(8, 5, seed=2, dtype=dtype),
        "bias": weight(5, seed=3, dtype=dtype),
    }
    image, scores = port("x", [batch, 3, 12, 12], kind), port("y", [batch, 5], kind)
    return model(nodes, [image], [scores], arrays, opset=opset)


def default_inputs() -> onnx.ModelProto:
    """Opset 9 with every weight listed as an input, as older exporters write them."""
    proto = conv_net(opset=9)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(port(tensor.name, list(tensor.dims)))
    return proto


def branches() -> onnx.ModelProto:
    """An If whose branches hold the MatMuls, and a Loop that adds."""
    taken = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["t"])], "yes", [], [port("t", None)])
    other = helper.make_graph([helper.make_node("MatMul", ["x", "v"], ["u"])], "no", [], [port("u", None)])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
        ],
        "body",
        [port("i", [], TensorProto.INT64), port("go", [], TensorProto.BOOL), port("state", [4, 8])],
        [port("still", [], TensorProto.BOOL), port("next", [4, 8])],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["h"], "choice", then_branch=taken, else_branch=other),
        helper.make_node("Loop", ["times", "", "h"], ["y"], "loop", body=body),
    ]
    arrays: dict[str, Array] = {
        "w": weight(8, 8),
        "v": weight(8, 8, seed=1),
        "zero": np.zeros((), np.float32),
        "times": np.array(2, np.int64),
    }
    return model(nodes, [port("x", [4, 8])], [port("y", [4, 8])], arrays)


def embedding(rows: int = 50) -> onnx.ModelProto:
    """Token and segment ids, each looked up in a table; then a MatMul."""
    nodes = [
        helper.make_node("Gather", ["tokens", "ids"], ["a"], "look_up"),
        helper.make_node("Gather", ["segments", "types"], ["b"], "look_up_too"),
        helper.make_node("Add", ["a", "b"], ["c"], "sum"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "matmul"),
    ]
    arrays = {"tokens": weight(rows, 16), "segments": weight(1, 16, seed=1), "w": weight(16, 16, seed=2)}
    ids = [port(name, ["N", "T"], TensorProto.INT64) for name in ("ids", "types")]
    return model(nodes, ids, [port("y", ["N", "T", 16])], arrays)


def embedding_of_many() -> onnx.ModelProto:
    """As `embedding`, with tables that any drawn ids fit."""
    proto = embedding()
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(weight(2, 16, seed=1), "segments"))
    return proto


def double() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"),
        helper.make_node("Add", ["h", "b"], ["y"], "add"),
    ]
    arrays = {"w": weight(8, 8, dtype=np.float64), "b": weight(8, seed=1, dtype=np.float64)}
    kind = TensorProto.DOUBLE
    return model(nodes, [port("x", [4, 8], kind)], [port("y", [4, 8], kind)], arrays)


def without_linear() -> onnx.ModelProto:
    nodes = [helper.make_node("Sigmoid", ["x"], ["a"]), helper.make_node("Mul", ["a", "x"], ["y"])]
    return model(nodes, [port("x", [2, 6])], [port("y", [2, 6])])


def linear() -> onnx.ModelProto:
    """One MatMul over an input `x` of shape [2, 3]."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")
    return model([node], [port("x", [2, 3])], [port("y", [2, 4])], {"w": weight(3, 4)})


def one_node() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [port("x", [2, 3])], [port("y", [2, 3])])


def odd_outputs() -> onnx.ModelProto:
    """A constant, an input itself, a constant node's output, and one that is computed."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "matmul"),
        helper.make_node("Identity", ["w"], ["same"], "copy"),
        helper.make_node("Identity", ["x"], ["echo"], "echo"),
    ]
    outs = [port("y", [4, 8]), port("same", [8, 8]), port("echo", [4, 8])]
    return model(nodes, [port("x", [4, 8])], outs, {"w": weight(8, 8)})


def texts() -> onnx.ModelProto:
    """Strings pass through beside an Identity to remove and a MatMul."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"], "same"),
        helper.make_node("MatMul", ["same", "w"], ["y"], "matmul"),
        helper.make_node("Identity", ["names"], ["labels"], "labels"),
    ]
    names = port("names", [2], TensorProto.STRING)
    return model(
        nodes, [port("x", [4, 8]), names], [port("y", [4, 8]), port("labels", [2], TensorProto.STRING)],
        {"w": weight(8, 8)},
    )  # fmt: skip


def sequences() -> onnx.ModelProto:
    """The output is a sequence of tensors."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "matmul"),
        helper.make_node("SplitToSequence", ["y"], ["parts"], "split", axis=0),
    ]
    out = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    return model(nodes, [port("x", [4, 8])], [out], {"w": weight(8, 8)})


def training_norm() -> onnx.ModelProto:
    """A batch norm in training mode, whose statistics come from the batch."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node(
            "BatchNormalization", ["a", "s", "b", "m", "v"], ["y", "m2", "v2"], "norm", training_mode=1
        ),
    ]
    arrays = {"w": weight(4, 3, 3, 3), "s": weight(4), "b": weight(4, seed=1), "m": weight(4, seed=2)}
    arrays["v"] = np.abs(weight(4, seed=3))
    return model(nodes, [port("x", [2, 3, 8, 8])], [port("y", [2, 4, 6, 6])], arrays)


def quantised_output() -> onnx.ModelProto:
    """The caller gets integers: the graph ends in a QuantizeLinear."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["y"], "quantize"),
    ]
    arrays = {"w": weight(4, 3, 3, 3), "scale": np.array(0.05, np.float32), "zero": np.array(128, np.uint8)}
    return model(nodes, [port("x", [1, 3, 8, 8])], [port("y", [1, 4, 6, 6], TensorProto.UINT8)], arrays)


def no_inputs() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["w"], ["y"])], [], [port("y", [2, 3])], {"w": weight(2, 3)})


def random_draw() -> onnx.ModelProto:
    """Noise is added: two runs differ."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], "draw"),
        helper.make_node("Add", ["x", "noise"], ["y"], "add"),
    ]
    return model(nodes, [port("x", [2, 6])], [port("y", [2, 6])])


def custom_op() -> onnx.ModelProto:
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"], "own", domain="com.example")]
    return model(nodes, [port("x", [2, 3])], [port("y", [2, 3])], domains=["com.example"])


def unknown_op() -> onnx.ModelProto:
    return model([helper.make_node("Frobnicate", ["x"], ["y"], "own")], [port("x", [2])], [port("y", [2])])


def cyclic() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]
    return model(nodes, [port("x", [2])], [port("b", [2])])
