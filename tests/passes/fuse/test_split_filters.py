# SPDX-License-Identifier: Apache-2.0
"""A Split of a layer's channels as a layer for each part."""

from __future__ import annotations

import re

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.graph_ir.origins import origins
from tersor.passes.fuse.slice_filters import SliceFilters
from tests.support.rewriting import declined, model_of, rewrite

FLOAT, INT8 = SliceFilters(), SliceFilters(int8=True)
PICTURE, ROWS = "float[N,8,5,5]", "float[N,40,16]"
CONV = "c = Conv<pads = [1,1,1,1]>(x, w, b)"
FILTERS = "float[48,8,3,3] w = {seed}, float[48] b = {seed}, int64[2] s = {16, 32}"
SPLIT = "p, q = Split<axis = 1>({}, s)"
LINEAR = "m = MatMul(x, w) c = Add(m, b)"
WEIGHTS = "float[16,24] w = {seed}, float[24] b = {seed}, int64[3] s = {8, 12, 4}"
CUT = "p, q, r = Split<axis = -1>(c, s)"


def made(body: str, weights: str, x: str, outputs: str = "pq", opset: int = 20) -> Model:
    y = ", ".join(f"float[{','.join('dcba'[: x.count(',') + 1])}] {name}" for name in outputs)
    model = model_of(body, weights, x=f"{x} x", y=y, opset=opset)
    infer_shapes(model)
    return model


def picture(body: str, weights: str = FILTERS, outputs: str = "pq") -> Model:
    return made(body, weights, PICTURE, outputs)


def rows(body: str, weights: str = WEIGHTS, x: str = ROWS, outputs: str = "pqr", opset: int = 20) -> Model:
    return made(body, weights, x, outputs, opset)


def test_convolution_text_in_text_out() -> None:
    done = rewrite(FLOAT, picture(f"{CONV} {SPLIT.format('c')}"), N=2)
    assert done.ops == ["Conv", "Conv"]
    for line in ("float[16,8,3,3] w_part", "float[32,8,3,3] w_part", "float[16] b_part", "float[32] b_part"):
        assert line in done.text


def test_product_text_in_text_out() -> None:
    done = rewrite(INT8, rows(f"{LINEAR} {CUT}"), N=2)
    assert done.ops == ["MatMul", "Add"] * 3
    for line in ("float[16,8] w_part", "float[16,12] w_part", "float[16,4] w_part", "float[12] b_part"):
        assert line in done.text


def test_each_part_stands_for_what_it_was_made_of() -> None:
    body = '["layer"] m = MatMul(x, w) ["sum"] c = Add(m, b) ["cut"] p, q, r = Split<axis = -1>(c, s)'
    done = rewrite(INT8, rows(body), N=2)
    assert [origins(node) for node in done.model.graph] == [("layer",), ("sum",)] * 3


@pytest.mark.parametrize(
    "act",
    [
        "a = Relu(c)",
        "a = Clip(c, low, high)",
        "a = Gelu(c)",
        "g = Sigmoid(c) a = Mul(c, g)",
        "g = HardSigmoid<alpha = 0.3>(c) a = Mul(g, c)",
        "t = LeakyRelu<alpha = 0.2>(c) g = Sigmoid(t) u = Mul(t, g) a = Tanh(u)",
    ],
)
def test_activations_between(act: str) -> None:
    weights = f"{FILTERS}, float low = {{-0.5}}, float high = {{0.5}}"
    done = rewrite(FLOAT, picture(f"{CONV} {act} {SPLIT.format('a')}", weights), N=1)
    steps = re.findall(r"(\w+)(?:<[^>]*>)?\(", act)
    assert done.ops == ["Conv", *steps] * 2


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("c = MatMul(x, w) " + CUT, WEIGHTS),
        (LINEAR.replace("m, b", "b, m") + CUT, WEIGHTS),
        (LINEAR + CUT, WEIGHTS.replace("float[24] b", "float[1,1,24] b")),
        (LINEAR + CUT, WEIGHTS.replace("float[24] b = {seed}", "float b = {0.5}")),
        (LINEAR + CUT.replace("-1", "2, num_outputs = 3").replace(", s)", ")"), WEIGHTS),
    ],
)
def test_forms_of_products(body: str, weights: str) -> None:
    assert "Split" not in rewrite(INT8, rows(body, weights), N=2).ops


