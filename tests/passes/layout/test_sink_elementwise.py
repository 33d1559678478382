# SPDX-License-Identifier: Apache-2.0
"""Transposes sink through elementwise and broadcasting operators; the bits stay."""

from __future__ import annotations

import pytest

from tests.support.layouts import TO_FIRST, TO_LAST, between, sink
from tests.support.rewriting import model_of

UNARY = [
    "Relu(v)",
    "LeakyRelu<alpha = 0.3>(v)",
    "HardSwish(v)",
    "HardSigmoid(v)",
    "Tanh(v)",
    "Identity(v)",
    "Dropout(v)",
    "Neg(v)",
    "Clip(v, low, high)",
    "Clip(v, low)",
    "Clip(v, , high)",
    "QuantizeLinear(v, scale, zero)",
]


@pytest.mark.parametrize("call", UNARY)
def test_one_operand(call: str) -> None:
    weights = "float low = {-0.5}, float high = {0.75}, float scale = {0.1}, uint8 zero = {3}"
    y = "uint8[A,B,C,D] y" if "Quantize" in call else "float[A,B,C,D] y"
    result = sink(between(f"w = {call}", weights, y=y))
    assert result.ops == [call.split("<", maxsplit=1)[0].split("(", maxsplit=1)[0]]


def test_a_cast_keeps_its_type() -> None:
    result = sink(between("w = Cast<to = 10>(v)", y="float16[A,B,C,D] y"))
    assert "y = Cast<to=10>(x)" in result.text


OPERANDS = [
    ("Add(v, c)", "float[6] c = {seed}", "[1,6,1,1]"),
    ("Add(c, v)", "float[6] c = {seed}", "[1,6,1,1]"),
    ("Sub(c, v)", "float[1,1,1,6] c = {seed}", "[1,6,1,1]"),
    ("Mul(v, c)", "float[5,6] c = {seed}", "[1,6,1,5]"),
    ("Div(v, c)", "float[4,5,6] c = {seed}", "[1,6,4,5]"),
    ("Max(v, c)", "float[2,4,5,6] c = {seed}", "[2,6,4,5]"),
    ("Min(c, v, c)", "float[4,1,1] c = {seed}", "[1,1,4,1]"),
    ("Mod<fmod = 1>(v, c)", "float[6] c = {1,2,3,4,5,6}", "[1,6,1,1]"),
    ("PRelu(v, c)", "float[6] c = {seed}", "[1,6,1,1]"),
    ("PRelu(v, c)", "float[4,1,6] c = {seed}", "[1,6,4,1]"),
]


@pytest.mark.parametrize(("call", "constant", "shape"), OPERANDS)
def test_a_constant_is_turned_and_padded(call: str, constant: str, shape: str) -> None:
    result = sink(between(f"w = {call}", constant))
    assert result.ops == [call.split("(", maxsplit=1)[0].split("<", maxsplit=1)[0]]
    assert f"float{shape} c_moved" in result.text


@pytest.mark.parametrize("scalar", ["float c = {2}", "float[1] c = {2}", "float[1,1,1,1] c = {2}"])
def test_a_scalar_stays_as_it_is(scalar: str) -> None:
    result = sink(between("w = Mul(v, c)", scalar))
    assert result.ops == ["Mul"]
    assert "Mul(x, c)" in result.text


def test_a_constant_read_twice_is_turned_once() -> None:
    result = sink(between("a = Add(v, c)\nb = Mul(a, c)\nw = Sub(c, b)", "float[6] c = {seed}"))
    assert result.ops == ["Add", "Mul", "Sub"]
    assert result.text.count("float[1,6,1,1] c_moved") == 1


def test_operands_behind_equal_transposes() -> None:
    body = f"u = {TO_LAST}(z)\ns = Add(v, u)\nw = Mul(s, v)"
    result = sink(between(body, x="float[2,6,4,5] x, float[2,6,4,5] z"))
    assert result.ops == ["Add", "Mul"]
    assert "Add(x, z)" in result.text


def test_a_broadcast_operand_behind_an_equal_transpose() -> None:
    """A squeeze-and-excitation gate: one value a channel."""
    body = f"u = {TO_LAST}(z)\ng = Sigmoid(u)\nw = Mul(v, g)"
    result = sink(between(body, x="float[2,6,4,5] x, float[2,6,1,1] z"))
    assert result.ops == ["Sigmoid", "Mul"]


