# SPDX-License-Identifier: Apache-2.0
"""HardSwish, HardSigmoid and Swish from their spellings, near misses, opsets, bodies and functions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tersor.graph_ir import Model, parse
from tersor.passes.fuse.hard_swish import FuseHardSwish
from tersor.passes.fuse.silu import FuseSilu
from tests.support.numerics import assert_rounding, run_onnxruntime
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite
from tests.support.runtime import RUNS_OPSET_24

CONSTANTS = "float three = {3}, float zero = {0}, float six = {6}, float sixth = {0.16666667}"
PORTS: Ports = {"x": "float[N,5] x", "y": "float[N,5] y"}
CLIPS = {
    "clip": "c = Clip(a, zero, six)",
    "min-max": "r = Max(zero, a) c = Min(r, six)",
    "max-min": "r = Min(a, six) c = Max(r, zero)",
    "relu-min": "r = Relu(a) c = Min(six, r)",
}
PRODUCTS = [
    "m = Mul(x, c) y = Div(m, six)",
    "m = Mul(c, x) y = Mul(m, sixth)",
    "d = Div(c, six) y = Mul(x, d)",
    "d = Mul(sixth, c) y = Mul(d, x)",
    "d = Mul(x, sixth) y = Mul(d, c)",
    "d = Div(x, six) y = Mul(c, d)",
]


def hard_swish(clip: str, product: str, add: str = "a = Add(x, three)", opset: int = 17) -> Model:
    return model_of(f"{add} {clip} {product}", CONSTANTS, opset=opset, **PORTS)


@pytest.mark.parametrize(("clip", "product"), list(itertools.product(CLIPS.values(), PRODUCTS)))
def test_every_spelling_of_hard_swish(clip: str, product: str) -> None:
    done = rewrite(FuseHardSwish(), hard_swish(clip, product), N=40)
    assert done.ops == ["HardSwish"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_below_opset_14_it_is_hard_sigmoid_and_mul(product: str) -> None:
    done = rewrite(FuseHardSwish(), hard_swish(CLIPS["clip"], product, opset=11), N=40)
    assert done.ops == ["HardSigmoid", "Mul"]
    assert "alpha=0.16666" in done.text


def test_old_clip_with_attributes() -> None:
    model = model_of(
        "a = Add(three, x) c = Clip<min = 0.0, max = 6.0>(a) m = Mul(x, c) y = Div(m, six)",
        CONSTANTS,
        opset=9,
        **PORTS,
    )
    assert rewrite(FuseHardSwish(), model).ops == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize("product", ["y = Div(c, six)", "y = Mul(c, sixth)"])
def test_the_gate_alone_is_hard_sigmoid(product: str) -> None:
    assert rewrite(FuseHardSwish(), hard_swish(CLIPS["clip"], product), N=40).ops == ["HardSigmoid"]


def test_hard_sigmoid_and_mul_become_hard_swish_where_the_opset_has_it() -> None:
    body = "s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(s, x)"
    assert rewrite(FuseHardSwish(), model_of(body, **PORTS)).ops == ["HardSwish"]
    assert "needs opset 14" in declined(FuseHardSwish(), model_of(body, opset=13, **PORTS))
    raised = rewrite(FuseHardSwish(raise_opset=True), model_of(body, opset=12, **PORTS))
    assert raised.ops == ["HardSwish"]
    assert "opset ai.onnx 14\n" in raised.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, five)", None),
        ("a = Add(x, five) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", None),
        ("a = Add(x, three) c = Clip(a, zero, five) m = Mul(x, c) y = Div(m, six)", "other constants"),
        ("a = Add(x, three) c = Clip(a, zero) m = Mul(x, c) y = Div(m, six)", "other constants"),
        ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, near)", "other constants"),
        (
            "a = Add(x, cube) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)",
            "a constant raises the rank",
        ),
        ("s = HardSigmoid(x) y = Mul(x, s)", "other constants"),
        ("s = HardSigmoid<alpha = 0.1667, beta = 0.5>(x) y = Mul(x, s)", "other constants"),
    ],
)
def test_other_constants_are_left_alone(body: str, reason: str | None) -> None:
    extra = ", float five = {5}, float near = {6.001}, float[1,1,1] cube = {3}"
    reasons = declined(FuseHardSwish(), model_of(body, CONSTANTS + extra, **PORTS))
    assert reasons == (set() if reason is None else {reason})


def test_other_readers_and_other_operands_are_left_alone() -> None:
    body = "a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    ports: Ports = {"x": "float[N,5] x, float[N,5] w", "y": "float[N,5] y, float[N,5] c"}
    assert declined(FuseHardSwish(), model_of(body, CONSTANTS, **ports)) == set()
    ports["y"] = "float[N,5] y"
    body = "a = Add(w, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)"
    assert declined(FuseHardSwish(), model_of(body, CONSTANTS, **ports)) == set()


def test_double_is_left_alone_and_a_default_the_caller_may_override_is_no_constant() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (T[N] x) => (T[N] y) <T three = {3}, T zero = {0}, T six = {6}> {
      a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six) }"""
    assert declined(FuseHardSwish(), parse(text.replace("T", "double"))) == {"not for double"}
    half = text.replace("T", "float16").replace("{3}", "{16896}").replace("{6}", "{17920}")  # their bits
    done = rewrite(FuseHardSwish(), parse(half), numbers=False)
    assert done.ops == ["HardSwish"]
    text = (
        text.replace("T", "float")
        .replace("x) =>", "x, float six = {6}) =>")
        .replace(", float six = {6}>", ">")
    )
    assert not rewrite(FuseHardSwish(), parse(text)).changed


