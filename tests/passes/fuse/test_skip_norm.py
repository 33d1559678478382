# SPDX-License-Identifier: Apache-2.0
"""SkipLayerNormalization as Add and LayerNormalization."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, parse
from tersor.passes.base import Pass
from tersor.passes.fuse.skip_norm import ExpandSkipLayerNorm
from tests.support.numerics import feeds_for, run_both
from tests.support.rewriting import Rewritten, declined, rewrite

PASS = ExpandSkipLayerNorm()
ROWS = "float[N,7,8]"
WEIGHTS = "float[8] g = {seed}, float[8] h = {seed}, float[8] c = {seed}, float[8,8] w = {seed}"
FULL = "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, s, g, h, c)"


def made(body: str = FULL, s: str = ROWS, y: str = f"{ROWS} y", opset: int = 17) -> Model:
    head = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    model = parse(f"{head}\ngraph ({ROWS} x, {s} s) => ({y}) <{WEIGHTS}> {{ {body} }}")
    infer_shapes(model)
    return model


def expanded(model: Model, runs: Pass = PASS) -> Rewritten:
    """The rewritten model, whose numbers are those of onnxruntime's own kernel."""
    done = rewrite(runs, model, numbers=False)
    for before, after in zip(*run_both(done.before, done.model, feeds_for(done.before)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    return done


def test_text_in_text_out() -> None:
    done = expanded(made())
    assert done.ops == ["Add", "Add", "LayerNormalization"]
    assert "Add(x, c)" in done.text
    assert "epsilon=0.001" in done.text


@pytest.mark.parametrize(
    ("inputs", "adds"), [("x, s, g, h", 1), ("x, s, g", 1), ("x, s, g, , c", 2), ("x, s, g, h, c", 2)]
)
def test_operands_left_out(inputs: str, adds: int) -> None:
    done = expanded(made(f"y = com.microsoft.SkipLayerNormalization({inputs})"))
    assert done.ops == ["Add"] * adds + ["LayerNormalization"]
    assert "epsilon=1e-12" in done.text


@pytest.mark.parametrize("shape", ["float[7,8]", "float[1,7,8]"])
def test_a_skip_for_all_samples(shape: str) -> None:
    assert expanded(made(s=shape)).ops == ["Add", "Add", "LayerNormalization"]


def test_the_bias_goes_to_a_product() -> None:
    done = expanded(made("m = MatMul(s, w) " + FULL.replace("x, s", "x, m")))
    assert "Add(m, c)" in done.text


def test_the_sum_is_a_result() -> None:
    body = FULL.replace("y =", "y, m, d, t =").replace("m, d", '"", ""')
    done = expanded(made(body, y=f"{ROWS} y, {ROWS} t"))
    assert done.ops == ["Add", "Add", "LayerNormalization"]


def test_a_mean_that_is_read() -> None:
    body = FULL.replace("y =", "y, m =") + " z = Neg(m)"
    assert declined(PASS, made(body, y=f"{ROWS} y, float[N,7,1] z")) == set()


def test_opsets() -> None:
    assert declined(PASS, made(opset=14)) == {"needs opset 17"}
    done = expanded(made(opset=14), ExpandSkipLayerNorm(raise_opset=True))
    assert done.ops == ["Add", "Add", "LayerNormalization"]
    assert done.model.opset_imports[""] == 17


def test_doubles_stay() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> graph (double[1,2,8] x,'
        " double[1,2,8] s, double[8] g) => (double[1,2,8] y)"
        " { y = com.microsoft.SkipLayerNormalization(x, s, g) }"
    )
    infer_shapes(model)
    assert declined(PASS, model) == set()
