# SPDX-License-Identifier: Apache-2.0
"""Activations by one exponential: equal numbers everywhere, fewer than it pays for left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, to_proto
from tersor.passes.base import Context
from tersor.passes.fuse.by_exp import ActivationsByExp
from tests.support.rewriting import declined, model_of, rewrite

PASS = ActivationsByExp()
MISH_PARTS = "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"


def made(body: str, x: str = "float[N,8,32,32]", opset: int = 18) -> Model:
    model = model_of(body, x=f"{x} x", y=f"{x} y", opset=opset)
    infer_shapes(model)
    return model


def answers(model: Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto: onnx.ModelProto = to_proto(model)
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Elu(x)", {"Exp", "Add", "Min", "Relu", "Sub"}),
        ("y = Elu<alpha = 2.5>(x)", {"Exp", "Add", "Min", "Relu", "Sub", "Mul"}),
        ("y = Selu(x)", {"Exp", "Add", "Min", "Relu", "Sub", "Mul"}),
        ("y = Selu<alpha = 1.5, gamma = 2.0>(x)", {"Exp", "Add", "Min", "Relu", "Sub", "Mul"}),
        ("y = Mish(x)", {"Exp", "Add", "Min", "Mul", "Div"}),
        (MISH_PARTS, {"Exp", "Add", "Min", "Mul", "Div"}),
    ],
)
def test_numbers_are_kept_from_end_to_end(body: str, wanted: set[str]) -> None:
    done = rewrite(PASS, made(body), N=1)
    assert set(done.ops) == wanted
    x = np.linspace(-110, 110, 8 * 32 * 32, dtype=np.float32).reshape(1, 8, 32, 32)
    x[0, 0, 0, :4] = [np.inf, 0.0, 3e38, -3e38]
    model = made(body)
    want = answers(model, x)
    assert PASS.run(model, Context())
    np.testing.assert_allclose(answers(model, x), want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("body", "x", "reason"),
    [
        ("y = Elu(x)", "float[N,8,32,31]", "few elements"),
        ("y = Mish(x)", "double[1,8,32,32]", "not known to be float32"),
        ("y = Softplus(x)", "float[1,8,32,32]", ""),
        ("y = Tanh(x)", "float[1,8,32,32]", ""),
        ("s = Softplus(x) t = Tanh(s) y = Mul(s, t)", "float[1,8,32,32]", ""),
    ],
)
def test_left_alone(body: str, x: str, reason: str) -> None:
    found = declined(PASS, made(body, x))
    assert not reason or reason in found


def test_open_sizes_of_pictures_are_taken_for_large() -> None:
    assert "Elu" not in rewrite(PASS, made("y = Elu(x)", "float[N,8,H,W]"), N=1, H=4, W=4).ops


@pytest.mark.parametrize("body", ["y = Elu(x)", "y = Selu(x)", "s = Softplus(x) y = Tanh(s)"])
def test_operators_of_one_shape_are_left_alone(body: str) -> None:
    """Regression: Min of a tensor and a number, which onnxruntime refuses below opset 8."""
    assert declined(PASS, made(body, opset=7)) == {"needs opset 8"}
