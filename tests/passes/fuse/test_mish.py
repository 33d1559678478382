# SPDX-License-Identifier: Apache-2.0
"""Mish from its spelling, near misses, and what int8 starts from."""

from __future__ import annotations

import pytest

from tersor.graph_ir import to_text
from tersor.passes.base import Context
from tersor.passes.fuse.mish import FuseMish
from tersor.pipeline.manager import run
from tersor.pipeline.presets import INT8_READY
from tersor.pipeline.spec import parse
from tests.support.int8 import graph
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite

PORTS: Ports = {"x": "float[N,5] x", "y": "float[N,5] y"}
GATE = "s = Softplus(x) t = Tanh(s)"


@pytest.mark.parametrize("product", ["y = Mul(x, t)", "y = Mul(t, x)"])
def test_mish(product: str) -> None:
    assert rewrite(FuseMish(), model_of(f"{GATE} {product}", opset=18, **PORTS), N=40).ops == ["Mish"]


def test_raises_the_opset_where_asked() -> None:
    model = model_of(f"{GATE} y = Mul(x, t)", opset=13, **PORTS)
    assert rewrite(FuseMish(raise_opset=True), model, N=40).ops == ["Mish"]


@pytest.mark.parametrize(
    ("body", "opset"),
    [
        (f"{GATE} y = Mul(x, t)", 17),
        (f"{GATE} m = Mul(x, t) y = Add(m, t)", 18),
        (f"{GATE} y = Mul(s, t)", 18),
    ],
)
def test_near_misses(body: str, opset: int) -> None:
    declined(FuseMish(), model_of(body, opset=opset, **PORTS))


def test_int8_starts_from_one_operator() -> None:
    body = "u = Conv(x, w) s = Softplus(u) t = Tanh(s) m = Mul(u, t) y = Conv(m, w)"
    model = graph(body, "float[16,16,3,3] w = {seed}", opset=12)
    run(parse(INT8_READY), model, Context())
    text = to_text(model)
    assert "Mish(" in text
    assert "Tanh(" not in text
