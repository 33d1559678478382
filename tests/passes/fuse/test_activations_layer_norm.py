# SPDX-License-Identifier: Apache-2.0
"""LayerNormalization from its parts, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.passes.fuse.layer_norm import FuseLayerNorm
from tests.support.numerics import run_onnxruntime
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite

FUSE = FuseLayerNorm()
WEIGHTS = (
    "float[8] scale = {seed}, float[8] bias = {seed}, float two = {2}, float epsilon = {0.00001}, "
    "float zero = {0}, int64[1] last = {-1}"
)
PORTS: Ports = {"x": "float[N,4,8] x", "y": "float[N,4,8] y"}
MEAN = "mean = ReduceMean<axes = [-1]>(x) d = Sub(x, mean)"
POW = "s = Pow(d, two)"
REST = "v = ReduceMean<axes = [-1]>(s) e = Add(v, epsilon) r = Sqrt(e)"
MOMENT = "v = ReduceMean<axes = [-1]>(s) mean2 = Mul(mean, mean) w = Sub(v, mean2)"
POOL = ("ReduceMean<axes = [-1]>", "GlobalAveragePool")
FACTOR = "i = Reciprocal(r) f = Mul(i, scale) k = Mul(x, f)"
DIV = "n = Div(d, r)"
AFFINE = "m = Mul(n, scale) y = Add(m, bias)"


@pytest.mark.parametrize(
    "body",
    [
        f"{MEAN} {POW} {REST} {DIV} {AFFINE}",
        f"{MEAN} s = Mul(d, d) {REST} {DIV} m = Mul(scale, n) y = Add(bias, m)",
        f"{MEAN} {POW} {REST} i = Reciprocal(r) n = Mul(i, d) {AFFINE}",
        f"{MEAN} d2 = Sub(x, mean) s = Pow(d2, two) {REST} {DIV} {AFFINE}",
        f"{MEAN} {POW} {REST} {DIV} {AFFINE}".replace("[-1]", "[2]"),
        f"{MEAN} s = Mul(d, d) {REST} {FACTOR} g = Neg(mean) h = Mul(g, f) l = Add(h, bias) y = Add(k, l)",
        f"{MEAN} s = Mul(d, d) {REST} {FACTOR} h = Mul(f, mean) l = Sub(bias, h) y = Add(l, k)",
        f"{MEAN} s = Mul(d, d) {REST} {FACTOR} h = Mul(f, mean) l = Sub(bias, h) y = Add(l, k)".replace(
            *POOL
        ),
        f"{MEAN} s = Mul(x, x) {MOMENT} e = Add(w, epsilon) r = Sqrt(e) {DIV} {AFFINE}",
        f"{MEAN} s = Pow(x, two) {MOMENT} u = Max(w, zero) e = Add(u, epsilon) r = Sqrt(e) {DIV} {AFFINE}",
    ],
)
def test_every_spelling(body: str) -> None:
    done = rewrite(FUSE, model_of(body, WEIGHTS, **PORTS), N=3)
    assert done.ops == ["LayerNormalization"]
    assert "axis=-1, epsilon=9.99" in done.text
    assert "(x, scale, bias)" in done.text


def test_without_bias() -> None:
    done = rewrite(FUSE, model_of(f"{MEAN} {POW} {REST} {DIV} y = Mul(n, scale)", WEIGHTS, **PORTS), N=3)
    assert done.ops == ["LayerNormalization"]
    assert "(x, scale)" in done.text


def test_axes_as_inputs() -> None:
    body = f"{MEAN} {POW} {REST} {DIV} {AFFINE}".replace("<axes = [-1]>(x)", "(x, last)").replace(
        "<axes = [-1]>(s)", "(s, last)"
    )
    assert rewrite(FUSE, model_of(body, WEIGHTS, opset=18, **PORTS), N=3).ops == ["LayerNormalization"]


def test_two_axes_and_leading_ones() -> None:
    body = f"{MEAN} {POW} {REST} {DIV} {AFFINE}".replace("[-1]", "[1, 2]")
    weights = WEIGHTS.replace("float[8] scale", "float[1,4,8] scale").replace(
        "float[8] bias", "float[4,8] bias"
    )
    done = rewrite(FUSE, model_of(body, weights, **PORTS), N=3)
    assert done.ops == ["LayerNormalization"]
    assert "axis=-2" in done.text
    assert "float[4,8] scale_1" in done.text


def test_below_opset_17_only_when_asked_to_raise_it() -> None:
    body = f"{MEAN} {POW} {REST} {DIV} {AFFINE}"
    assert declined(FUSE, model_of(body, WEIGHTS, opset=11, **PORTS)) == {"needs opset 17"}
    done = rewrite(FuseLayerNorm(raise_opset=True), model_of(body, WEIGHTS, opset=11, **PORTS), N=3)
    assert done.ops == ["LayerNormalization"]
    assert "opset ai.onnx 17\n" in done.text


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<axes = [-1]>(s)", "<axes = [1]>(s)", "means over other axes"),
        ("[-1]", "[1]", "not the last axes"),
        ("m = Mul(n, scale)", "m = Mul(n, two)", "scale is not of the normalised size"),
        ("m = Mul(n, scale)", "m = Mul(n, rows)", "scale is not of the normalised size"),
        ("e = Add(v, epsilon)", "e = Add(v, last)", "epsilon is not one positive number"),
        ("e = Add(v, epsilon)", "e = Add(v, none)", "epsilon is not one positive number"),
        ("e = Add(v, epsilon)", "e = Add(v, scale)", "epsilon is not one positive number"),
        ("s = Pow(d, two)", "s = Pow(d, epsilon)", None),
        ("s = Pow(d, two)", "s = Pow(d, more)", "another power or numerator"),
        ("d = Sub(x, mean)", "d = Sub(mean, x)", None),
    ],
)
def test_near_misses(old: str, new: str, reason: str | None) -> None:
    body = f"{MEAN} {POW} {REST} {DIV} {AFFINE}".replace(old, new)
    weights = (
        WEIGHTS.replace("int64[1] last = {-1}", "float last = {-1}")
        + ", float none = {0}, float more = {2.01}, float[4,1] rows = {seed}"
    )
    found = declined(FUSE, model_of(body, weights, **PORTS))
    assert found == set() if reason is None else reason in found


def test_a_sum_with_a_whole_tensor_is_no_bias() -> None:
    body = f"{MEAN} {POW} {REST} {DIV} m = Mul(n, scale) y = Add(m, x)"
    assert rewrite(FUSE, model_of(body, WEIGHTS, **PORTS), N=3).ops == ["LayerNormalization", "Add"]


def test_unknown_size_is_left_alone() -> None:
    body = f"{MEAN} {POW} {REST} {DIV} {AFFINE}"
    ports: Ports = {"x": "float[N,4,C] x", "y": "float[N,4,8] y"}
    assert "normalised size not known" in declined(FUSE, model_of(body, WEIGHTS, **ports))


def test_a_part_read_elsewhere_stays() -> None:
    ports: Ports = {"x": "float[N,4,8] x", "y": "float[N,4,8] y, float[N,4,1] v"}
    assert declined(FUSE, model_of(f"{MEAN} {POW} {REST} {DIV} {AFFINE}", WEIGHTS, **ports)) == set()


def test_scale_that_the_caller_may_override_is_still_a_tensor_of_the_right_size() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,8] x, float[8] scale, float[8] bias) => (float[2,8] y) <
      float two = {2}, float epsilon = {0.001}> {
      %s }"""
    done = rewrite(FUSE, parse(text % f"{MEAN} {POW} {REST} {DIV} {AFFINE}"))
    assert done.ops == ["LayerNormalization"]


