# SPDX-License-Identifier: Apache-2.0
"""Constants in front of a linear operator."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, to_proto
from tersor.passes.fuse.affine import FoldAffine
from tests.support.rewriting import declined, model_of, rewrite

FOLD = FoldAffine()
GROWS = "operand is not one value a channel, or may enlarge the input"


def made(body: str, weights: str, x: str, y: str) -> Model:
    seeded = ", ".join(f"{w} = {{seed}}" for w in weights.split(", "))
    return model_of(body, seeded, x=f"float[{x}] x", y=f"float[{y}] y")


def test_the_product_in_front_of_a_new_bias_is_declared_by_no_file() -> None:
    done = rewrite(FOLD, made("n = Add(x, c) y = MatMul(w, n)", "float[6,4] w, float[1] c", "4,3", "6,3"))
    assert done.ops == ["MatMul", "Add"]
    assert not to_proto(done.model).graph.value_info


@pytest.mark.parametrize("op", ["Mul(x, c)", "Div(x, c)", "Add(c, x)", "Sub(x, c)", "Sub(c, x)"])
@pytest.mark.parametrize("c", ["4,1,1", "1,4,1,1", "1"])
def test_before_a_conv(op: str, c: str) -> None:
    model = made(
        f"n = {op} y = Conv<group = 2>(n, w, k)",
        f"float[6,2,3,3] w, float[6] k, float[{c}] c",
        "1,4,5,5",
        "1,6,3,3",
    )
    assert rewrite(FOLD, model).ops == ["Conv"]


@pytest.mark.parametrize(
    ("body", "weights", "x", "y", "ops"),
    [
        (
            "n = Mul(x, c) y = Conv<pads = [1,1,1,1]>(n, w)",
            "float[6,4,3,3] w, float[4,1,1] c",
            "N,4,5,5",
            "N,6,5,5",
            ["Conv"],
        ),
        (
            'n = Mul(x, c) y = Conv<auto_pad = "SAME_LOWER">(n, w)',
            "float[6,4,3,3] w, float[1] c",
            "N,C,5,5",
            "N,6,5,5",
            ["Conv"],
        ),
        (
            "n = Mul(x, c) y = ConvTranspose<group = 2>(n, w)",
            "float[4,3,3,3] w, float[4,1,1] c",
            "1,4,5,5",
            "1,6,7,7",
            ["ConvTranspose"],
        ),
        (
            "n = Sub(x, c) y = Gemm<alpha = 0.5, beta = 2.0>(n, w, k)",
            "float[4,6] w, float[6] k, float[4] c",
            "3,4",
            "3,6",
            ["Gemm"],
        ),
        (
            "n = Add(x, c) y = Gemm<transA = 1, transB = 1>(n, w)",
            "float[6,4] w, float[4,1] c",
            "4,3",
            "3,6",
            ["Gemm"],
        ),
        ("n = Mul(x, c) y = MatMul(n, w)", "float[2,4,6] w, float[4] c", "3,4", "2,3,6", ["MatMul"]),
        ("n = Mul(x, c) y = MatMul(w, n)", "float[6,4] w, float[4,1] c", "2,4,3", "2,6,3", ["MatMul"]),
        ("n = Sub(x, c) y = MatMul(n, w)", "float[4,6] w, float[4] c", "2,3,4", "2,3,6", ["MatMul", "Add"]),
        (
            "n = Sub(x, c) p = MatMul(n, w) y = Add(p, k)",
            "float[4,6] w, float[4] c, float[6] k",
            "2,3,4",
            "2,3,6",
            ["MatMul", "Add"],
        ),
    ],
)
def test_before_the_others(body: str, weights: str, x: str, y: str, ops: list[str]) -> None:
    assert rewrite(FOLD, made(body, weights, x, y), C=4).ops == ops


@pytest.mark.parametrize(
    ("body", "weights", "x", "y", "reason"),
    [
        (
            "n = Add(x, c) y = Conv<pads = [1,1,1,1]>(n, w)",
            "float[6,4,3,3] w, float[4,1,1] c",
            "1,4,5,5",
            "1,6,5,5",
            "padding: a shift before it would not reach the border",
        ),
        (
            'n = Sub(x, c) y = Conv<auto_pad = "SAME_UPPER">(n, w)',
            "float[6,4,3,3] w, float[1] c",
            "1,4,5,5",
            "1,6,5,5",
            "padding: a shift before it would not reach the border",
        ),
        (
            "n = Add(x, c) y = ConvTranspose(n, w)",
            "float[4,6,3,3] w, float[1] c",
            "1,4,5,5",
            "1,6,7,7",
            "padding: a shift before it would not reach the border",
        ),
        (
            "n = Mul(x, c) y = Conv(n, w)",
            "float[6,4,3,3] w, float[4,1,1] c",
            "1,1,5,5",
            "1,6,3,3",
            "input channels are unknown",
        ),
        (
            "n = Mul(x, c) y = Conv(n, w)",
            "float[6,4,3,3] w, float[4,1,1] c",
            "1,C,5,5",
            "1,6,3,3",
            "input channels are unknown",
        ),
        ("n = Mul(x, c) y = Conv(n, w)", "float[6,4,3,3] w, float[1,1,1,1] c", "4,5,5", "1,6,3,3", GROWS),
        ("n = Mul(x, c) y = Conv(n, w)", "float[6,4,3,3] w, float[2,1,1,1] c", "1,4,5,5", "2,6,3,3", GROWS),
        ("n = Mul(x, c) y = Conv(n, w)", "float[6,4,3,3] w, float[5] c", "1,4,5,5", "1,6,3,3", GROWS),
        ("n = Mul(x, c) y = MatMul(n, w)", "float[4,6] w, float[3,1] c", "3,4", "3,6", GROWS),
        ("n = Mul(x, c) y = MatMul(n, w)", "float[4,6] w, float[1,4] c", "4", "1,6", GROWS),
        (
            "n = Div(c, x) y = MatMul(n, w)",
            "float[4,6] w, float[4] c",
            "3,4",
            "3,6",
            "constant is the dividend",
        ),
        (
            "n = Add(x, c) y = MatMul(n, w)",
            "float[2,4,6] w, float[4] c",
            "3,4",
            "2,3,6",
            "weight is a batch: the shift is no bias",
        ),
    ],
)
def test_near_misses(body: str, weights: str, x: str, y: str, reason: str) -> None:
    assert declined(FOLD, made(body, weights, x, y)) == {reason}


def test_unknown_input_shape_takes_only_what_cannot_enlarge_it() -> None:
    def unknown(c: str) -> Model:
        return model_of(
            "r = Reshape(x, shape) n = Mul(r, c) y = Conv(n, w)",
            f"float[6,4,3,3] w = {{seed}}, float[{c}] c = {{seed}}",
            x="float[100] x, int64[K] shape",
            y="float[A,B,C,D] y",
        )

    assert declined(FOLD, unknown("1,1,1,1")) == {GROWS}
    assert declined(FOLD, unknown("4,1,1")) == {"input channels are unknown"}
    assert rewrite(FOLD, unknown("1,1,1"), numbers=False).ops == ["Reshape", "Conv"]


def test_option_keeps_what_is_in_front() -> None:
    model = made("n = Mul(x, c) y = Conv(n, w)", "float[6,4,3,3] w, float[1] c", "1,4,5,5", "1,6,3,3")
    declined(FoldAffine(before=False), model)


def test_result_in_front_is_an_output_or_read_twice() -> None:
    weights = "float[6,4,3,3] w = {seed}, float[1] c = {seed}"
    model = model_of(
        "n = Mul(x, c) y = Conv(n, w)", weights, x="float[1,4,5,5] x", y="float[1,6,3,3] y, float[1,4,5,5] n"
    )
    declined(FOLD, model)
    model = model_of(
        "n = Mul(x, c) p = Conv(n, w) q = Conv(n, w) y = Add(p, q)",
        weights,
        x="float[1,4,5,5] x",
        y="float[1,6,3,3] y",
    )
    declined(FOLD, model)


def test_image_normalization() -> None:
    # The channels of n must be known for the Div: `infer-shapes` tells them in a pipeline.
    model = model_of(
        "n = Sub(x, mean) d = Div(n, std) y = Conv(d, w)",
        "float[2,3,3,3] w = {seed}, float[3,1,1] mean = {seed}, float[1,3,1,1] std = {0.5, 0.25, 0.125},"
        " float[1,3,5,5] n",
        x="float[1,3,5,5] x",
        y="float[1,2,3,3] y",
    )
    assert rewrite(FOLD, model).ops == ["Conv"]


def test_in_bodies_and_functions() -> None:
    steps = "d{0} = Div(x, std) y{0} = Conv(d{0}, w)"
    model = model_of(
        "y = If (flag) <then_branch = yes () => (float[1,2,3,3] y1) { " + steps.format(1) + " }, "
        "else_branch = no () => (float[1,2,3,3] y2) { " + steps.format(2) + " }>",
        "float[2,3,3,3] w = {seed}, float[1,3,1,1] std = {0.5, 0.25, 0.125}",
        x="float[1,3,5,5] x, bool flag",
        y="float[1,2,3,3] y",
    )
    assert rewrite(FOLD, model).ops == ["If", "Conv", "Conv"]

    function = """<domain: "local", opset_import: ["" : 17]>
    block (a) => (r) {
      w = Constant<value = float[1,1,1,1] {2.0}>()
      c = Constant<value_float = 3.0>()
      n = Conv(a, w)
      r = Mul(n, c)
    }"""
    model = model_of("y = local.block(x)", x="float[1,1,3,3] x", y="float[1,1,3,3] y", functions=function)
    assert rewrite(FOLD, model).ops == ["block", "Conv"]


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        ("d = Div(x, r) e = Erf(d) g = Add(e, r) p = Mul(x, g) n = Mul(p, c)", "Gelu"),
        ("d = Div(x, r) e = Erf(d) g = Add(r, e) p = Mul(g, x) n = Div(p, c)", "Gelu"),
        ("v = Exp(x) s = Sqrt(v) p = Div(x, s) n = Mul(p, c)", "LayerNormalization"),
        ("v = Exp(x) s = Sqrt(v) d = Div(x, s) p = Mul(d, r) n = Add(p, c)", "LayerNormalization"),
    ],
)
def test_the_end_of_what_runtimes_know_by_its_parts_stays(body: str, whole: str) -> None:
    model = made(f"{body} y = MatMul(n, w)", "float[4,6] w, float[4] r, float[4] c", "3,4", "3,6")
    infer_shapes(model)
    assert f"ends a {whole}, which runtimes run as one kernel" in declined(FOLD, model)


def test_a_factor_behind_another_product_is_folded() -> None:
    model = made(
        "e = Erf(x) p = Mul(x, e) n = Mul(p, c) y = MatMul(n, w)", "float[4,6] w, float[4] c", "3,4", "3,6"
    )
    infer_shapes(model)
    assert rewrite(FOLD, model).ops == ["Erf", "Mul", "MatMul"]
