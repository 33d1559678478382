# SPDX-License-Identifier: Apache-2.0
"""Models in torch: the same values as onnxruntime on real models, true gradients, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.evaluate import Evaluator
from tersor.calibration.torch_graph import TorchModel
from tersor.graph_ir import DataError, Model, UsageError, load, parse
from tests.support.int8 import feeds_of, graph
from tests.support.zoo import zoo_feed, zoo_models

pytest.importorskip("torch")

NET = """t = Conv<pads=[1,1,1,1]>(x, w, b) s = Shape(t) z = Gather(s, i) n = Unsqueeze(z, j)
         r = Concat<axis=0>(n, m) u = Sigmoid(t) v = Reshape(u, r) c = Constant<value_floats=[0.5, 2.0]>()
         k = MatMul(v, q) y = Mul(k, c)"""
WEIGHTS = """float[3,2,3,3] w = {seed}, float[3] b = {seed}, int64 i = {0}, int64[1] j = {0},
             int64[1] m = {-1},
             float[48,2] q = {seed}"""


def net() -> Model:
    return graph(NET, WEIGHTS, x="n,2,4,4")


def outputs(model: TorchModel, feed: object) -> NDArray[np.float64]:
    (y,) = model.run(feed)  # pyright: ignore[reportArgumentType]
    return y.detach().numpy()


def test_weights_are_the_floating_point_constants_by_name() -> None:
    made = TorchModel(net())
    assert sorted(made.weights) == ["b", "c", "q", "w"]
    assert all(weight.requires_grad for weight in made.weights.values())


@pytest.mark.parametrize("name", ["w", "b", "q", "c"])
def test_gradients_are_slopes(name: str) -> None:
    made = TorchModel(net(), wide=True)
    feed = feeds_of(net(), 1)[0]
    (y,) = made.run(feed)
    (y * y).sum().backward()
    weight = made.weights[name]
    assert weight.grad is not None
    slope, step = weight.grad.numpy().reshape(-1)[1], 1e-6
    array = weight.data.numpy()  # the tensor's own memory

    def loss() -> float:
        return float(np.square(outputs(made, feed)).sum())

    array.reshape(-1)[1] += step
    above = loss()
    array.reshape(-1)[1] -= 2 * step
    np.testing.assert_allclose((above - loss()) / (2 * step), slope, rtol=1e-5)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_operators_are_those_of_the_opset_by_either_name_of_its_domain(domain: str) -> None:
    model = parse(
        f"""<ir_version: 8, opset_import: ["{domain}" : 13]>
        g (float[2,3,4] x) => (float[2,3,4] y) {{ y = Softmax<axis=1>(x) }}"""
    )
    feed = feeds_of(model, 1)[0]  # before opset 13 Softmax normalised over axes 1 and 2 together
    np.testing.assert_allclose(outputs(TorchModel(model), feed).sum(axis=1), 1.0, rtol=1e-6)


def test_changed_weights_change_the_outputs_and_not_the_model() -> None:
    model, feed = net(), feeds_of(net(), 1)[0]
    made = TorchModel(model)
    before = outputs(made, feed)
    made.weights["q"].data = made.weights["q"].data * 2.0
    np.testing.assert_allclose(outputs(made, feed), 2 * before, rtol=1e-6)
    np.testing.assert_array_equal(outputs(TorchModel(model), feed), before)


def test_values_inside_by_name() -> None:
    model, feed = net(), feeds_of(net(), 1)[0]
    names = ["u", "x", "t", "y", "q"]
    found = TorchModel(model).values(feed, names)
    want = Evaluator(model, outputs=names).run(feed)
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(found[name].detach().numpy(), want[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="'nothing' is no value"):
        TorchModel(model).values(feed, ["nothing"])


def test_rounding_lets_gradients_through_inside_the_grid() -> None:
    model = graph(
        "a = Mul(x, w) q = QuantizeLinear(a, s, z) y = DequantizeLinear(q, s, z)",
        "float[4] w = {1., 1., 1., 1.}, float s = {0.1}, int8 z = {0}",
        x="4",
    )
    made = TorchModel(model)
    feed = {"x": np.array([0.33, -0.52, 100.0, -100.0], np.float32)}
    (y,) = made.run(feed)
    np.testing.assert_allclose(y.detach().numpy(), [0.3, -0.5, 12.7, -12.8], rtol=1e-5)
    y.sum().backward()
    gradient = made.weights["w"].grad
    assert gradient is not None
    np.testing.assert_allclose(gradient.numpy(), [0.33, -0.52, 0, 0], rtol=1e-5)


def test_defaults_may_be_left_out_or_given() -> None:
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
    g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1., 2.}> { y = Add(x, w) }""")
    made = TorchModel(model)
    x = np.zeros(2, np.float32)
    assert not made.weights
    np.testing.assert_array_equal(outputs(made, {"x": x}), [1, 2])
    np.testing.assert_array_equal(outputs(made, {"x": x, "w": x}), [0, 0])


def test_a_feed_that_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="misses input 'x'"):
        TorchModel(net()).run({})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "y, m = MaxPool<kernel_shape=[2,2]>(x)",
            "MaxPool 'MaxPool.y.' cannot be run in torch: it gives indices",
        ),
        ('y = Resize<mode="cubic">(x, , s)', "mode cubic"),
    ],
)
def test_what_an_operator_cannot_do_is_named(body: str, words: str) -> None:
    model = graph(body, "float[4] s = {1., 1., 2., 2.}", x="1,2,4,4")
    with pytest.raises(UsageError, match=words):
        TorchModel(model).run(feeds_of(model, 1)[0])


@pytest.mark.parametrize("path", zoo_models())
def test_real_models_give_the_same(path: Path) -> None:
    model, feed = load(path), zoo_feed(path)
    want = Evaluator(model).run(feed)
    for found, expected in zip(TorchModel(model).run(feed), want.values(), strict=True):
        error = float(np.abs(found.detach().numpy() - expected).max())
        assert error <= 1e-4 * float(np.abs(expected).max())
