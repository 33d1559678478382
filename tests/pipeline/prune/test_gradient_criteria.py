# SPDX-License-Identifier: Apache-2.0
"""Taylor and Hessian scores against what cutting a channel really does, and their losses and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.coupling import couple
from tersor.analysis.evaluate import Evaluator
from tersor.graph_ir import DataError, Model, UsageError, constant, from_proto, to_proto
from tersor.pipeline.prune.criteria import Request, get
from tersor.pipeline.prune.criteria.hessian import Hessian
from tersor.pipeline.prune.criteria.losses import find_loss
from tersor.pipeline.prune.criteria.taylor import Taylor
from tests.support.int8 import feeds_of, graph
from tests.support.user_code import HERE

pytest.importorskip("torch")

NET = """t = Conv(x, w, b) n = BatchNormalization(t, s, o, o, v) r = Relu(n) u = Conv(r, k)
         g = GlobalAveragePool(u) f = Flatten(g) y = Gemm(f, q)"""
WEIGHTS = """float[6,3,3,3] w = {seed}, float[6] b = {seed}, float[6] s = {seed}, float[6] o = {seed},
             float[6] v = {1., 1., 1., 1., 1., 1.}, float[5,6,1,1] k = {seed}, float[5,4] q = {seed}"""


def net() -> Model:
    return graph(NET, WEIGHTS, x="2,3,8,8", y="2,4")


def cut_error(model: Model, feeds: list[Any], reader: str, axis: int) -> NDArray[np.float64]:
    """Per input channel of a weight, the squared change of the output (relative) when it reads nothing."""
    want = [Evaluator(model).run(feed)["y"].astype(np.float64) for feed in feeds]
    array = np.array(constant(model.graph.initializers[reader]), np.float32)
    errors: list[float] = []
    for channel in range(array.shape[axis]):
        proto = to_proto(model)
        changed: NDArray[np.float32] = np.array(array)
        np.moveaxis(changed, axis, 0)[channel] = 0
        next(t for t in proto.graph.initializer if t.name == reader).raw_data = changed.tobytes()
        cut = Evaluator(from_proto(proto))
        each = [
            np.square(cut.run(f)["y"] - y).sum() / np.square(y).sum()
            for f, y in zip(feeds, want, strict=True)
        ]
        errors.append(float(np.mean(each)))
    return np.array(errors)


def test_taylor_is_the_change_of_the_output_where_the_rest_is_linear() -> None:
    # Behind the ReLU all is linear, so the first order is the whole change.
    model, feeds = net(), feeds_of(net(), 2)
    scores = Taylor(probes=40).score(Request(model, couple(model), feeds, 0))
    first = next(values for values in scores.values() if values.size == 6)
    np.testing.assert_allclose(first, cut_error(model, feeds, "k", 1), rtol=0.5)
    second = next(values for values in scores.values() if values.size == 5)
    np.testing.assert_allclose(second, cut_error(model, feeds, "q", 0), rtol=0.5)


def test_hessian_is_half_the_squared_weights_times_the_outputs_derivatives() -> None:
    model = graph(
        "t = MatMul(x, w) y = MatMul(t, k)", "float[3,4] w = {seed}, float[4,2] k = {seed}", x="1,3", y="1,2"
    )
    feeds = feeds_of(model, 3)
    k = np.array(constant(model.graph.initializers["k"]), np.float64)
    w = np.array(constant(model.graph.initializers["w"]), np.float64)
    (scores,) = Hessian().score(Request(model, couple(model), feeds, 0)).values()
    want = np.zeros(4)
    for feed in feeds:
        t: NDArray[np.float64] = feed["x"].astype(np.float64)[0] @ w
        size = np.square(t @ k).sum()
        want += 0.5 * np.square(t) * np.square(k).sum(axis=1) / size / len(feeds)
    np.testing.assert_allclose(scores, want, rtol=1e-5)


def test_a_dead_channel_is_worth_nothing() -> None:
    proto = to_proto(net())
    for tensor in proto.graph.initializer:
        if tensor.name in {"s", "o"}:
            array = np.array(np.frombuffer(tensor.raw_data, np.float32))
            array[2] = 0.0
            tensor.raw_data = array.tobytes()
    model = from_proto(proto)
    for name in ("taylor", "hessian"):
        scores = get(name).score(Request(model, couple(model), feeds_of(model, 2), 0))
        six = next(values for values in scores.values() if values.size == 6)
        assert six[2] == 0.0
        assert (np.delete(six, 2) > 0).all()


@pytest.mark.parametrize("name", ["taylor", "hessian"])
def test_the_same_seed_gives_the_same_scores(name: str) -> None:
    model = net()
    found = [get(name).score(Request(model, couple(model), feeds_of(model, 2), seed)) for seed in (0, 0, 1)]
    for group, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][group])
    assert any((values != found[2][group]).any() for group, values in found[0].items())


def test_every_group_is_scored_in_a_net_with_attention_and_shared_weights() -> None:
    model = graph(
        """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) kt = Transpose<perm=[0,2,1]>(k)
           s = MatMul(q, kt) p = Softmax<axis=-1>(s) o = MatMul(p, v) a = MatMul(o, wo) b = Add(a, x)
           h = MatMul(b, m) i = Sigmoid(h) c = MatMul(i, m2) d = Tanh(c) e = MatMul(d, m3) f = MatMul(e, m4)
           y = MatMul(f, m4)""",
        """float[8,6] wq = {seed}, float[8,6] wk = {seed}, float[8,6] wv = {seed}, float[6,8] wo = {seed},
           float[8,7] m = {seed}, float[7,5] m2 = {seed}, float[5,4] m3 = {seed}, float[4,4] m4 = {seed}""",
        x="2,3,8",
        y="2,3,4",
    )
    coupling = couple(model)
    for name in ("taylor", "hessian"):
        scores = get(name).score(Request(model, coupling, feeds_of(model, 2), 0))
        assert scores.keys() == {group.name for group in coupling.groups}
        for group in coupling.groups:
            assert scores[group.name].shape == (group.atoms,)
            assert (scores[group.name] > 0).all()


def test_the_loss_may_be_cross_entropy_or_the_users_own() -> None:
    model, feeds = net(), feeds_of(net(), 2)
    entropy = Taylor(loss="cross-entropy").score(Request(model, couple(model), feeds, 0))
    assert all((values > 0).all() for values in entropy.values())
    soft = graph(
        NET.replace("y = Gemm(f, q)", "z = Gemm(f, q) y = Softmax(z)"), WEIGHTS, x="2,3,8,8", y="2,4"
    )
    shares = Taylor(loss="cross-entropy").score(Request(soft, couple(soft), feeds, 0))
    for a, b in zip(entropy.values(), shares.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)
    own = Taylor(loss=f"{HERE}:squares").score(Request(model, couple(model), feeds, 0))
    assert any((values != entropy[group]).any() for group, values in own.items())
    with pytest.raises(DataError, match="broken_loss' failed: IndexError"):
        Taylor(loss=f"{HERE}:broken_loss").score(Request(model, couple(model), feeds, 0))


def test_wrong_losses_and_data_are_one_line() -> None:
    model = net()
    with pytest.raises(
        UsageError, match="no loss is called 'mse'; there are output, cross-entropy and module"
    ):
        find_loss("mse")
    with pytest.raises(UsageError, match="needs data"):
        Taylor().score(Request(model, couple(model), None, 0))
    with pytest.raises(DataError, match="needs samples"):
        Taylor().score(Request(model, couple(model), [], 0))
    image = graph("t = Conv(x, w) y = Relu(t)", "float[4,3,1,1] w = {seed}", x="1,3,4,4", y="1,4,4,4")
    with pytest.raises(UsageError, match=r"outputs \[samples, classes\], not \[1, 4, 4, 4\]"):
        Taylor(loss="cross-entropy").score(Request(image, couple(image), feeds_of(image, 1), 0))
