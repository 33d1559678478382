# SPDX-License-Identifier: Apache-2.0
"""Products of rows that end in codes: when they are convolutions, and what these compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.int8 import feeds_of, graph, optimised, quantised, run, sqnr

WEIGHTS = (
    "float[24,32] w = {seed}, float[32] b = {seed}, float[32,24] z = {seed}, float[24] k = {seed}, "
    "float low = {-0.1}, float high = {1.5}"
)
BODY = "t = MatMul(x, w) u = Add(t, b) r = Relu(u) p = MatMul(r, z) y = Add(p, k)"


@pytest.mark.parametrize(
    ("body", "x"),
    [
        (BODY, "n,9,24"),
        (BODY, "n,1,24"),
        (BODY.replace("Add(t, b)", "Add(b, t)"), "2,9,24"),
        (BODY.replace("Relu(u)", "Clip(u, low, high)"), "2,9,24"),
        (BODY.replace("y = Add(p, k)", "y = Tanh(p)"), "2,9,24"),
    ],
)
def test_numbers_are_those_of_the_float_model(body: str, x: str, tmp_path: Path) -> None:
    model = graph(body, WEIGHTS, x=x)
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model)
    found = optimised(after, tmp_path)
    assert found.ops["QLinearConv"] == 1
    assert found.ops["Relu"] == found.ops["Clip"] == found.ops["DequantizeLinear"] == 0
    want = run(before, feed, off=True)[0]
    assert sqnr(want, run(after, feed)[0]) > 30
    np.testing.assert_allclose(run(after, feed)[0], run(after, feed, off=True)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "weights", "x"),
    [
        (BODY, WEIGHTS, "2,3,4,24"),
        (BODY, WEIGHTS, "2,t,24"),
        (BODY, WEIGHTS.replace("24", "22"), "2,9,22"),
        (BODY, WEIGHTS.replace("32", "30"), "2,9,24"),
        (BODY, WEIGHTS.replace("32", "12"), "2,9,24"),
        (BODY.replace("Relu(u)", "Tanh(u)"), WEIGHTS, "2,9,24"),
    ],
)
def test_others_end_in_float(body: str, weights: str, x: str, tmp_path: Path) -> None:
    _, after, _ = quantised(graph(body, weights, x=x))
    found = optimised(after, tmp_path)
    assert found.ops["QLinearConv"] == 0
    assert found.float_linear == 0


@pytest.mark.parametrize(("x", "size"), [("n,9,24", (0, 9, 24)), ("n,t,24", (2, 0, 24))])
def test_no_rows_run_as_well(x: str, size: tuple[int, ...]) -> None:
    before, after, _ = quantised(graph(BODY, WEIGHTS, x=x))
    feed = {"x": np.zeros(size, np.float32)}
    assert run(after, feed)[0].shape == run(before, feed, off=True)[0].shape == size


def test_a_relu_that_no_int8_reads(tmp_path: Path) -> None:
    _, after, _ = quantised(graph("t = MatMul(x, w) u = Add(t, b) y = Relu(u)", WEIGHTS, x="2,9,24"))
    found = optimised(after, tmp_path)
    assert found.ops["MatMulIntegerToFloat"] == found.ops["Relu"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "t = MatMul(x, w) u = Add(t, b) p = MatMul(u, z) y = Add(p, k)",
        "t = MatMul(x, w) u = Add(t, b) y = MatMul(u, z)",
        "t = MatMul(x, w) u = Add(t, b) v = Tanh(u) p = MatMul(u, z) q = MatMul(v, z) y = Sub(p, q)",
    ],
)
def test_rows_that_end_in_float_are_quantised_for_the_next_layer(body: str, tmp_path: Path) -> None:
    model = graph(body, WEIGHTS, x="2,9,24")
    feed = feeds_of(model)[0]
    before, after, _ = quantised(model)
    assert optimised(after, tmp_path).float_linear == 0
    assert sqnr(run(before, feed, off=True)[0], run(after, feed)[0]) > 30
