# SPDX-License-Identifier: Apache-2.0
"""Attention over rows whose tokens come first, as PyTorch's MultiheadAttention is exported."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.attention import FuseAttention
from tests.support.rewriting import Rewritten, declined, model_of, rewrite

FUSE = FuseAttention()
WEIGHTS = (
    "int64[3] cut = {-1, 3, 4}, int64[4] deep = {1, 3, -1, 4}, int64[4] four = {0, 0, 3, 12}, "
    "int64[3] rows = {-1, 1, 12}, int64[2] flat = {-1, 12}, int64[3] first = {1, -1, 12}, "
    "float half = {0.7}, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {-1}"
)
ROWS = "float[T,1,12] q, float[L,1,12] k, float[L,1,12] v"
CUTS = "q1 = Reshape(q, cut) k1 = Reshape(k, cut) v1 = Reshape(v, cut) "
TURNS = "q2 = Transpose<perm = [1,0,2]>(q1) v2 = Transpose<perm = [1,0,2]>(v1) "
KEYS = "k2 = Transpose<perm = [1,2,0]>(k1) "
MIX = "s = MatMul(q2, k2) p = Softmax<axis = -1>(s) a = MatMul(p, v2) "
BACK = "t = Transpose<perm = [1,0,2]>(a) "
END = "y = Reshape(t, rows)"
PLAIN = CUTS + TURNS + KEYS + MIX + BACK + END
DEEP = (
    CUTS
    + TURNS.replace("q2", "q3").replace("v2", "v3")
    + "k3 = Transpose<perm = [1,0,2]>(k1) q4 = Reshape(q3, deep) k4 = Reshape(k3, deep) "
    + "v2 = Reshape(v3, deep) k5 = Transpose<perm = [0,1,3,2]>(k4) q2 = Mul(q4, half) k2 = Mul(k5, half) "
    + MIX
    + "t = Transpose<perm = [2,0,1,3]>(a) "
    + END
)
Y = "float[T,1,12] y"


def made(body: str, x: str = ROWS, y: str = Y, weights: str = WEIGHTS) -> Model:
    model = model_of(body, weights, x=x, y=y, opset=23)
    infer_shapes(model)
    return model


def fused(model: Model) -> Rewritten:
    return rewrite((FUSE, EliminateDeadCode()), model, T=5, L=7)


@pytest.mark.parametrize("body", [PLAIN, DEEP])
def test_text_in_text_out(body: str) -> None:
    done = fused(made(body))
    assert done.ops == ["Reshape", "Reshape", "Reshape", "Attention", "Reshape"]
    assert "{1, -1, 12}" in done.text
    assert "{-1, 1, 12}" in done.text


def test_keys_turned_later() -> None:
    later = "kh = Transpose<perm = [1,0,2]>(k1) k2 = Transpose<perm = [0,2,1]>(kh) "
    assert "Attention" in fused(made(PLAIN.replace(KEYS, later))).ops


@pytest.mark.parametrize(
    ("end", "y", "behind"),
    [
        ("y = Reshape(t, flat)", "float[T,12] y", ["Reshape"]),
        ("y = Reshape(t, first)", "float[1,T,12] y", []),
    ],
)
def test_results_of_other_shapes(end: str, y: str, behind: list[str]) -> None:
    done = fused(made(PLAIN.replace(END, end), y=y))
    assert done.ops == ["Reshape", "Reshape", "Reshape", "Attention", *behind]


@pytest.mark.parametrize("mask", ["T,L", "1,T,L", "3,T,L"])
def test_masks(mask: str) -> None:
    body = PLAIN.replace("Softmax<axis = -1>(s)", "Softmax<axis = 2>(g)").replace(
        "p = ", "g = Add(s, m) p = "
    )
    assert "Attention" in fused(made(body, f"{ROWS}, float[{mask}] m")).ops


def test_rows_side_by_side() -> None:
    parts = "x1 = Reshape(x, four) q = Gather<axis = 2>(x1, i0) k = Gather<axis = -2>(x1, i1) "
    body = parts + "v = Gather<axis = 2>(x1, i2) " + PLAIN
    assert fused(made(body, "float[T,1,36] x")).ops == [
        "Split", "Reshape", "Reshape", "Reshape", "Attention", "Reshape",
    ]  # fmt: skip


SIX = WEIGHTS.replace("{-1, 3, 4}", "{-1, 6, 4}").replace("{-1, 1, 12}", "{-1, 2, 12}")


@pytest.mark.parametrize(
    ("body", "x", "weights", "reason"),
    [
        (PLAIN, ROWS.replace(",1,", ",2,"), SIX, "rows cut into heads"),
        (PLAIN.replace("(k1)", "(k)"), ROWS.replace("1,12] k", "3,4] k"), WEIGHTS, "rows cut into heads"),
        (PLAIN.replace(BACK, "t = Transpose<perm = [2,0,1]>(a) "), ROWS, WEIGHTS, "put side by side"),
        (DEEP.replace("[2,0,1,3]", "[0,3,1,2]"), ROWS, WEIGHTS, "put side by side"),
        (PLAIN.replace("-1>(s)", "1>(s)"), ROWS, WEIGHTS, "not a softmax over keys"),
    ],
)
def test_near_misses(body: str, x: str, weights: str, reason: str) -> None:
    (why,) = declined(FUSE, made(body, x, "float[T,b,12] y", weights))
    assert reason in why


SAMPLES = "float[5,N,12] q, float[7,N,12] k, float[7,N,12] v"
MANY = DEEP.replace("Reshape(q3, deep)", "Reshape(q3, queries)").replace("3, deep)", "3, keys)")
ROWS_OF_MANY = WEIGHTS.replace("cut = {-1, 3, 4}", "cut = {0, -1, 4}").replace("= {-1, 1,", "= {5, -1,")
SIZES = ROWS_OF_MANY + ", int64[4] queries = {-1, 3, 5, 4}, int64[4] keys = {-1, 3, 7, 4}"
OTHERS = SIZES.replace("{-1, 3, 5, 4}", "{3, -1, 5, 4}").replace("{-1, 3, 7, 4}", "{3, -1, 7, 4}")


@pytest.mark.parametrize(
    ("end", "y", "behind"), [(END, "5,N,12", []), ("y = Reshape(t, flat)", "R,12", ["Reshape"])]
)
def test_samples_of_any_number_are_turned(end: str, y: str, behind: list[str]) -> None:
    done = fused(made(MANY.replace(END, end), SAMPLES, f"float[{y}] y", SIZES))
    assert done.ops == ["Transpose", "Transpose", "Transpose", "Attention", "Transpose", *behind]


@pytest.mark.parametrize(
    ("body", "x", "weights", "reason"),
    [
        (MANY, SAMPLES, OTHERS, "rows cut into heads"),
        (MANY, SAMPLES.replace("7,N,12] v", "7,M,12] v"), SIZES, "batches are not known to be equal"),
        (MANY.replace("[2,0,1,3]", "[0,2,1,3]"), SAMPLES, SIZES, "the result is not rows again"),
    ],
)
def test_samples_that_are_mixed(body: str, x: str, weights: str, reason: str) -> None:
    assert any(reason in why for why in declined(FUSE, made(body, x, "float[a,b,12] y", weights)))
