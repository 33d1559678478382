# SPDX-License-Identifier: Apache-2.0
"""Convolutions over one axis become ones over two, and the axis comes and goes once."""

from __future__ import annotations

import pytest

from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout.two_axes import ConvolveOverTwoAxes
from tests.support.rewriting import model_of, rewrite

STEPS = (InferShapes(), ConvolveOverTwoAxes(least_macs=0), EliminateDeadCode())
W = """float[8,4,3] w = {seed}, float[8] b = {seed}, float[8,1,5] d = {seed}, float[4,8,1] p = {seed},
    float[4,1] c = {seed}, float[1,4,1] c3 = {seed}, float half = {0.5}, float zero = {0}, float six = {6}"""


def ops(body: str, y: str, opset: int = 17, x: str = "float[2,4,20] x") -> list[str]:
    return rewrite(STEPS, model_of(body, W, x=x, y=y, opset=opset)).ops


@pytest.mark.parametrize(
    "conv",
    [
        "Conv(x, w)", "Conv(x, w, b)", "Conv<pads = [2,1], strides = [2], dilations = [2]>(x, w, b)",
        'Conv<auto_pad = "SAME_LOWER", kernel_shape = [3]>(x, w)',
    ],
)  # fmt: skip
@pytest.mark.parametrize("opset", [11, 17])
def test_a_convolution_of_any_form(conv: str, opset: int) -> None:
    found = ops(f"y = {conv}", "float[2,8,L] y", opset)
    assert found == ["Unsqueeze", "Conv", "Squeeze"]


def test_a_block_of_convolutions_enters_and_leaves_once() -> None:
    body = """u = Conv<pads = [1,1]>(x, w, b) r = Relu(u)
        v = Conv<group = 8, pads = [2,2]>(r, d) k = Clip(v, zero, six)
        o = Conv(k, p) m = Mul(o, c) n = Add(m, c3) h = Mul(n, half) s = Add(h, x) q = Sub(s, o)
        j = Concat<axis = 1>(q, s) l = LeakyRelu(j)
        g = MaxPool<kernel_shape = [3], strides = [2], pads = [1,1]>(l)
        a = AveragePool<kernel_shape = [2]>(g) y = GlobalAveragePool(a)"""
    found = ops(body, "float[2,8,1] y")
    assert found.count("Unsqueeze") == 1
    assert (found[0], found[-1], found.count("Squeeze")) == ("Unsqueeze", "Squeeze", 1)


def test_what_stays_narrow_reads_the_narrow_form() -> None:
    body = """u = Conv<pads = [1,1]>(x, w) r = Relu(u) t = Transpose<perm = [0,2,1]>(r)
        v = Softmax(u) y = MatMul(t, v)"""
    assert ops(body, "float[2,20,20] y") == [
        "Unsqueeze", "Conv", "Squeeze", "Relu", "Squeeze", "Transpose", "Softmax", "MatMul",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "x", "y"),
    [
        ("y = Conv(x, k)", "float[2,4,20] x, float[8,4,3] k", "float[2,8,18] y"),
        ("y = MaxPool<kernel_shape = [3]>(x)", "float[2,4,20] x", "float[2,4,18] y"),
        ("y = Conv(x, w2)", "float[2,4,5,5] x", "float[2,8,3,3] y"),
    ],
)
def test_left_alone(body: str, x: str, y: str) -> None:
    model = model_of(body, "float[8,4,3,3] w2 = {seed}", x=x, y=y)
    assert rewrite(STEPS, model).ops == [body.split("= ", 1)[1].partition("(")[0].partition("<")[0]]


def test_indices_of_a_pool_keep_it_narrow() -> None:
    body = "u = Conv(x, w) y, i = MaxPool<kernel_shape = [3]>(u)"
    assert ops(body, "float[2,8,16] y, int64[2,8,16] i") == ["Unsqueeze", "Conv", "Squeeze", "MaxPool"]


def test_a_convolution_of_a_value_of_unknown_rank() -> None:
    body = "s = Reshape(x, dims) y = Conv(s, w)"
    found = rewrite(
        STEPS, model_of(body, W, x="float[2,4,20] x, int64[R] dims", y="float[2,8,18] y"), numbers=False
    )
    assert found.ops == ["Reshape", "Unsqueeze", "Conv", "Squeeze"]


def test_small_ones_are_not_worth_it_and_unknown_lengths_are() -> None:
    steps = (InferShapes(), ConvolveOverTwoAxes())
    for x, y, count in (("2,4,20", "2,8,18", 1), ("2,4,20000", "2,8,19998", 3), ("2,4,T", "2,8,L", 3)):
        model = model_of("y = Conv(x, w)", W, x=f"float[{x}] x", y=f"float[{y}] y")
        assert len(rewrite(steps, model, numbers=False).ops) == count
