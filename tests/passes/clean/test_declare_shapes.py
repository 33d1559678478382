# SPDX-License-Identifier: Apache-2.0
"""Sizes of summands, declared for a runtime that compares their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, to_proto
from tersor.passes.base import Context
from tersor.passes.clean.declare_shapes import DeclareShapes
from tests.support.int8 import optimised
from tests.support.prune_build import build

X, Y = "float[N,3,H,W] x", "float[N,16,h,w] y"
WEIGHTS = "a 16,3,3,3; b 16,3,3,3; c 16,16,1,1"
STRIDED = "p = Conv<strides = [2,2]>(x, a) q = Conv<strides = [2,2]>(x, b) "
SUM = STRIDED + "s = Add(p, q) y = Conv(s, c)"


def inferred(body: str, x: str = X, constants: str = "") -> Model:
    model = build(body, WEIGHTS, x=x, y=Y, constants=constants)
    infer_shapes(model)
    return model


def declared(model: Model) -> dict[str, list[int | str]]:
    assert DeclareShapes().run(model, Context()) == bool(to_proto(model).graph.value_info)
    return {
        info.name: [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in to_proto(model).graph.value_info
    }


@pytest.mark.parametrize("op_type", ["Add", "Mul", "Sum"])
def test_equal_names_are_declared(op_type: str) -> None:
    found = declared(inferred(SUM.replace("Add", op_type)))
    assert found.keys() == {"p", "q"}
    assert found["p"] == found["q"] == ["N", 16, "floor((H + 1)/2) - 1", "floor((W + 1)/2) - 1"]


@pytest.mark.parametrize(
    ("body", "x"),
    [
        (SUM, "float[2,3,9,9] x"),
        (SUM.replace("q = Conv<strides = [2,2]>", "q = Conv<strides = [3,3]>"), X),
        (STRIDED + "g = GlobalAveragePool(q) s = Mul(p, g) y = Conv(s, c)", X),
        (STRIDED + "s = Sub(p, q) y = Conv(s, c)", X),
    ],
    ids=["numbers", "other sizes", "broadcast", "no sum"],
)
def test_near_misses(body: str, x: str) -> None:
    assert declared(inferred(body, x=x)) == {}


def test_what_comes_from_codes_is_left() -> None:
    coded = "k = QuantizeLinear(p, one) d = DequantizeLinear(k, one) s = Add(d, q) y = Conv(s, c)"
    assert declared(inferred(STRIDED + coded, constants="float one = {1.0}")) == {}


def test_onnxruntime_adds_within_a_convolution(tmp_path: Path) -> None:
    model = inferred(SUM)
    DeclareShapes().run(model, Context())
    assert optimised(to_proto(model), tmp_path).ops["Reshape"] == 0
