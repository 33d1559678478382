# SPDX-License-Identifier: Apache-2.0
"""Channels taken of a convolution, as a convolution of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.slice_filters import SliceFilters
from tests.support.rewriting import Rewritten, declined, model_of, rewrite

PASS = (SliceFilters(), EliminateDeadCode())
X = "float[N,4,6,6] x"
FEW = "float[32,4,3,3] w = {seed}, float[32] b = {seed}, "
CONV = "c = Conv<pads = [1,1,1,1]>(x, w, b) "
WHOLE = "z = Relu(c) "


def bounds(start: int = 0, end: int = 2**31 - 1, axis: int = 1, step: int = 2) -> str:
    return (
        f"int64[1] s = {{{start}}}, int64[1] e = {{{end}}}, int64[1] a = {{{axis}}}, int64[1] k = {{{step}}}"
    )


def made(body: str, taken: str | None = None, weights: str = FEW, y: str = "float[N,c,h,w] y") -> Model:
    model = model_of(body, weights + (bounds() if taken is None else taken), x=X, y=y)
    infer_shapes(model)
    return model


BOTH = "float[N,32,6,6] z, float[N,c,h,w] y"


def test_text_in_text_out() -> None:
    done = rewrite(PASS, made(CONV + "r = Relu(c) y = Slice(r, s, e, a, k)"), N=2)
    assert done.ops == ["Conv", "Relu"]
    assert "float[16,4,3,3] w_taken" in done.text
    assert "float[16] b_taken" in done.text


def test_others_keep_the_whole() -> None:
    done = rewrite(PASS, made(CONV + WHOLE + "y = Slice(z, s, e, a, k)", y=BOTH), N=2)
    assert done.ops == ["Conv", "Relu", "Conv", "Relu"]


@pytest.mark.parametrize(
    "act",
    [
        "LeakyRelu<alpha = 0.2>(c)", "Clip(c, low, high)", "HardSwish(c)", "Sigmoid(c)",
        "HardSigmoid<alpha = 0.3>(c)", "Tanh(c)",
    ],
)  # fmt: skip
def test_activations_between(act: str) -> None:
    weights = FEW + "float low = {-0.5}, float high = {0.5}, "
    done = rewrite(PASS, made(f"{CONV} r = {act} y = Slice(r, s, e, a, k)", weights=weights), N=1)
    assert done.ops == ["Conv", act.partition("<")[0].partition("(")[0]]


@given(st.integers(-35, 35), st.integers(-40, 40), st.integers(-5, 5).filter(bool), st.booleans())
def test_any_bounds(start: int, end: int, step: int, biased: bool) -> None:
    conv = CONV if biased else "c = Conv<strides = [2,2]>(x, w) "
    model = made(conv + "y = Slice(c, s, e, a, k)", bounds(start, end, -3, step))
    done: Rewritten = rewrite(PASS, model, N=1)
    empty = not range(32)[start:end:step]
    assert done.ops == (["Conv", "Slice"] if empty else ["Conv"])


def test_without_axes_and_steps() -> None:
    weights = FEW + "int64[2] s = {0, 8}, int64[2] e = {9, 20}"
    model = model_of(CONV + "y = Slice(c, s, e)", weights, x=X, y="float[N,c,h,w] y")
    assert declined(SliceFilters(), model) == {"not a slice of channels alone"}


@pytest.mark.parametrize(
    ("body", "taken", "weights", "y", "reason"),
    [
        (CONV + WHOLE + "y = Slice(z, s, e, a, k)", bounds(step=1, end=16), FEW, BOTH, "copying"),
        (CONV + WHOLE + "y = Slice(z, s, e, a, k)", bounds(step=3), FEW, BOTH, "copying"),
        (CONV + WHOLE + "y = Slice(c, s, e, a, k)", None, FEW.replace("3,3", "5,5"), BOTH, "copying"),
        (
            "c = Conv<group = 2>(x, w) y = Slice(c, s, e, a, k)",
            None,
            FEW.replace("4,3,3", "2,3,3"),
            "",
            "no conv",
        ),
        (CONV + "y = Slice(c, s, e, a, k)", bounds(axis=2), FEW, "", "channels alone"),
        (CONV + "y = Slice(c, s, e, a, k)", bounds(start=40), FEW, "", "nothing"),
        ("c = Exp(x) y = Slice(c, s, e, a, k)", None, FEW, "", "no conv"),
        ("v = Abs(w) c = Conv(x, v) y = Slice(c, s, e, a, k)", None, FEW, "", "no conv"),
        ("v = Abs(b) c = Conv(x, w, v) y = Slice(c, s, e, a, k)", None, FEW, "", "no conv"),
    ],
)
def test_near_misses(body: str, taken: str | None, weights: str, y: str, reason: str) -> None:
    (why,) = declined(SliceFilters(), made(body, taken, weights, y or "float[N,c,h,w] y"))
    assert reason in why


def test_bounds_that_are_computed() -> None:
    model = model_of(
        CONV + "y = Slice(c, s, e, a)", FEW + "int64[1] e = {9}, int64[1] a = {1}",
        x=f"{X}, int64[1] s", y="float[N,c,h,w] y",
    )  # fmt: skip
    assert declined(SliceFilters(), model) == {"not a slice of channels alone"}


def test_channels_that_are_an_output_are_computed_once_where_the_kernel_is_large() -> None:
    weights = FEW.replace("3,3", "5,5")
    model = made(CONV + "y = Slice(c, s, e, a, k)", weights=weights, y="float[N,32,a,b] c, float[N,d,h,w] y")
    (why,) = declined(SliceFilters(), model)
    assert "copying" in why


@pytest.mark.parametrize(
    ("outside", "inside"),
    [("c", "u = Slice(c, s, e, a, k)"), ("r", "u = Slice(r, s, e, a, k)"),
     ("c", "v = Relu(c) u = Slice(v, s, e, a, k)")],
)  # fmt: skip
def test_a_loop_does_not_convolve_each_time_what_was_convolved_once(outside: str, inside: str) -> None:
    act = "r = Relu(c)" if outside == "r" else ""
    body = (
        f"{CONV} {act} p = Conv<pads = [1,1,1,1]>(x, g) y = Loop (n, , p) <body = again (int64 i, bool go, "
        f"float[N,16,6,6] t) => (bool on, float[N,16,6,6] q) {{ {inside} q = Add(t, u) on = Identity(go) }}>"
    )
    weights = f"{FEW}float[16,4,3,3] g = {{seed}}, {bounds()}"
    model = model_of(body, weights, x=f"{X}, int64 n", y="float[N,16,6,6] y")
    infer_shapes(model)
    assert declined(SliceFilters(), model) == {"the convolution is of another graph"}
