# SPDX-License-Identifier: Apache-2.0
"""The Add before a LayerNormalization as a Sum."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.backends.onnxruntime.optimized import optimized_with_sources
from tersor.graph_ir import Model, save
from tersor.passes.fuse.sum_before_norm import SumBeforeLayerNorm
from tests.support.rewriting import declined, model_of, rewrite

PASS = SumBeforeLayerNorm()
ROWS = "float[1,7,32]"
BODY = "s = Add(a, b) y = LayerNormalization(s, g, h)"
WEIGHTS = "float[32] g = {seed}, float[32] h = {seed}"


def made(body: str = BODY, a: str = ROWS, b: str = ROWS, y: str = f"{ROWS} y", opset: int = 17) -> Model:
    model = model_of(body, WEIGHTS, x=f"{a} a, {b} b", y=y, opset=opset)
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite(PASS, made())
    assert done.ops == ["Sum", "LayerNormalization"]
    assert "Sum(a, b)" in done.text


@pytest.mark.parametrize("shape", ["float[N,T,32]", "float[N,7,32]"])
def test_free_sizes(shape: str) -> None:
    assert rewrite(PASS, made(a=shape, b=shape, y=f"{shape} y"), N=2, T=3).ops[0] == "Sum"


def test_the_runtime_keeps_them_apart(tmp_path: Path) -> None:
    body = "m = MatMul(a, w) n = Add(m, h) s = Add(n, b) y = LayerNormalization(s, g, h)"
    model = model_of(body, f"{WEIGHTS}, float[32,32] w = {{seed}}", x=f"{ROWS} a, {ROWS} b", y=f"{ROWS} y")
    infer_shapes(model)
    rewrite(PASS, model)
    save(model, tmp_path / "model.onnx")
    with optimized_with_sources(tmp_path / "model.onnx") as found:
        kernels = [kernel.node.op_type for kernel in found.kernels]
    assert "Sum" in kernels
    assert "LayerNormalization" in kernels
    assert "SkipLayerNormalization" not in kernels


def test_a_sum_that_others_read() -> None:
    body = BODY.replace("y = ", "n = ") + " y = Add(n, s)"
    assert declined(PASS, made(body)) == {"not for a layer normalisation alone"}
    assert "not for a layer normalisation alone" in declined(PASS, made(y=f"{ROWS} y, {ROWS} s"))


def test_a_sum_for_something_else() -> None:
    body = "s = Add(a, b) y = Softmax<axis = -1>(s)"
    assert declined(PASS, made(body)) == {"not for a layer normalisation alone"}
    gain = "s = Add(a, g) t = LayerNormalization(b, g, h) y = Add(s, t)"
    assert declined(PASS, made(gain)) == {"not for a layer normalisation alone"}


@pytest.mark.parametrize(
    ("a", "b", "y"),
    [
        (ROWS, "float[32]", ROWS),
        (ROWS, "float[1,1,32]", ROWS),
        ("float[7,32]", "float[7,32]", "float[7,32]"),
        ("float[1,2,7,32]", "float[1,2,7,32]", "float[1,2,7,32]"),
    ],
)
def test_shapes_the_runtime_leaves_apart(a: str, b: str, y: str) -> None:
    assert declined(PASS, made(a=a, b=b, y=f"{y} y")) == {"the runtime does not fuse these shapes"}
