# SPDX-License-Identifier: Apache-2.0
"""Initial states that are zero are left out; others stay."""

from __future__ import annotations

import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.passes.clean.zero_states import EliminateZeroStates
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import PRUNE_READY
from tests.support.prune_build import build
from tests.support.prune_cuts import halve
from tests.support.rewriting import model_of, rewrite

X, Y = "float[T,N,3] x", "float[T,1,N,4] y"
WEIGHTS = "float[1,16,3] w = {seed}, float[1,16,4] r = {seed}"
SIZES = "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] one = {1}, int64[1] four = {4}"


def lstm(state: str, call: str, weights: str = "", x: str = X) -> Model:
    return model_of(f"{state} y, h = LSTM<hidden_size = 4>({call})", f"{WEIGHTS}, {SIZES}{weights}", x=x, y=Y)


SHAPE = "s = Shape(x) n = Gather(s, i1) k = Concat<axis = 0>(one, n, four)"


@pytest.mark.parametrize(
    "state",
    [
        f"{SHAPE} z = ConstantOfShape(k)",
        f"{SHAPE} z = ConstantOfShape<value = float[1] {{0}}>(k)",
        f"{SHAPE} o = Constant<value_float = 0.0>() z = Expand(o, k)",
        f"{SHAPE} m = Concat<axis = 0>(i2, n, four) o = ConstantOfShape(m) z = Slice(o, i1, i2, i0)",
    ],
)
def test_states_that_are_zero_are_left_out(state: str) -> None:
    done = rewrite(EliminateZeroStates(), lstm(state, "x, w, r, , , z, z"))
    assert done.context.counters["states left out"] == 2
    assert "LSTM<hidden_size=4>(x, w, r)" in done.text


def test_one_of_two_states_and_peepholes_stay() -> None:
    weights = ", float[1,2,4] c = {seed}, float[1,12] p = {seed}, float[1,2,4] z = {0, 0, 0, 0, 0, 0, 0, 0}"
    done = rewrite(EliminateZeroStates(), lstm("", "x, w, r, , , z, c, p", weights, "float[3,2,3] x"))
    assert done.context.counters["states left out"] == 1
    assert "(x, w, r, _, _, _, c, p)" in done.text


@pytest.mark.parametrize(
    ("state", "weights", "x"),
    [
        (f"{SHAPE} z = ConstantOfShape<value = float[1] {{1}}>(k)", "", X),
        ("", ", float[1,2,4] z = {0, 0, 0, 0, 0, -0.0, 0, 0}", "float[3,2,3] x"),
        ("z = Identity(given)", "", f"{X}, float[1,N,4] given"),
        (f"{SHAPE} o = ConstantOfShape(k) z = Exp(o)", "", X),
    ],
)
def test_other_states_stay(state: str, weights: str, x: str) -> None:
    assert not rewrite(EliminateZeroStates(), lstm(state, "x, w, r, , , z, z", weights, x)).changed


def test_layers_that_start_from_one_zero_are_cut_apart() -> None:
    model = build(
        """s = Shape(x)  n = Gather(s, i1)  k = Concat<axis = 0>(i2, n, eight)  z = ConstantOfShape(k)
        p = Slice(z, i0, i1, i0)  q = Slice(z, i1, i2, i0)  a = LSTM<hidden_size = 8>(x, w1, r1, , , p, p)
        b = Squeeze(a, i1)  c = LSTM<hidden_size = 8>(b, w2, r2, , , q, q)  d = Squeeze(c, i1)
        y = MatMul(d, w)""",
        "w1 1,32,3; r1 1,32,8; w2 1,32,8; r2 1,32,8; w 8,5",
        x="float[4,B,3] x",
        y="float[4,B,5] y",
        constants=f"{SIZES}, int64[1] eight = {{8}}",
    )
    assert [group.atoms for group in couple(model).groups] == [8]
    manager.run(spec.parse(PRUNE_READY), model, Context())
    assert [group.atoms for group in halve(model).groups] == [8, 8]
