# SPDX-License-Identifier: Apache-2.0
"""Gates of channels, spread over the picture before the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, to_proto
from tersor.passes.clean.declare_shapes import DeclareShapes
from tersor.passes.layout.gates import SpreadGates
from tests.support.int8 import optimised
from tests.support.prune_build import build
from tests.support.rewriting import declined, rewrite

PASS = SpreadGates()
X, Y = "float[N,16,6,7] x", "float[N,32,h,w] y"
WEIGHTS = "a 32,16,1,1; d 32,1,3,3; f 16,32,1,1; k 32,16,1,1; p 32,32,1,1"
PICTURE = "c = Conv(x, a) "
GATE = "s = GlobalAveragePool(c) t = Conv(s, f) u = Relu(t) v = Conv(u, k) g = HardSigmoid(v) "
BLOCK = PICTURE + GATE + "m = Mul(c, g) y = Conv(m, p)"


def made(body: str = BLOCK, weights: str = WEIGHTS, x: str = X, y: str = Y, opset: int = 17) -> Model:
    model = build(body, weights, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    "body",
    [
        BLOCK,
        BLOCK.replace("Mul(c, g)", "Mul(g, c)"),
        PICTURE.replace("c =", "b =") + "c = HardSwish(b) " + BLOCK.removeprefix(PICTURE),
        PICTURE.replace("c =", "b =") + "e = Sigmoid(b) c = Mul(b, e) " + BLOCK.removeprefix(PICTURE),
        PICTURE.replace("c =", "b =") + "c = Conv<group = 32>(b, d) " + BLOCK.removeprefix(PICTURE),
        BLOCK.replace("y = Conv(m, p)", "y = Conv<group = 32>(m, d)"),
        BLOCK.replace("y = Conv(m, p)", "y = Conv<group = 2>(m, k)"),
        BLOCK.replace("g = HardSigmoid(v)", "g = Clip(v)"),
    ],
    ids=[
        "plain",
        "turned",
        "hard swish",
        "silu",
        "depthwise before",
        "depthwise behind",
        "groups behind",
        "clip",
    ],
)
def test_a_gate_is_spread(body: str) -> None:
    done = rewrite(PASS, made(body))
    assert "Resize" in done.ops
    (spread,) = (n for n in done.model.graph if n.op_type == "Resize")
    (product,) = (n for n in done.model.graph if n.outputs[0].name == "m")
    assert spread.outputs[0] in product.inputs
    assert spread.inputs[1] is None


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (made(opset=12), "opset below 13"),
        (made(x="float[N,16,H,W] x"), "no gate of channels and picture of known size"),
        (made(x="float[N,16,1,1] x"), "no gate of channels and picture of known size"),
        (made(BLOCK.replace("g = HardSigmoid(v)", "g = Exp(v)")), "an operand is not in blocks of channels"),
        (
            made(BLOCK.replace("f)", "f5)").replace("k)", "k5)"), WEIGHTS + "; f5 25,32,1,1; k5 32,25,1,1"),
            "an operand is not in blocks of channels",
        ),
        (
            made(BLOCK.replace("y = Conv(m, p)", "n = Exp(m) y = Conv(n, p)")),
            "the product is read by what takes no blocks of channels",
        ),
        (made(PICTURE + "m = Mul(c, c) y = Conv(m, p)"), "no gate of channels and picture of known size"),
        (
            made(PICTURE + "g = Conv(q, k) m = Mul(c, g) y = Conv(m, p)", x=X + ", float[1,16,1,1] q"),
            "no gate of channels and picture of known size",
        ),
    ],
    ids=[
        "opset",
        "dynamic",
        "one pixel",
        "no activation",
        "odd width",
        "read otherwise",
        "equal",
        "one for all samples",
    ],
)
def test_near_misses(model: Model, reason: str) -> None:
    assert reason in declined(PASS, model)


def test_onnxruntime_stays_in_its_blocked_layout(tmp_path: Path) -> None:
    done = rewrite((PASS, DeclareShapes()), made())
    found = optimised(to_proto(done.model), tmp_path)
    assert found.ops["ReorderInput"] <= 1