@pytest.mark.parametrize(
    ("gemm", "weights"),
    [
        ("Gemm(x, w, b)", WEIGHTS),
        ("Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)", WEIGHTS.replace("16,24", "24,16")),
        ("Gemm(x, w)", WEIGHTS),
        ("Gemm(x, w, b)", WEIGHTS.replace("float[24] b", "float[40,1] b")),
        ("Gemm(x, w, b)", WEIGHTS.replace("float[24] b", "float[40,24] b")),
    ],
)
def test_forms_of_gemm(gemm: str, weights: str) -> None:
    done = rewrite(INT8, rows(f"c = {gemm} {CUT}", weights, "float[40,16]"))
    assert done.ops == ["Gemm"] * 3


def test_sizes_as_an_attribute() -> None:
    body = LINEAR + "p, q, r = Split<axis = 2, split = [8, 12, 4]>(c)"
    assert rewrite(INT8, rows(body, opset=11), N=1).ops == ["MatMul", "Add"] * 3


def test_a_part_that_nothing_reads_is_not_made() -> None:
    assert rewrite(INT8, rows(f"{LINEAR} {CUT}", outputs="pr"), N=1).ops == ["MatMul", "Add"] * 2


def test_wide_products_of_many_rows_in_float() -> None:
    wide = WEIGHTS.replace("16,24", "192,24")
    assert rewrite(FLOAT, rows(f"{LINEAR} {CUT}", wide, "float[2,64,192]")).ops == ["MatMul", "Add"] * 3
    for x in ("float[2,63,192]", "float[N,127,192]", "float[N,T,192]"):
        assert declined(FLOAT, rows(f"{LINEAR} {CUT}", wide, x)) == {"one layer and a copy are as fast"}
    narrow = rows(f"{LINEAR} {CUT}", x="float[2,640,16]")
    assert declined(FLOAT, narrow) == {"one layer and a copy are as fast"}


@pytest.mark.parametrize("x", ["float[N,31,16]", "float[N,T,16]", "float[1,8,16]"])
def test_few_rows_for_int8(x: str) -> None:
    assert declined(INT8, rows(f"{LINEAR} {CUT}", x=x)) == {"one layer and a copy are as fast"}


@pytest.mark.parametrize(
    ("body", "weights", "outputs", "reason"),
    [
        (f"{CONV} {SPLIT}", FILTERS.replace("16, 32", "24, 24"), "pq", "one layer and a copy"),
        (f"{CONV} {SPLIT}", FILTERS, "pqc", "alone reads"),
        (f"{CONV} z = Exp(c) {SPLIT}", FILTERS, "pqz", "alone reads"),
        (f"{CONV} g = Sigmoid(c) a = Mul(c, g) {SPLIT.format('a')}", FILTERS, "pqg", "alone reads"),
        (f"{CONV} g = Sigmoid(c) a = Mul(x2, g) {SPLIT.format('a')}", FILTERS, "pq", "alone reads"),
        (f"{CONV} a = Softmax<axis = 1>(c) {SPLIT.format('a')}", FILTERS, "pq", "alone reads"),
        (
            f"{CONV} a = PRelu(c, t) {SPLIT.format('a')}",
            FILTERS + ", float[48,1,1] t = {seed}",
            "pq",
            "alone",
        ),
        (f"v = Abs(w) {CONV.replace('w,', 'v,')} {SPLIT}", FILTERS, "pq", "alone reads"),
        (f"v = Abs(b) {CONV.replace(', b', ', v')} {SPLIT}", FILTERS, "pq", "alone reads"),
        (f"{CONV} z = Conv(x, w) {SPLIT}", FILTERS, "pqz", "alone reads"),
        (
            f"{CONV.replace('pads', 'group = 2, pads')} {SPLIT}",
            FILTERS.replace("48,8", "48,4"),
            "pq",
            "alone reads",
        ),
        (
            f"{CONV} {SPLIT.replace('axis = 1', 'axis = 2')}",
            FILTERS.replace("16, 32", "2, 3"),
            "pq",
            "channels",
        ),
    ],
)
def test_near_misses(body: str, weights: str, outputs: str, reason: str) -> None:
    body = body.replace("x2", "y2").replace(CONV, f"{CONV} y2 = Neg(c)") if "x2" in body else body
    (why,) = declined(FLOAT, picture(body.format("c"), weights, outputs))
    assert reason in why


def test_no_convolutions_for_int8() -> None:
    model = picture(f"{CONV} {SPLIT.format('c')}")
    assert declined(INT8, model) == {"one layer and a copy are as fast"}


def test_sizes_that_are_computed() -> None:
    body = f"t = Abs(s) {LINEAR} {CUT.replace('s)', 't)')}"
    assert declined(INT8, rows(body)) == {"sizes are not known"}
