# SPDX-License-Identifier: Apache-2.0
"""Gelu from every spelling of its erf and tanh forms, and what is left alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.passes.fuse.gelu import FuseGelu
from tests.support.numerics import assert_rounding
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite

CONSTANTS = (
    "float one = {1}, float half = {0.5}, float two = {2}, float three = {3}, float sqrt2 = {1.4142135}, "
    "float inverse = {0.70710678}, float cubic = {0.044715}, float scale = {0.7978845608}"
)
PORTS: Ports = {"x": "float[N,5] x", "y": "float[N,5] y"}
GATES = {
    "erf-div": "d = Div(x, sqrt2) e = Erf(d) g = Add(e, one)",
    "erf-mul": "d = Mul(inverse, x) e = Erf(d) g = Add(one, e)",
    "tanh-pow": "p = Pow(x, three) q = Mul(cubic, p) r = Add(x, q) s = Mul(r, scale) t = Tanh(s) "
    "g = Add(t, one)",
    "tanh-mul": "u = Mul(x, x) p = Mul(x, u) q = Mul(p, cubic) r = Add(q, x) s = Mul(scale, r) t = Tanh(s) "
    "g = Add(one, t)",
    "tanh-factored": "u = Mul(x, x) q = Mul(u, cubic) r = Add(q, one) v = Mul(x, r) s = Mul(v, scale) "
    "t = Tanh(s) g = Add(t, one)",
}
PRODUCTS = [
    "m = Mul(x, g) y = Mul(m, half)",
    "m = Mul(half, x) y = Mul(m, g)",
    "m = Mul(g, half) y = Mul(m, x)",
    "m = Div(x, two) y = Mul(g, m)",
    "m = Div(g, two) y = Mul(x, m)",
    "m = Mul(g, x) y = Div(m, two)",
]


@pytest.mark.parametrize(("gate", "product"), list(itertools.product(GATES, PRODUCTS)))
def test_every_spelling(gate: str, product: str) -> None:
    done = rewrite(FuseGelu(), model_of(f"{GATES[gate]} {product}", CONSTANTS, opset=20, **PORTS), N=20)
    assert done.ops == ["Gelu"]
    assert ("approximate=tanh" in done.text) == gate.startswith("tanh")


def test_below_opset_20_only_when_asked_to_raise_it() -> None:
    body = f"{GATES['erf-div']} {PRODUCTS[0]}"
    assert declined(FuseGelu(), model_of(body, CONSTANTS, **PORTS)) == {"needs opset 20"}
    done = rewrite(FuseGelu(raise_opset=True), model_of(body, CONSTANTS, **PORTS), N=3)
    assert done.ops == ["Gelu"]
    assert done.text.startswith("ir 9 opset ai.onnx 20\n")


def test_the_opset_stays_when_something_is_in_the_way() -> None:
    body = f"{GATES['erf-div']} {PRODUCTS[0]} z = DFT<axis = 1>(w)"
    ports: Ports = {"x": "float[N,5] x, float[1,4,1] w", "y": "float[N,5] y, float[1,4,2] z"}
    model = model_of(body, CONSTANTS, **ports)
    done = rewrite(FuseGelu(raise_opset=True), model)
    assert not done.changed
    assert "DFT" in done.context.notes[0]


def test_the_opset_stays_when_nothing_would_be_fused() -> None:
    model = model_of(f"{GATES['erf-div']} m = Mul(x, g) y = Mul(m, two)", CONSTANTS, **PORTS)
    assert declined(FuseGelu(raise_opset=True), model) == set()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("d = Div(x, near) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, half)", "other constants"),
        ("d = Div(x, two) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, half)", None),
        ("d = Div(x, sqrt2) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, two)", None),
        ("d = Div(x, sqrt2) e = Erf(d) g = Add(e, e) m = Mul(x, g) y = Mul(m, half)", None),
        ("d = Div(w, sqrt2) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, half)", None),
        (
            "d = Div(x, sqrt2) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, cube)",
            "a constant raises the rank",
        ),
    ],
)
def test_near_misses(body: str, reason: str | None) -> None:
    extra = ", float near = {1.4143}, float[1,1,1] cube = {0.5}"
    ports: Ports = {"x": "float[N,5] x, float[N,5] w", "y": "float[N,5] y"}
    found = declined(FuseGelu(), model_of(body, CONSTANTS + extra, opset=20, **ports))
    assert found == (set() if reason is None else {reason})


def test_a_part_that_is_an_output_stays() -> None:
    ports: Ports = {"x": "float[N,5] x", "y": "float[N,5] y, float[N,5] e"}
    model = model_of(f"{GATES['erf-div']} {PRODUCTS[0]}", CONSTANTS, opset=20, **ports)
    assert declined(FuseGelu(), model) == set()


def test_half_precision_constants_are_taken_at_their_own_rounding() -> None:
    text = """<ir_version: 9, opset_import: ["" : 20]>
    g (float16[8] x) => (float16[8] y) <float16 one = {ONE}, float16 half = {HALF}, float16 sqrt2 = {ROOT}> {
      d = Div(x, sqrt2) e = Erf(d) g = Add(e, one) m = Mul(x, g) y = Mul(m, half) }"""
    for name, value in (("ONE", 1.0), ("HALF", 0.5), ("ROOT", 1.4142135)):
        text = text.replace(
            name, str(np.array(value, np.float16).view(np.uint16))
        )  # the text form takes bits
    assert rewrite(FuseGelu(), parse(text), numbers=False).ops == ["Gelu"]


@pytest.mark.parametrize("gate", ["erf-div", "tanh-pow"])
def test_hostile_numbers(gate: str) -> None:
    done = rewrite(FuseGelu(), model_of(f"{GATES[gate]} {PRODUCTS[0]}", CONSTANTS, opset=20, **PORTS))
    values = [0.0, -0.0, 9.0, -9.0, 1e-42, -1e-42, 1e10, 2.5, np.inf, np.nan]
    assert_rounding(done.before, done.model, {"x": np.array(values, np.float32).reshape(2, 5)})
