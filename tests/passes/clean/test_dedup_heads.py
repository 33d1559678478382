# SPDX-License-Identifier: Apache-2.0
"""Weights that begin alike are told apart by all their bits; those that a runtime writes to are kept."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tersor.graph_ir import from_proto
from tersor.passes.base import Context
from tersor.passes.clean.dedup_weights import DeduplicateWeights
from tests.support.numerics import assert_bitwise
from tests.support.rewriting import model_of, rewrite


def weights_left(*arrays: np.ndarray) -> int:
    """How many weights remain when each is added to the input."""
    names = [f"w{i}" for i in range(len(arrays))]
    nodes = [helper.make_node("Add", ["x", name], [f"y_{name}"]) for name in names]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [200])],
        [helper.make_tensor_value_info(f"y_{name}", onnx.TensorProto.FLOAT, [200]) for name in names],
        [numpy_helper.from_array(array, name) for name, array in zip(names, arrays, strict=True)],
    )  # fmt: skip
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    DeduplicateWeights().run(model, Context())
    return len(model.graph.initializers)


def test_equal_heads_with_different_tails_stay_apart() -> None:
    one = np.zeros(200, np.float32)
    other = np.zeros(200, np.float32)
    other[199] = 1
    assert weights_left(one, other, np.zeros(200, np.float32)) == 2


def test_different_heads_with_equal_tails_stay_apart() -> None:
    one = np.zeros(200, np.float32)
    other = np.zeros(200, np.float32)
    other[0] = -0.0
    assert weights_left(one, other) == 2


def test_statistics_that_training_updates_are_not_shared() -> None:
    weights = "float[2] gain = {1,1}, float[2] bias = {1,1}, float[2] mean = {1,1}, float[2] var = {1,1}"
    body = "y, m, v = BatchNormalization<training_mode = 1>(x, gain, bias, mean, var)"
    model = model_of(body, weights, x="float[2,2] x", y="float[2,2] y")
    done = rewrite(DeduplicateWeights(), model, numbers=False)
    assert {v.name for v in done.model.graph.initializers.values()} == {"gain", "mean", "var"}
    assert_bitwise(done.before, done.model, {"x": np.array([[1, 5], [3, -2]], np.float32)})
