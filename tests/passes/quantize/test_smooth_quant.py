# SPDX-License-Identifier: Apache-2.0
"""Smoothed activations have even channels, outputs stay, and values that cannot be scaled are left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.calibration.channels import channel_maxima
from tersor.graph_ir import Model, UsageError, constant, signature_of, tensor, verify
from tersor.passes.base import Context
from tersor.passes.quantize.facts import MAXIMA
from tersor.passes.quantize.smooth_quant import SmoothQuant, values_for_maxima
from tests.support.numerics import assert_rounding, feeds_for, run_onnxruntime, snapshot
from tests.support.rewriting import model_of

NORM = "n = LayerNormalization(x, g, b)"
PARTS = "m0 = Mul(x, g) n = Add(b, m0)"
QKV = "q = MatMul(n, w1) k = MatMul(n, w2) y = Add(q, k)"
WEIGHTS = """float[16] g = {seed}, float[16] b = {seed}, float[16,12] w1 = {seed}, float[16,12] w2 = {seed},
    float[16,16] w3 = {seed}, float[1] one = {1.0}"""


def model_with_outliers(body: str, y: str = "float[2,5,12] y") -> Model:
    """A normalised value with two channels far larger than the others."""
    model = model_of(body, WEIGHTS, x="float[2,5,16] x", y=y)
    for value in model.graph.initializers.values():
        array = constant(value)
        if value.name in ("g", "b") and array is not None:
            large = np.where(np.isin(np.arange(16), [3, 11]), 40, 1)
            value.const_value = tensor(np.asarray((np.abs(array) + 0.5) * large, np.float32), name=value.name)
    infer_shapes(model)
    return model


def smoothed(model: Model, options: SmoothQuant) -> tuple[bool, Context, Any]:
    """Run the pass with maxima measured on two feeds, hold it to its claim; the model before, too."""
    before, signature = snapshot(model), signature_of(model)
    feeds = [feeds_for(before, seed) for seed in (0, 1)]
    facts = {MAXIMA: channel_maxima(model, feeds, values_for_maxima(model))}
    ctx = Context(facts=facts)
    changed = options.run(model, ctx)
    verify(model, signature)
    assert (MAXIMA in ctx.facts) is not changed, "what was measured holds no longer"
    if changed:
        assert_rounding(before, snapshot(model), feeds)
    else:
        assert snapshot(model) == before
    return changed, ctx, before


def ratio(model: Model, name: str) -> float:
    """The largest channel of a value over its median one."""
    peaks = channel_maxima(model, [feeds_for(snapshot(model), 0)], {name: -1})[name]
    return float(peaks.max() / np.median(peaks))


@pytest.mark.parametrize("norm", [NORM, PARTS, "n = Mul(g, x)"])
def test_channels_become_even(norm: str) -> None:
    model = model_with_outliers(f"{norm} {QKV}")
    uneven = ratio(model, "n")
    changed, ctx, _ = smoothed(model, SmoothQuant(alpha=0.8))
    assert changed
    assert ctx.counters["smooth-quant"] == 1
    assert ratio(model, "n") < 0.35 * uneven


def test_alpha_one_moves_all_of_it() -> None:
    model = model_with_outliers(f"{NORM} {QKV}")
    smoothed(model, SmoothQuant(alpha=1.0))
    assert ratio(model, "n") == pytest.approx(1, rel=0.05)


def test_a_residual_gets_the_whole_value_back() -> None:
    body = f"{NORM} q = MatMul(n, w3) y = Add(q, n)"
    model = model_with_outliers(body, "float[2,5,16] y")
    changed, _, _ = smoothed(model, SmoothQuant())
    assert changed
    assert [n.op_type for n in model.graph].count("Mul") == 1
    again = model_with_outliers(body, "float[2,5,16] y")
    changed, ctx, _ = smoothed(again, SmoothQuant(restore=False))
    assert not changed
    assert ("smooth-quant", "others read the value") in ctx.misses


@pytest.mark.parametrize(
    ("body", "y"),
    [
        (f"{NORM} y = MatMul(n, w3)", "float[2,5,16] y, float[2,5,16] n"),
        ("n = LayerNormalization<axis=1>(x, x) y = MatMul(n, w1)", "float[2,5,12] y"),
        ("n = Mul(x, one) y = MatMul(n, w1)", "float[2,5,12] y"),
        (f"{NORM} r = Softmax(n) y = MatMul(r, w1)", "float[2,5,12] y"),
        (f"{NORM} t = Transpose<perm=[0,2,1]>(n) y = Identity(t)", "float[2,16,5] y"),
    ],
)
def test_others_are_left_alone(body: str, y: str) -> None:
    changed, _, _ = smoothed(model_with_outliers(body, y), SmoothQuant())
    assert not changed


def test_between_layers_through_a_relu() -> None:
    weights = "float[8,4,3,3] w1 = {seed}, float[8] b1 = {seed}, float[6,8,3,3] w2 = {seed}"
    text = "c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2)"
    for wanted in (True, False):
        model = model_of(text, weights, x="float[2,4,9,9] x", y="float[2,6,5,5] y")
        infer_shapes(model)
        changed, _, _ = smoothed(model, SmoothQuant(alpha=0.9, between_layers=wanted))
        assert changed is wanted


def test_a_value_that_was_not_measured_is_left_alone() -> None:
    model = model_with_outliers(f"{NORM} {QKV}")
    ctx = Context(facts={MAXIMA: {}})
    assert not SmoothQuant().run(model, ctx)
    assert ("smooth-quant", "no maxima of its channels were measured") in ctx.misses
    with pytest.raises(UsageError, match="calibrate first"):
        SmoothQuant().run(model, Context())


def test_maxima_are_the_largest_magnitudes_of_each_channel() -> None:
    model = model_with_outliers(f"{NORM} {QKV}")
    feeds = [feeds_for(snapshot(model), seed) for seed in range(3)]
    found = channel_maxima(model, feeds, {"n": -1, "x": 1})
    shown = model_of(NORM + " y = Identity(n)", WEIGHTS, x="float[2,5,16] x", y="float[2,5,16] y")
    for name in ("g", "b"):
        shown.graph.initializers[name].const_value = model.graph.initializers[name].const_value
    runs = [run_onnxruntime(shown, feed) for feed in feeds]
    values = np.stack([run[0] for run in runs if run is not None])
    np.testing.assert_allclose(found["n"], np.abs(values).max(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(found["x"], np.abs([f["x"] for f in feeds]).max(axis=(0, 1, 3)))