def test_hostile_numbers() -> None:
    done = rewrite(FuseHardSwish(), hard_swish(CLIPS["clip"], PRODUCTS[2]))
    values = [0.0, -0.0, 3.0, -3.0, 1e-42, -1e-42, 1e30, -1e30, np.inf, np.nan]
    hostile = np.array(values, np.float32).reshape(2, 5)
    assert_rounding(done.before, done.model, {"x": hostile})


def test_in_bodies_and_functions() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[4] x, bool b) => (float[4] y, float[4] z) <
      float three = {3}, float zero = {0}, float six = {6}> {
      y = If (b) <
        then_branch = t () => (float[4] o) {
          a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) o = Div(m, six) },
        else_branch = e () => (float[4] p) { p = Identity(x) }
      >
      z = local.hs (x)
    }
    <domain: "local", opset_import: ["" : 12]> hs (x) => (z) {
      three = Constant <value_float = 3.0> () zero = Constant <value_float = 0.0> ()
      six = Constant <value_float = 6.0> ()
      a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) z = Div(m, six)
    }"""
    done = rewrite(FuseHardSwish(), parse(text), numbers=False)
    assert done.ops == ["If", "hs", "HardSwish", "Identity", "Add", "Clip", "Mul", "Div"]
    assert done.reasons == {"type not known"}


def test_silu_needs_opset_24() -> None:
    body = "s = Sigmoid(x) y = Mul(s, x)"
    assert declined(FuseSilu(), model_of(body, **PORTS)) == {"needs opset 24"}
    done = rewrite(FuseSilu(), model_of(body, opset=24, **PORTS), numbers=RUNS_OPSET_24, N=3)
    assert done.ops == ["Swish"]
    raised = rewrite(FuseSilu(raise_opset=True), model_of(body, **PORTS), numbers=RUNS_OPSET_24, N=3)
    assert raised.ops == ["Swish"]
    assert raised.model.ir_version == 12


@pytest.mark.skipif(not RUNS_OPSET_24, reason="onnxruntime before 1.24 does not load opset 24")
def test_silu_of_a_raised_opset_runs() -> None:
    model = model_of("s = Sigmoid(x) y = Mul(s, x)", **PORTS)
    raised = rewrite(FuseSilu(raise_opset=True), model, N=3).model
    assert run_onnxruntime(raised, {"x": np.ones((1, 5), np.float32)}) is not None


def test_sigmoid_of_something_else_is_no_silu() -> None:
    model = model_of("s = Sigmoid(w) y = Mul(s, x)", x="float[5] x, float[5] w", y="float[5] y", opset=24)
    assert declined(FuseSilu(), model) == set()
