# SPDX-License-Identifier: Apache-2.0
"""Short constants written out for longer pieces of arithmetic."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.layout.repeat_constants import RepeatConstants
from tests.support.rewriting import declined, model_of, rewrite

PASS = RepeatConstants()


def made(body: str, x: str, weights: str, opset: int = 13) -> Model:
    model = model_of(body, weights, x=f"{x} x", y=f"{x} y", opset=opset)
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("x", "given", "wanted"),
    [
        ("float[N,40,30,3]", "3", "float[40,30,3]"),  # colours of a channels-last picture: as far as needed
        ("float[N,40,200,3]", "1,1,3", "float[1,200,3]"),
        ("float[1,500,4]", "4", "float[500,4]"),
        ("float[1,900,2]", "1,900,1", "float[1,900,2]"),  # a stride for each of two coordinates
        ("float[1,80,3,3]", "80,1,1", "float[80,3,3]"),
    ],
)
@pytest.mark.parametrize("body", ["y = Add(x, c)", "y = Sub(c, x)", "y = Mul(c, x)", "y = Div(x, c)"])
def test_constants_grow(x: str, given: str, wanted: str, body: str) -> None:
    done = rewrite(PASS, made(body, x, f"float[{given}] c = {{seed}}"), N=2)
    assert wanted in done.text


@pytest.mark.parametrize(
    ("x", "given", "reason"),
    [
        ("float[N,40,30,3]", "1", "no short pieces"),
        ("float[N,40,30,3]", "40,30,3", "no short pieces"),
        ("float[N,40,30,100]", "100", "no short pieces"),
        ("float[N,5,5,3]", "3", "no short pieces"),
        ("float[N,40,W,3]", "3", "no short pieces"),
        ("float[1,30000,3]", "3", "too many elements"),
    ],
)
def test_left_alone(x: str, given: str, reason: str) -> None:
    reasons = declined(PASS, made("y = Add(x, c)", x, f"float[{given}] c = {{seed}}"))
    assert any(reason in text for text in reasons)


def test_what_the_runtime_fuses_is_left_alone() -> None:
    weights = "float[4,3] w = {seed}, float[3] c = {seed}"
    model = model_of("a = MatMul(x, w) y = Add(a, c)", weights, x="float[1,900,4] x", y="float[1,900,3] y")
    infer_shapes(model)
    assert "fused with what is in front of it" in declined(PASS, model)


def test_exponents_are_left_alone() -> None:
    """Regression: onnxruntime multiplies for one exponent of 2 or 3, which rounds otherwise than pow."""
    model = made("y = Pow(x, c)", "float[64,2,32]", "float[2,1] c = {3, 0.5}")
    assert not declined(PASS, model)


def test_operands_lined_up_by_an_attribute_are_left_alone() -> None:
    """Regression: the constant of the second axis became one of the last."""
    body = "y = Add<broadcast = 1, axis = 1>(x, c)"
    assert declined(PASS, made(body, "float[64,3,3]", "float[3] c = {1, 2, 3}", 6)) == {"needs opset 7"}