def test_an_operand_of_lower_rank_gets_its_ones_elsewhere() -> None:
    result = sink(between("w = Add(v, b)", x="float[2,6,4,5] x, float[6] b"))
    assert result.ops == ["Unsqueeze", "Add"]
    result = sink(between("w = Add(v, b)", x="float[2,6,4,5] x, float[6] b", opset=11))
    assert "Unsqueeze<axes=[0, 2, 3]>(b)" in result.text


def test_an_initializer_a_caller_may_override_is_read_not_turned() -> None:
    result = sink(between("w = Add(v, b)", "float[6] b = {seed}", x="float[2,6,4,5] x, float[6] b"))
    assert result.ops == ["Unsqueeze", "Add"]


def test_where_and_comparisons() -> None:
    body = "m = Greater(v, c)\nn = Not(m)\no = Or(n, m)\np = And(o, m)\nw = Where(p, v, c)"
    assert sink(between(body, "float[6] c = {seed}")).ops == ["Greater", "Not", "Or", "And", "Where"]


@pytest.mark.parametrize(
    ("call", "weights", "moved"),
    [
        ("DequantizeLinear(q, s, z)", "float s = {0.2}, uint8 z = {2}", ""),
        ("DequantizeLinear(q, s)", "float s = {0.2}", ""),
        ("DequantizeLinear<axis = 3>(q, s, z)", "float[6] s = {1,2,3,4,5,6}, uint8[6] z = {seed}", "axis=1"),
        ("DequantizeLinear<axis = -3>(q, s, z)", "float[4] s = {1,2,3,4}, uint8[4] z = {seed}", "axis=2"),
        ("DequantizeLinear(q, s, z)", "float[4] s = {1,2,3,4}, uint8[4] z = {seed}", "axis=2"),
    ],
)
def test_dequantize_moves_its_axis(call: str, weights: str, moved: str) -> None:
    result = sink(between(f"q = Identity(v)\nw = {call}", weights, x="uint8[2,6,4,5] x"))
    assert result.ops == ["Identity", "DequantizeLinear"]
    assert moved in result.text


@pytest.mark.parametrize("opset", [8, 11, 13, 17, 21])
def test_every_opset_with_broadcasting(opset: int) -> None:
    result = sink(between("s = Sum(v, c)\nw = Relu(s)", "float[6] c = {seed}", opset=opset))
    assert result.ops == ["Sum", "Relu"]


def test_symbolic_sizes() -> None:
    model = between("a = Add(v, c)\nw = Relu(a)", "float[6] c = {seed}", x="float[N,6,H,W] x")
    result = sink(model, N=2, H=3, W=4)
    assert result.ops == ["Add", "Relu"]


def test_a_transpose_without_perm_reverses() -> None:
    body = "v = Transpose(x)\na = Add(v, c)\ny = Transpose(a)"
    result = sink(model_of(body, "float[2] c = {1,2}", x="float[2,3,4] x", y="float[A,B,C] y"))
    assert result.ops == ["Add"]
    assert "float[2,1,1] c_moved" in result.text


def test_other_permutations_are_composed() -> None:
    """What is left of two Transposes that do not undo each other is one."""
    body = "v = Transpose<perm = [1,2,0]>(x)\na = Relu(v)\ny = Transpose<perm = [0,2,1]>(a)"
    result = sink(model_of(body, x="float[2,3,4] x", y="float[A,B,C] y"))
    assert sorted(result.ops) in (["Relu", "Transpose"], ["Relu", "Transpose", "Transpose"])


def test_in_functions_and_bodies() -> None:
    nodes = f"""
        y = If(flag) <
            then_branch = g1 () => (float[A,B,C,D] p) {{
                a = {TO_LAST}(x)
                b = Relu(a)
                c = {TO_FIRST}(b)
                p = local.f(c)
            }},
            else_branch = g2 () => (float[A,B,C,D] q) {{ q = Neg(x) }}
        >"""
    function = f"""<domain: "local", opset_import: ["" : 17]> f (x) => (y) {{
        a = {TO_LAST}(x)
        k = Constant<value = float[1,1,1,6] {{1, 2, 3, 4, 5, 6}}>()
        b = Add(a, k)
        y = {TO_FIRST}(b)
    }}"""
    model = model_of(nodes, x="float[2,6,4,5] x, bool flag", y="float[A,B,C,D] y", functions=function)
    result = sink(model)
    assert result.ops == ["If", "Relu", "f", "Neg", "Add"]
