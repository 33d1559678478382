# SPDX-License-Identifier: Apache-2.0
"""Predicted parameters, bytes and MACs are those of the model once it is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tersor.analysis.cost import CostTable, cost
from tersor.analysis.coupling import Coupling, couple
from tersor.graph_ir import Model, fingerprint, parse
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_plan
from tersor.passes.prune.plan import Cut, PrunePlan
from tersor.pipeline.prune.spend import Spend, mac_products
from tests.support.prune_models import MODELS

CONCAT = """
<ir_version: 8, opset_import: ["" : 17]>
joined (float[1,4,6,6] x) => (float[1,6,6,6] y)
<float[12,4,1,1] wa = {seed}, float[20,4,1,1] wb = {seed}, float[6,36,1,1] wc = {seed}>
{
    a = Conv(x, wa)
    b = Conv(x, wb)
    j = Concat<axis=1>(a, x, b)
    y = Conv(j, wc)
}
"""

GROUPED = """
<ir_version: 8, opset_import: ["" : 17]>
grouped (float[1,4,6,6] x) => (float[1,6,6,6] y)
<float[16,4,1,1] wa = {seed}, float[32,4,3,3] wb = {seed}, float[6,32,1,1] wc = {seed}>
{
    a = Conv(x, wa)
    b = Conv<group=4, pads=[1,1,1,1]>(a, wb)
    y = Conv(b, wc)
}
"""

LSTM = """
<ir_version: 8, opset_import: ["" : 17]>
recurrent (float[5,2,8] x) => (float[10,3] y)
<float[1,48,8] w = {seed}, float[1,48,12] r = {seed}, int64[2] to = {10, -1}, float[12,3] v = {seed}>
{
    h, last = LSTM<hidden_size=12>(x, w, r)
    f = Reshape(h, to)
    y = MatMul(f, v)
}
"""

FUSED = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
attend (float[2,5,12] x) => (float[2,5,6] y)
<float[12,12] wq = {seed}, float[12,12] wk = {seed}, float[12,20] wv = {seed}, float[20,6] wo = {seed}>
{
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    v = MatMul(x, wv)
    a = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v)
    y = MatMul(a, wo)
}
"""

TEXTS = {"concat": CONCAT, "grouped": GROUPED, "lstm": LSTM, "fused": FUSED}
ALL: dict[str, Callable[[], Model]] = {
    **MODELS,
    **{name: lambda text=text: parse(text) for name, text in TEXTS.items()},
}


def cut(model: Model, coupling: Coupling, kept: np.ndarray[tuple[int], np.dtype[np.int64]]) -> CostTable:
    """The cost of the model once each group keeps its first atoms."""
    cuts = [
        Cut(g.name, g.atoms, tuple(range(int(n))))
        for g, n in zip(coupling.groups, kept, strict=True)
        if n < g.atoms
    ]
    apply_plan(model, PrunePlan(fingerprint(model), tuple(cuts)), Context())
    return cost(model)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_prediction_is_exact(name: str, seed: int) -> None:
    model = ALL[name]()
    coupling = couple(model)
    spend = Spend(model, coupling)
    kept = np.random.default_rng(seed).integers(1, spend.full + 1)
    before, after = cost(model), cut(ALL[name](), couple(ALL[name]()), kept)
    assert spend.left("params", spend.full) == spend.left("macs", spend.full) == 1
    assert spend.left("params", kept) == pytest.approx(after.parameters / before.parameters, rel=1e-9)
    assert spend.left("size", kept) == pytest.approx(after.parameter_bytes / before.parameter_bytes, rel=1e-9)
    assert spend.left("macs", kept) == pytest.approx(after.macs / before.macs, rel=1e-9)


def test_what_is_not_weights_keeps_its_bytes() -> None:
    model = MODELS["chain"]()
    coupling = couple(model)
    bare, whole = Spend(model, coupling), Spend(model, coupling, overhead=10_000)
    half = bare.full // 2
    stored = cost(model).parameter_bytes
    expected = (stored * bare.left("size", half) + 10_000) / (stored + 10_000)
    assert whole.left("size", half) == pytest.approx(expected)


def test_the_ratio_is_of_the_channels_that_may_go() -> None:
    model = MODELS["chain"]()
    coupling = couple(model)
    names = [g.name for g in coupling.groups]
    half = np.array([16, 64, 48])
    assert Spend(model, coupling).left("ratio", half) == pytest.approx(128 / 144)
    assert Spend(model, coupling, left_alone=names[1:]).left("ratio", half) == pytest.approx(0.5)


def test_bindings_decide_which_macs_weigh() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        two (float[N,8] x, float[M,8] z) => (float[N,4] y, float[M,4] u)
        <float[8,32] a = {seed}, float[32,4] b = {seed}, float[8,32] c = {seed}, float[32,4] d = {seed}>
        { h = MatMul(x, a)  y = MatMul(h, b)  g = MatMul(z, c)  u = MatMul(g, d) }"""
    )
    coupling = couple(model)
    spend = Spend(model, coupling, bindings={"N": 9, "M": 1})
    assert spend.left("macs", np.array([16, 32])) == pytest.approx(0.55)
    assert spend.left("macs", np.array([32, 16])) == pytest.approx(0.95)


def test_an_operator_nothing_is_known_of_has_no_products() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        odd (float[2,2] x) => (float[2,2] y) { y = own.MatMul(x, x) }"""
    )
    assert mac_products(next(iter(model.graph))) == []
