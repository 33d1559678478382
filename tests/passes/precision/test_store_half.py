# SPDX-License-Identifier: Apache-2.0
"""Weights that float16 holds are stored in it; the bits that nodes read stay the same."""

from __future__ import annotations

import numpy as np

from tersor.graph_ir import DataType, Model, signature_of, verify
from tersor.passes.base import Context
from tersor.passes.precision.store_half import StoreHalf
from tests.support.numerics import assert_bitwise, feeds_for, snapshot
from tests.support.rewriting import model_of, with_array

WEIGHTS = "float[40,40] w = {seed}, float[40,40] v = {seed}, float[40] b = {seed}"
BODY = "c = MatMul(x, w) d = Add(c, b) e = MatMul(d, w) y = MatMul(e, v)"


def stored(w: np.ndarray) -> Model:
    model = with_array(model_of(BODY, WEIGHTS, x="float[3,40] x", y="float[3,40] y"), "w", w)
    before, signature = snapshot(model), signature_of(model)
    changed = StoreHalf().run(model, Context())
    verify(model, signature)
    assert changed == any(n.op_type == "Cast" for n in model.graph)
    assert_bitwise(before, model, feeds_for(before))
    return model


def test_what_half_holds_is_stored_in_it_once() -> None:
    w = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float16).astype(np.float32)
    model = stored(w)
    assert [n.op_type for n in model.graph] == ["Cast", "MatMul", "Add", "MatMul", "MatMul"]
    types = {name: v.dtype for name, v in model.graph.initializers.items()}
    assert types == {"v": DataType.FLOAT, "b": DataType.FLOAT, "w_half": DataType.FLOAT16}


def test_what_half_would_round_overflow_or_lose_is_left() -> None:
    w = np.zeros((40, 40), np.float32)
    for value in (1 + 2.0**-12, 1e6, 1e-30):
        w[0, 0] = value
        assert all(n.op_type != "Cast" for n in stored(w).graph)
    w[0, 0] = -0.0
    assert any(n.op_type == "Cast" for n in stored(w).graph)
