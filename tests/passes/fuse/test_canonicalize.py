# SPDX-License-Identifier: Apache-2.0
"""Canonical forms: what is rewritten, bit for bit, and what stays."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import constant, to_proto
from tersor.passes.base import Context
from tersor.passes.fuse.canonicalize import Canonicalize
from tests.support.int8 import feeds_of, graph, quantised, run, sqnr
from tests.support.numerics import assert_bitwise, run_onnxruntime
from tests.support.rewriting import declined, model_of, retyped, rewrite, with_array
from tests.support.runtime import DEFINES_INFINITE_PRELU

CANON = Canonicalize()
ODD = cast(
    "NDArray[Any]",
    np.array([[[0.0, -0.0, 1.5, -1.5, np.inf], [-np.inf, 1e-45, -1e-45, 3e38, -3e38]]], np.float32),
)


@pytest.mark.parametrize("opset", [7, 9, 16, 20])
@pytest.mark.parametrize(
    ("slope", "alpha"),
    [("float[2,1] s = {0.25, 0.25}", 0.25), ("float[1] s = {0.1}", 0.1), ("float s = {0.0}", 0.0)],
)
def test_one_slope(slope: str, alpha: float, opset: int) -> None:
    model = model_of("y = PRelu(x, s)", slope, x="float[1,2,5] x", y="float[1,2,5] y", opset=opset)
    done = rewrite(CANON, model)
    assert done.ops == ["LeakyRelu"]
    assert not done.model.graph.initializers
    after = run_onnxruntime(done.model, {"x": ODD})
    assert after is not None
    with np.errstate(all="ignore"):
        scaled: NDArray[Any] = np.multiply(ODD, np.float32(alpha))
    defined = np.where(ODD < 0, scaled, ODD)
    assert after[0].tobytes() == defined.tobytes()
    # The PRelu of an older runtime is no measure at infinities.
    feed: NDArray[Any] = np.array(ODD)
    if not DEFINES_INFINITE_PRELU:
        feed[np.isinf(ODD)] = 2.0
    assert_bitwise(done.before, done.model, {"x": feed})


@pytest.mark.parametrize(
    ("slope", "reason"),
    [
        ("float[2,1] s = {0.25, 0.5}", "slopes differ"),
        ("float[1] s = {-0.25}", "slope is negative"),
        ("float[2,1] s = {0.0, -0.0}", "slope is negative"),
    ],
)
def test_slopes_that_stay(slope: str, reason: str) -> None:
    model = model_of("y = PRelu(x, s)", slope, x="float[1,2,5] x", y="float[1,2,5] y")
    assert declined(CANON, model) == {reason}


@pytest.mark.parametrize(
    ("x", "slope"),
    [
        ("float[N,C,4]", "float[2,1] s = {2, 2}"),
        ("float[4]", "float[1,1] s = {2}"),
        ("float[]", "float[2,1] s = {2, 2}"),
    ],
)
def test_slopes_that_could_enlarge_x_stay(x: str, slope: str) -> None:
    model = model_of("y = PRelu(x, s)", slope, x=f"{x} x", y="float[] y")
    assert declined(CANON, model) == {"slopes may be more than x has"}


def test_slope_of_integers_or_too_fine_for_the_attribute_stays() -> None:
    model = model_of("y = PRelu(x, s)", "int32[1] s = {2}", x="int32[1,2,5] x", y="int32[1,2,5] y")
    assert declined(CANON, model) == {"slope is not a float constant"}
    model = model_of("y = PRelu(x, s)", "double[1] s = {0.1}", x="double[1,2,5] x", y="double[1,2,5] y")
    assert declined(CANON, model) == {"slope is no float32"}
    model = model_of(
        "y = PRelu(x, s)", "float[1] s = {0.5}", x="float[1,2,5] x, float[1] s", y="float[1,2,5] y"
    )
    declined(CANON, model)


@pytest.mark.parametrize("shape", ["", "[5]", "[2,1]", "[3,1,1]"])
def test_subtracted_constant(shape: str) -> None:
    y = "3,2,5" if shape == "[3,1,1]" else "1,2,5"
    weight = f"float{shape} c = {{seed}}" if shape else "float c = {2.5}"
    model = model_of(
        "y = Sub(x, c)",
        weight,
        x="float[1,2,5] x",
        y=f"float[{y}] y",
    )
    done = rewrite(CANON, model)
    assert done.ops == ["Add"]
    assert_bitwise(done.before, done.model, {"x": ODD})


@pytest.mark.parametrize("c", [0.0, -0.0, np.inf, 1.5, 1e-45])
def test_odd_constants(c: float) -> None:
    model = model_of("y = Sub(x, c)", "float c = {1.0}", x="float[1,2,5] x", y="float[1,2,5] y")
    done = rewrite(CANON, with_array(model, "c", np.array(c, np.float32)))
    finite = ODD if np.isfinite(c) else np.where(np.isinf(ODD), np.float32(2), ODD)
    assert_bitwise(done.before, done.model, {"x": finite})


def test_shared_constant_is_copied() -> None:
    model = model_of(
        "p = Sub(x, c) y = Mul(p, c)", "float[5] c = {seed}", x="float[1,2,5] x", y="float[1,2,5] y"
    )
    done = rewrite(CANON, retyped(model, onnx.TensorProto.DOUBLE))
    assert done.ops == ["Add", "Mul"]
    assert set(done.model.graph.initializers) == {"c", "c_1"}


def test_subtractions_that_stay() -> None:
    x, y = "float[1,2,5] x", "float[1,2,5] y"
    declined(CANON, model_of("y = Sub(c, x)", "float c = {2.0}", x=x, y=y))
    declined(CANON, model_of("y = Sub(x, c)", "float c = {2.0}", x=f"{x}, float c", y=y))
    model = model_of("y = Sub(x, c)", "int64 c = {2}", x="int64[3] x", y="int64[3] y")
    assert declined(CANON, model) == {"not a float constant"}
    old = model_of("y = Sub<broadcast = 1>(x, c)", "float[1] c = {2.0}", x=x, y=y, opset=6)
    assert declined(CANON, old) == {"opset below 7"}


def test_in_functions() -> None:
    function = """<domain: "local", opset_import: ["" : 17]>
    block (a) => (r) {
      c = Constant<value_float = 3.0>()
      p = Sub(a, c)
      r = PRelu(p, c)
    }"""
    model = model_of("y = local.block(x)", x="float[1,2,5] x", y="float[1,2,5] y", functions=function)
    assert rewrite(CANON, model).ops == ["block", "Add", "LeakyRelu"]


def test_range_of_vectors_gets_the_scalars_the_specification_asks_for() -> None:
    model = model_of(
        "y = Range(start, limit, delta)",
        "int64 start = {2}, int64[1] delta = {3}",
        x="int64[1] limit",
        y="int64[K] y",
    )
    done = rewrite(CANON, model)
    assert done.ops == ["Reshape", "Reshape", "Range"]
    session = onnxruntime.InferenceSession(to_proto(done.model).SerializeToString())
    (got,) = session.run(None, {"limit": np.array([12], np.int64)})
    assert got.tolist() == [2, 5, 8, 11]


def test_range_of_scalars_stays() -> None:
    model = model_of("y = Range(limit, limit, limit)", "", x="int64 limit", y="int64[K] y")
    assert declined(CANON, model) == {"operands are scalars already, or of unknown shape"}


def test_pads_are_of_all_axes() -> None:
    weights = "int64[4] p = {1,0,2,3}, int64[2] a = {2,-3}, float v = {0.5}"
    model = model_of("y = Pad(x, p, v, a)", weights, x="float[2,3,5,4] x", y="float y", opset=18)
    infer_shapes(model)
    done = rewrite(CANON, model)
    (pad,) = done.model.graph
    widths = constant(pad.inputs[1])
    assert len(pad.inputs) == 3
    assert widths is not None
    assert widths.tolist() == [0, 0, 1, 0, 0, 3, 2, 0]


def test_pads_without_a_rank_stay() -> None:
    weights = "int64[2] p = {1,2}, int64[1] a = {0}"
    body = "r = Reshape(x, k) y = Pad(r, p, , a)"
    model = model_of(body, weights, x="float[4] x, int64[K] k", y="float[M] y", opset=18)
    assert declined(CANON, model) == {"the rank is not known"}


def test_the_runtime_runs_int8_layers_around_a_pad_of_some_axes() -> None:
    weights = "float[8,8,1,1] w={seed}, float[4,8,3,3] v={seed}, int64[4] p={1,1,1,1}, int64[2] a={2,3}"
    model = graph(
        "c = Conv(x, w) r = Relu(c) q = Pad(r, p, , a) y = Conv(q, v)", weights, "1,8,9,9", opset=18
    )
    assert CANON.run(model, Context())
    infer_shapes(model)
    before, after, _ = quantised(model)
    (feed, *_) = feeds_of(model)
    assert sqnr(run(before, feed)[0], run(after, feed)[0]) > 30


@pytest.mark.parametrize(
    "indices", ["int64[2,1] k = {-1, 1}", "int64[1] k = {2}", "int64[1,2,1] k = {0, -3}"]
)
def test_lookups_along_one_axis_are_gathers(indices: str) -> None:
    shape = {"int64[2,1]": "2,4,5", "int64[1] ": "4,5"}.get(indices[:10], "1,2,4,5")
    model = model_of("y = GatherND(x, k)", indices, x="float[3,4,5] x", y=f"float[{shape}] y")
    assert rewrite(CANON, model).ops == ["Gather"]


@pytest.mark.parametrize(
    ("attributes", "indices", "y"),
    [
        ("", "int64[1,2] k = {1, 1}", "float[1,5] y"),
        ("<batch_dims = 1>", "int64[3,1] k = {1, 0, 2}", "float[3,5] y"),
    ],
)
def test_lookups_along_more_axes_stay(attributes: str, indices: str, y: str) -> None:
    model = model_of(f"y = GatherND{attributes}(x, k)", indices, x="float[3,4,5] x", y=y)
    assert declined(CANON, model)
