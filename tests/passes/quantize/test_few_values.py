# SPDX-License-Identifier: Apache-2.0
"""Two or three weights per channel are the least squares choice, and int8 holds them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import Model, Node, UsageError, constant, signature_of, verify
from tersor.graph_ir.numerics import dequantize, quantize, weight_params
from tersor.passes.base import Context, Pass
from tersor.passes.quantize.binary import BinaryWeights
from tersor.passes.quantize.kinds import channel_axis
from tersor.passes.quantize.ternary import TernaryWeights
from tests.support.int8 import feeds_of, graph, run
from tests.support.numerics import snapshot

LAYERS = [
    ("y = Conv(x, w)", "float[8,6,3,3] w = {seed}", "1,6,9,9"),
    ("y = Conv<group=6>(x, w)", "float[6,1,3,3] w = {seed}", "1,6,9,9"),
    ("y = Gemm<transB=1>(x, w)", "float[8,24] w = {seed}", "4,24"),
    ("y = MatMul(x, w)", "float[24,8] w = {seed}", "2,4,24"),
]


def rows_of(node: Node) -> NDArray[Any]:
    """The weights of each output channel."""
    array = constant(node.inputs[1])
    assert array is not None
    moved = np.moveaxis(array, channel_axis(node), 0)
    return moved.reshape(len(moved), -1)


def changed(pass_: Pass, model: Model) -> tuple[bool, Context]:
    ctx, signature = Context(), signature_of(model)
    done = pass_.run(model, ctx)
    verify(model, signature)
    return done, ctx


@pytest.mark.parametrize("pass_", [TernaryWeights(keep_ends=False), BinaryWeights(keep_ends=False)])
@pytest.mark.parametrize(("body", "weights", "x"), LAYERS)
def test_each_channel_has_few_weights_at_the_best_distance(
    pass_: Pass, body: str, weights: str, x: str
) -> None:
    model = graph(body, weights, x=x)
    before = np.array(rows_of(model.graph.node(0)), np.float64)
    assert changed(pass_, model)[0]
    node = model.graph.node(0)
    after = rows_of(node)
    assert max(len(np.unique(row)) for row in after) <= 3
    # The least squares factor of a pattern p is <w, p> / <p, p>.
    pattern = np.sign(after).astype(np.float64)
    step = (before * pattern).sum(1) / np.square(pattern).sum(1)
    np.testing.assert_allclose(np.abs(after).max(1), step, rtol=1e-6)
    weights_now = constant(node.inputs[1])
    assert weights_now is not None
    params = weight_params(weights_now, channel_axis(node))
    np.testing.assert_allclose(
        dequantize(quantize(weights_now, params), params), weights_now, rtol=3e-7, atol=0
    )
    feed = feeds_of(model)[0]
    assert np.isfinite(run(snapshot(model), feed, off=True)[0]).all()


def test_the_threshold_is_that_of_the_paper() -> None:
    model = graph(*LAYERS[2][:2], x=LAYERS[2][2])
    before = rows_of(model.graph.node(0))
    changed(TernaryWeights(keep_ends=False), model)
    after = rows_of(model.graph.node(0))
    np.testing.assert_array_equal(after != 0, np.abs(before) > 0.7 * np.abs(before).mean(1, keepdims=True))


def test_first_and_last_layers_stay() -> None:
    body = "a = MatMul(x, w1) r = Relu(a) b = MatMul(r, w2) s = Relu(b) y = MatMul(s, w3)"
    weights = ", ".join(f"float[8,8] w{i} = {{seed}}" for i in (1, 2, 3))
    model = graph(body, weights, x="4,8")
    _, ctx = changed(BinaryWeights(), model)
    assert ctx.counters["binary-weights"] == 1
    products = [n for n in model.graph if n.op_type == "MatMul"]
    assert [len(np.unique(np.abs(rows_of(n)[0]))) for n in products] == [8, 1, 8]
    assert ctx.misses["binary-weights", "it is a first or last layer"] == 2
    assert not changed(BinaryWeights(exclude=("MatMul(b)",)), graph(body, weights, x="4,8"))[0]


def test_dead_channels_and_other_operators_stay() -> None:
    model = graph("t = Transpose<perm=[1,0]>(x) y = MatMul(x, t)", "", x="4,8")
    assert not changed(TernaryWeights(keep_ends=False), model)[0]
    model = graph("y = MatMul(x, w)", "float[2,2] w = {0, 0, 0, 0}", x="4,2")
    for pass_ in (TernaryWeights(keep_ends=False), BinaryWeights(keep_ends=False)):
        assert not changed(pass_, model)[0]
    with pytest.raises(UsageError, match="threshold"):
        TernaryWeights(threshold=-1)
