# SPDX-License-Identifier: Apache-2.0
"""RMSNormalization from its parts, and what is left alone."""

from __future__ import annotations

import pytest

from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.fuse.layer_norm import FuseLayerNorm
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite

FUSE = FuseLayerNorm()
WEIGHTS = (
    "float[8] scale = {seed}, float two = {2}, float epsilon = {0.00001}, float one = {1}, "
    "float less = {-1}, int64[1] last = {-1}, int64[1] first = {1}"
)
PORTS: Ports = {"x": "float[N,4,8] x", "y": "float[N,4,8] y"}
MEAN = "s = Pow(x, two) v = ReduceMean(s, last) e = Add(v, epsilon) r = Sqrt(e) "
BODY = MEAN + "i = Reciprocal(r) n = Mul(x, i) y = Mul(scale, n)"


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY.replace("i = Reciprocal(r)", "i = Div(one, r)"),
        BODY.replace("i = Reciprocal(r) n = Mul(x, i)", "n = Div(x, r)"),
        BODY.replace("Pow(x, two)", "Mul(x, x)").replace("(scale, n)", "(n, scale)"),
    ],
)
def test_every_spelling(body: str) -> None:
    done = rewrite(FUSE, model_of(body, WEIGHTS, opset=23, **PORTS), N=3)
    assert done.ops == ["RMSNormalization"]
    assert "axis=-1, epsilon=9.99" in done.text
    assert "(x, scale)" in done.text


def test_a_sum_before_it_is_read_on() -> None:
    body = f"t = Relu(x) {BODY} ".replace("(x, ", "(t, ").replace("y = Mul", "h = Mul") + "y = Add(t, h)"
    done = rewrite((InferShapes(), FUSE), model_of(body, WEIGHTS, opset=23, **PORTS), N=3)
    assert done.ops == ["Relu", "RMSNormalization", "Add"]


def test_what_is_left_of_a_layer_norm_is_none() -> None:
    """Below opset 17 there would be a reason for each of the two; one is enough."""
    body = f"a = ReduceMean(x, last) d = Sub(x, a) {BODY}".replace("(x, two)", "(d, two)")
    body = body.replace("(x, i)", "(d, i)")
    assert rewrite(FUSE, model_of(body, WEIGHTS, opset=23, **PORTS), N=3).ops == ["LayerNormalization"]


def test_below_opset_23_only_when_asked_to_raise_it() -> None:
    assert declined(FUSE, model_of(BODY.replace("(s, last)", "<axes = [-1]>(s)"), WEIGHTS, **PORTS)) == {
        "needs opset 23"
    }
    raised = rewrite(
        FuseLayerNorm(raise_opset=True),
        model_of(BODY.replace("(s, last)", "<axes = [-1]>(s)"), WEIGHTS, **PORTS),
        N=3,
    )
    assert "RMSNormalization" in raised.ops


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("(s, last)", "(s, first)", "not the last axes"),
        ("(v, epsilon)", "(v, less)", "epsilon is not one positive number"),
        ("(x, two)", "(x, three)", None),
        ("i = Reciprocal(r)", "i = Div(near, r)", "another power or numerator"),
        ("n = Mul(x, i)", "n = Mul(z, i)", None),
        ("Mul(scale, n)", "Mul(single, n)", "scale is not of the normalised size"),
    ],
)
def test_near_misses(old: str, new: str, reason: str | None) -> None:
    more = "three = Constant<value = float {3}>() near = Constant<value = float {1.001}>() z = Neg(x) "
    more += "single = Constant<value = float {3}>() "
    model = model_of(more + BODY.replace(old, new), WEIGHTS, opset=23, **PORTS)
    assert declined(FUSE, model) == (set() if reason is None else {reason})


def test_a_part_read_elsewhere_stays() -> None:
    body = BODY.replace("y = Mul(scale, n)", "m = Mul(scale, n) y = Add(m, r)")
    assert declined(FUSE, model_of(body, WEIGHTS, opset=23, **PORTS)) == set()


def test_doubles_stay() -> None:
    body = "s = Mul(x, x) v = ReduceMean(s, last) e = Add(v, epsilon) r = Sqrt(e) "
    body += "n = Div(x, r) y = Mul(n, scale)"
    weights = "double[8] scale = {1, 2, 3, 4, 5, 6, 7, 8}, double epsilon = {0.1}, int64[1] last = {-1}"
    model = model_of(body, weights, x="double[N,8] x", y="double[N,8] y", opset=23)
    assert declined(FUSE, model) == {"not for double"}
