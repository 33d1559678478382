# SPDX-License-Identifier: Apache-2.0
"""RotaryEmbedding from its parts, and what is left alone."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.rotary import FuseRotary
from tests.support.rewriting import Rewritten, model_of, rewrite

FUSE = FuseRotary()
WEIGHTS = (
    "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i3 = {3}, "
    "int64[1] far = {2147483647}, int64[1] back = {-3}, int64[1] last = {-1}, float much = {1.5}, "
    "float[2,6] table = {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}, "
    "float[2,6] other = {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 7}"
)
X, Y = "float[N,2,T,6] x, float[N,T,3] f, int64[N,T] p", "float[N,2,T,6] y"
ANGLES = "g = Concat<axis = -1>(f, f) c = Cos(g) s = Sin(g) "
OVER = "cu = Unsqueeze(c, i1) su = Unsqueeze(s, i1) "
HALVES = "l = Slice(x, i0, i3, i3) r = Slice(x, i3, far, i3, i1) "
TURN = "a = Mul(x, cu) n = Neg(r) k = Concat<axis = -1>(n, l) b = Mul(k, su) y = Add(a, b)"
BODY = ANGLES + OVER + HALVES + TURN
TABLE = BODY.replace(ANGLES, "q = Clip(p, low, high) c = Gather(TABLE, q) s = Gather(table, q) ")
ROWS = "low = Constant<value = int64 {0}>() high = Constant<value = int64 {1}>() "


def made(body: str, x: str = X, opset: int = 23) -> Model:
    model = model_of(body, WEIGHTS, x=x, y=Y, opset=opset)
    infer_shapes(model)
    return model


def fused(model: Model) -> Rewritten:
    return rewrite((FUSE, EliminateDeadCode()), model, N=2, T=5)


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY.replace("Mul(x, cu)", "Mul(cu, x)")
        .replace("Mul(k, su)", "Mul(su, k)")
        .replace("(a, b)", "(b, a)"),
        BODY.replace("(x, i0, i3, i3)", "(x, i0, back, last)").replace(
            "(x, i3, far, i3, i1)", "(x, back, far, last)"
        ),
    ],
    ids=["as exported", "other orders", "from the end"],
)
def test_every_spelling(body: str) -> None:
    done = fused(made(body))
    assert done.ops == ["Cos", "Sin", "RotaryEmbedding"]
    assert "RotaryEmbedding(x, " in done.text


def test_factors_that_are_scaled() -> None:
    done = fused(made(BODY.replace("c = Cos(g)", "c0 = Cos(g) c = Mul(much, c0)")))
    assert done.ops == ["Cos", "Mul", "Sin", "RotaryEmbedding"]


def test_rows_of_a_table() -> None:
    done = fused(made(ROWS + TABLE.replace("TABLE", "table")))
    assert done.ops == ["Clip", "Gather", "Gather", "RotaryEmbedding"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY.replace("r = Slice(x, i3, far", "r = Slice(x, i2, far"), None),
        (BODY.replace("Slice(x, i0, i3, i3)", "Slice(x, i3, far, i3)"), "not the halves"),
        (BODY.replace("Concat<axis = -1>(n, l)", "Concat<axis = -1>(l, n)"), None),
        (BODY.replace("Mul(x, cu)", "Mul(z, cu)"), "not two parts of what is turned"),
        (BODY.replace("r = Slice(x", "r = Slice(z"), "not two parts of what is turned"),
        (BODY.replace("(f, f)", "(f, h)"), "halves of the factors are not known to be equal"),
        (BODY.replace("(f, f)", "(f, f) g2 = Mul(g, six)").replace("(g)", "(g2)"), "halves of the factors"),
        (BODY.replace("Unsqueeze(c, i1)", "Expand(c, one3)"), "factors are not known to be the same"),
        (BODY.replace("y = Add(a, b)", "y = Sub(a, b)"), None),
        (ROWS + TABLE.replace("TABLE", "other"), "halves of the factors are not known to be equal"),
    ],
)
def test_near_misses(body: str, reason: str | None) -> None:
    more = "z = Relu(x) h = Relu(f) six = Constant<value = float[6] {1, 2, 3, 4, 5, 6}>() "
    more += "one3 = Constant<value = int64[4] {1, 1, 1, 1}>() "
    done = rewrite((FUSE,), made(more + body), numbers=False)
    assert "RotaryEmbedding" not in done.ops
    assert reason is None or any(reason in given for given in done.reasons)


@pytest.mark.parametrize("other", ["float[1,T,3] f", "float[M,T,3] f", "float[N,S,3] f"])
def test_angles_of_another_batch_or_length_stay(other: str) -> None:
    """The operator has angles for each sample and token; one row for all would be another input."""
    done = rewrite((FUSE,), made(BODY, X.replace("float[N,T,3] f", other)), numbers=False)
    assert done.reasons == {"factors are not known to be the same for all heads"}


def test_below_opset_23_only_when_asked_to_raise_it() -> None:
    assert rewrite((FUSE,), made(BODY, opset=17), N=2, T=5).reasons == {"needs opset 23"}
    raised = rewrite((FuseRotary(raise_opset=True),), made(BODY, opset=17), N=2, T=5)
    assert "RotaryEmbedding" in raised.ops