def test_in_a_loop_body() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64 count, float[2,8] x0) => (float[2,8] y0) <
      float[8] scale = {seed}, float[8] bias = {seed}, float two = {2}, float epsilon = {0.001}> {
      y0 = Loop (count, , x0) <body = b (int64 i, bool c, float[2,8] x) => (bool o, float[2,8] y) {
        o = Identity(c) %s }>
    }"""
    done = rewrite(FUSE, parse(text % f"{MEAN} {POW} {REST} {DIV} {AFFINE}"), numbers=False)
    assert done.ops == ["Loop", "Identity", "LayerNormalization"]
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    runs = [run_onnxruntime(m, {"count": np.array(2), "x0": x}) for m in (done.before, done.model)]
    assert runs[0] is not None
    assert runs[1] is not None
    np.testing.assert_allclose(runs[1][0], runs[0][0], rtol=0, atol=4e-6)


@pytest.mark.parametrize(
    "level",
    [
        "h = Mul(f, mean) l = Sub(h, bias)",
        "h = Mul(i, mean) l = Sub(bias, h)",
        "h = Mul(f, mean) l = Add(h, bias)",
    ],
)
def test_other_levels(level: str) -> None:
    body = f"{MEAN} s = Mul(d, d) {REST} {FACTOR} {level} y = Add(k, l)"
    assert declined(FUSE, model_of(body, WEIGHTS, **PORTS)) == set()


@pytest.mark.parametrize(
    "other",
    ["mean2 = Mul(mean, x) w = Sub(v, mean2)", "mean2 = Mul(mean, mean) w = Sub(mean2, v)"],
)
def test_other_moments(other: str) -> None:
    spread = f"s = Mul(x, x) v = ReduceMean<axes = [-1]>(s) {other} e = Add(w, epsilon) r = Sqrt(e)"
    body = f"{MEAN} {spread} {DIV} {AFFINE}"
    assert declined(FUSE, model_of(body, WEIGHTS, **PORTS)) == set()


def test_a_floor_above_zero_is_no_variance() -> None:
    spread = f"s = Mul(x, x) {MOMENT} u = Max(w, epsilon) e = Add(u, epsilon) r = Sqrt(e)"
    assert declined(FUSE, model_of(f"{MEAN} {spread} {DIV} {AFFINE}", WEIGHTS, **PORTS)) == set()
