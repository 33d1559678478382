# SPDX-License-Identifier: Apache-2.0
"""Each operator in torch gives what onnxruntime gives, and gradients where there are any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from onnx import ModelProto

from tersor.analysis.evaluate import Evaluator
from tersor.calibration.torch_graph import TorchModel
from tersor.graph_ir import Model, ModelError, from_proto
from tests.support.graphs import chains
from tests.support.int8 import feeds_of
from tests.support.torch_cases import case_model, cases

pytest.importorskip("torch")


def check(model: Model, tolerance: float = 2e-5) -> None:
    """All outputs agree with onnxruntime's, its optimizer off; float outputs have gradients."""
    feed = feeds_of(model, 1)[0]
    want = list(Evaluator(model).run(feed).values())
    got = TorchModel(model).run(feed)
    assert len(got) == len(want)
    for found, expected in zip(got, want, strict=True):
        array = found.detach().numpy()
        assert array.shape == expected.shape
        if expected.dtype.kind == "f":
            scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
            np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(array, expected)


UNARY = """
    Abs Asinh Atan Ceil Celu Cos Cosh Dropout Elu Erf Exp Flatten Floor GlobalAveragePool GlobalMaxPool
    HardSigmoid HardSwish Identity LeakyRelu LogSoftmax Mish Neg Reciprocal ReduceSum Relu Round Selu Shrink
    Sigmoid Sign Sin Sinh Softmax Softplus Softsign Tanh ThresholdedRelu Transpose
"""


@pytest.mark.parametrize("op", UNARY.split())
def test_of_one_input(op: str) -> None:
    check(case_model(f"18 | 2,3,4,5 | | y = {op}(x)"))


@pytest.mark.parametrize("line", cases())
def test_of_several_inputs_and_attributes(line: str) -> None:
    check(case_model(line))


@settings(max_examples=40, deadline=None)
@given(chains())
def test_random_chains(proto: ModelProto) -> None:
    model = from_proto(proto)
    rng = np.random.default_rng(0)
    feed = {
        i.name or "": rng.standard_normal([d if isinstance(d, int) else 2 for d in i.shape or ()])
        .astype(i.dtype.numpy() if i.dtype else np.float32)
        for i in model.graph.inputs if i.name not in model.graph.initializers
    }  # fmt: skip
    try:
        want = Evaluator(model).run(feed)
    except ModelError:  # a type onnxruntime has no kernel for
        assume(condition=False)
        return
    loose = any(array.dtype == np.float16 for array in feed.values())
    for found, expected in zip(TorchModel(model).run(feed), want.values(), strict=True):
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        error = float(np.abs(found.detach().numpy() - expected.astype(np.float64)).max(initial=0.0))
        assert error <= (2e-2 if loose else 1e-4) * scale
