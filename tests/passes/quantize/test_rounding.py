# SPDX-License-Identifier: Apache-2.0
"""Weights rounded by data give closer outputs than the nearest codes, and their codes are found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.calibration.moments import second_moments
from tersor.graph_ir import Model, Node, UsageError, constant, signature_of, tensor, verify
from tersor.graph_ir.numerics import dequantize, quantize, weight_params
from tersor.graph_ir.ops import int_attr
from tersor.passes.base import Context, Pass
from tersor.passes.quantize.adaptive_rounding import AdaptiveRounding
from tersor.passes.quantize.facts import MOMENTS
from tersor.passes.quantize.gptq import Gptq
from tersor.passes.quantize.kinds import channel_axis
from tersor.passes.quantize.patches import patches_to_observe
from tersor.passes.quantize.row_grid import block_grid
from tests.support.int8 import Feed, graph, run
from tests.support.numerics import snapshot

CASES = [
    ("y = Conv<pads=[1,1,1,1]>(x, w, b)", "float[8,6,3,3] w = {seed}, float[8] b = {seed}", "1,6,9,9"),
    ("y = Conv<group=6, strides=[2,2]>(x, w)", "float[6,1,3,3] w = {seed}", "1,6,9,9"),
    (
        "y = Conv<group=2, dilations=[2,1]>(x, w, b)",
        "float[8,3,3,2] w = {seed}, float[8] b = {seed}",
        "1,6,9,9",
    ),
    ("y = Gemm<transB=1>(x, w, b)", "float[8,24] w = {seed}, float[8] b = {seed}", "16,24"),
    ("y = Gemm(x, w)", "float[24,8] w = {seed}", "16,24"),
    ("m = MatMul(x, w) y = Add(m, b)", "float[24,8] w = {seed}, float[8] b = {seed}", "2,9,24"),
    ("y = MatMul(x, w)", "float[24,8] w = {seed}", "2,9,24"),
]


def correlated(model: Model) -> list[Feed]:
    """Feeds whose elements depend on each other and have a mean, as activations do."""
    rng = np.random.default_rng(3)
    shape = [d if isinstance(d, int) else 1 for d in model.graph.inputs[0].shape or ()]
    axis = 1 if len(shape) == 4 else -1
    mix = rng.standard_normal((shape[axis], shape[axis])) * np.exp(rng.uniform(-1, 1, shape[axis]))
    feeds: list[Feed] = []
    for _ in range(12):
        plain = np.moveaxis(rng.standard_normal(shape), axis, -1) @ mix + 0.5
        smooth = np.cumsum(plain, axis=1) if len(shape) == 4 else plain
        feeds.append({"x": np.moveaxis(smooth, -1, axis).astype(np.float32)})
    return feeds


def rounded(pass_: Pass, model: Model, feeds: list[Feed]) -> tuple[bool, Context]:
    ctx = Context(facts={MOMENTS: second_moments(model, feeds, patches_to_observe(model), rows=10**6)})
    signature = signature_of(model)
    changed = pass_.run(model, ctx)
    verify(model, signature)
    return changed, ctx


def linear(model: Model) -> Node:
    return next(n for n in model.graph if n.op_type in ("Conv", "Gemm", "MatMul"))


def weights_of(model: Model) -> NDArray[Any]:
    array = constant(linear(model).inputs[1])
    assert array is not None
    return array


def error(before: Any, after: Model, feeds: list[Feed]) -> float:
    """Mean squared error of the outputs over the feeds."""
    proto = snapshot(after)
    moved = [run(proto, f, off=True)[0].astype(np.float64) - run(before, f, off=True)[0] for f in feeds]
    return float(np.mean([np.square(m).mean() for m in moved]))


def nearest(model: Model, bits: int) -> Model:
    """The model with each weight rounded to the nearest code."""
    node = linear(model)
    w = weights_of(model)
    params = weight_params(w, channel_axis(node), bits=bits)
    model.graph.initializers["w"].const_value = tensor(dequantize(quantize(w, params), params), name="w")
    return model


@pytest.mark.parametrize("pass_", [Gptq(bits=4), AdaptiveRounding(bits=4)], ids=["gptq", "adaptive"])
@pytest.mark.parametrize(("body", "weights", "x"), CASES)
def test_outputs_are_closer_than_with_the_nearest_codes(pass_: Pass, body: str, weights: str, x: str) -> None:
    model = graph(body, weights, x=x)
    feeds, before = correlated(model), snapshot(model)
    changed, ctx = rounded(pass_, model, feeds)
    assert changed
    assert ctx.counters[pass_.name] == 1
    base = error(before, nearest(graph(body, weights, x=x), 4), feeds)
    assert error(before, model, feeds) < 0.8 * base


@pytest.mark.parametrize("pass_", [Gptq(bits=8), AdaptiveRounding(bits=7), Gptq(bits=8, mse=True)])
@pytest.mark.parametrize(("body", "weights", "x"), CASES)
def test_the_same_grid_and_codes_are_found_again(pass_: Any, body: str, weights: str, x: str) -> None:
    model = graph(body, weights, x=x)
    rounded(pass_, model, correlated(model))
    w, axis = weights_of(model), channel_axis(linear(model))
    params = weight_params(w, axis, bits=pass_.bits)
    steps = np.moveaxis(w, axis, -1) / params.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    codes = quantize(w, params)
    assert np.abs(codes).reshape(-1).max() == 2 ** (pass_.bits - 1) - 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("make", [Gptq, AdaptiveRounding])
def test_groups_are_found_again_too(make: Any, symmetric: bool) -> None:
    body, weights, x = "y = Gemm<transB=1>(x, w)", "float[8,72] w = {seed}", "16,72"
    model = graph(body, weights, x=x)
    before = weights_of(model)
    rounded(make(bits=4, group=32, symmetric=symmetric), model, correlated(model))
    after = weights_of(model)
    grid = block_grid(before, 4, 32, symmetric=symmetric)
    again = block_grid(after, 4, 32, symmetric=symmetric)
    np.testing.assert_allclose(again.scale, grid.scale, rtol=1e-6)
    np.testing.assert_array_equal(again.zero, grid.zero)
    np.testing.assert_allclose(again.dequantize(again.quantize(after)), after, rtol=1e-6, atol=1e-9)
    assert not np.array_equal(again.quantize(after), grid.quantize(before)), "it is not just the nearest"


def test_adaptive_rounding_takes_one_of_the_two_codes_around_a_weight() -> None:
    body, weights, x = CASES[0]
    model = graph(body, weights, x=x)
    before = weights_of(model)
    params = weight_params(before, 0, bits=4)
    rounded(AdaptiveRounding(bits=4), model, correlated(model))
    moved = np.abs(weights_of(model) - before) / params.scale.reshape(-1, 1, 1, 1)
    assert moved.max() < 1.0 + 1e-5
    assert moved.max() > 0.5


def test_the_mean_of_the_error_goes_into_the_bias() -> None:
    body, weights, x = CASES[1]  # a convolution without bias
    model = graph(body, weights, x=x)
    feeds, before = correlated(model), snapshot(model)
    rounded(Gptq(bits=3), model, feeds)
    assert len(linear(model).inputs) == 3
    proto = snapshot(model)
    moved = [run(proto, f, off=True)[0].astype(np.float64) - run(before, f, off=True)[0] for f in feeds]
    mean = np.abs(np.mean(moved, axis=(0, 1, 3, 4)))
    assert mean.max() < 1e-4 * np.abs(np.asarray(moved)).max()


def test_shared_excluded_and_unmeasured_weights_are_left_alone() -> None:
    text, weights = "a = MatMul(x, w) y = MatMul(a, w)", "float[24,24] w = {seed}"
    for model, options, reason in (
        (graph(text, weights, x="4,24"), Gptq(), "its weights are shared"),
        (graph("y = MatMul(x, w)", weights, x="4,24"), Gptq(exclude=("MatMul(y)",)), "`exclude` names it"),
        (
            graph("t = Transpose(w) y = MatMul(x, t)", weights, x="4,24"),
            Gptq(),
            "both operands are activations",
        ),
    ):
        changed, ctx = rounded(options, model, correlated(model))
        assert not changed
        assert {r for _, r in ctx.misses} == {reason}
    model = graph("y = MatMul(x, w)", weights, x="4,24")
    ctx = Context(facts={MOMENTS: {}})
    assert not Gptq().run(model, ctx)
    assert ("gptq", "its inputs were not measured") in ctx.misses
    with pytest.raises(UsageError, match="second moments"):
        Gptq().run(model, Context())


@pytest.mark.parametrize(
    "options",
    [{"bits": 1}, {"bits": 9}, {"bits": 3, "group": 32}, {"group": -1}, {"damp": 0.0}, {"sweeps": -1}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Gptq(**options)


def test_it_is_the_same_every_time() -> None:
    body, weights, x = CASES[0]
    done: list[bytes] = []
    for _ in range(2):
        model = graph(body, weights, x=x)
        rounded(Gptq(bits=4), model, correlated(model))
        done.append(weights_of(model).tobytes())
    assert done[0] == done[1]
    assert int_attr(linear(graph(body, weights, x=x)), "group", 1) == 1
