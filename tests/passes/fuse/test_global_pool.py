# SPDX-License-Identifier: Apache-2.0
"""ReduceMean over space as GlobalAveragePool: what is rewritten, and what stays."""

from __future__ import annotations

import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.passes.fuse.global_pool import ReduceMeanToGlobalAveragePool
from tests.support.rewriting import declined, model_of, retyped, rewrite

FUSE = ReduceMeanToGlobalAveragePool()


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
@pytest.mark.parametrize(
    ("x", "axes", "keep", "y"),
    [
        ("N,4,5,6", "[2,3]", ", keepdims = 1", "N,4,1,1"),
        ("N,4,5,6", "[3,2]", "", "N,4,1,1"),
        ("1,4,7", "[2]", "", "1,4,1"),
        ("1,4,2,3,2", "[2,3,4]", "", "1,4,1,1,1"),
        ("N,4,H,W", "[2,3]", ", keepdims = 0", "N,4"),
    ],
)
def test_attribute_form(x: str, axes: str, keep: str, y: str, opset: int) -> None:
    model = model_of(
        f"y = ReduceMean<axes = {axes}{keep}>(x)", x=f"float[{x}] x", y=f"float[{y}] y", opset=opset
    )
    squeezed = ["Squeeze"] if "= 0" in keep else []
    assert rewrite(FUSE, model).ops == ["GlobalAveragePool", *squeezed]


@pytest.mark.parametrize("axes", ["{2, 3}", "{-1, -2}", "{-2, 3}"])
def test_input_form_and_negative_axes(axes: str) -> None:
    model = model_of(
        "y = ReduceMean(x, axes)",
        f"int64[2] axes = {axes}",
        x="float[2,4,5,6] x",
        y="float[2,4,1,1] y",
        opset=18,
    )
    assert rewrite(FUSE, model).ops == ["GlobalAveragePool"]


def test_half_precision() -> None:
    model = model_of("y = ReduceMean<axes = [-2,-1]>(x)", x="float[2,4,5,6] x", y="float[2,4,1,1] y")
    assert rewrite(FUSE, retyped(model, onnx.TensorProto.FLOAT16)).ops == ["GlobalAveragePool"]


OTHER = "other axes than the spatial ones"
NONE = "no axes: the mean of everything, or of nothing"


@pytest.mark.parametrize(
    ("x", "attributes", "y", "reason"),
    [
        ("float[2,4,5,6]", "axes = [2]", "float[2,4,1,6]", OTHER),
        ("float[2,4,5,6]", "axes = [1,2,3]", "float[2,1,1,1]", OTHER),
        ("float[2,4,5,6]", "axes = [1,2]", "float[2,1,1,6]", OTHER),
        ("float[2,4,5]", "axes = [-1,-2]", "float[2,1,1]", OTHER),
        ("float[2,4,5,6]", "keepdims = 1", "float[1,1,1,1]", NONE),
        ("float[2,0,5,6]", "axes = [2,3]", "float[2,0,1,1]", "nothing to pool"),
        ("float[2,4]", "axes = [1]", "float[2,1]", "not known to have spatial axes"),
        (
            "int32[2,4,5,6]",
            "axes = [2,3]",
            "int32[2,4,1,1]",
            "not known to be floats GlobalAveragePool takes",
        ),
        (
            "double[2,4,5,6]",
            "axes = [2,3]",
            "double[2,4,1,1]",
            "not known to be floats GlobalAveragePool takes",
        ),
    ],
)
def test_near_misses(x: str, attributes: str, y: str, reason: str) -> None:
    model = model_of(f"y = ReduceMean<{attributes}>(x)", x=f"{x} x", y=f"{y} y")
    assert declined(FUSE, model) == {reason}


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("y = ReduceMean(x)", "", NONE),
        ("y = ReduceMean<noop_with_empty_axes = 1>(x)", "", NONE),
        ("y = ReduceMean<noop_with_empty_axes = 1>(x, axes)", "int64[0] axes = {}", NONE),
        ("y = ReduceMean(x, given)", "", "axes are not constant"),
    ],
)
def test_near_misses_of_the_input_form(body: str, weights: str, reason: str) -> None:
    model = model_of(body, weights, x="float[2,4,5,6] x, int64[2] given", y="float[A,B,C,D] y", opset=18)
    assert declined(FUSE, model) == {reason}


def test_unknown_rank() -> None:
    model = model_of(
        "r = Reshape(x, s) y = ReduceMean<axes = [2,3]>(r)",
        x="float[120] x, int64[K] s",
        y="float[A,B,C,D] y",
    )
    assert declined(FUSE, model) == {"not known to have spatial axes"}


def test_in_a_body() -> None:
    mean = "{0} = ReduceMean<axes = [2,3], keepdims = 0>(x)"
    model = model_of(
        "y = If (flag) <then_branch = yes () => (float[2,4] a) { " + mean.format("a") + " }, "
        "else_branch = no () => (float[2,4] b) { " + mean.format("b") + " }>",
        x="float[2,4,5,6] x, bool flag",
        y="float[2,4] y",
    )
    assert rewrite(FUSE, model).ops == ["If", *["GlobalAveragePool", "Squeeze"] * 2]


@pytest.mark.parametrize(
    ("x", "attributes"),
    [
        ("N,4,5,6", "kernel_shape = [5,6]"),
        ("1,4,7", "kernel_shape = [7], strides = [3]"),
        ("1,4,5,5", "kernel_shape = [5,5], pads = [0,0,0,0], ceil_mode = 1, count_include_pad = 1"),
        ("1,4,5,5", 'kernel_shape = [5,5], auto_pad = "VALID"'),
    ],
)
def test_one_window_over_everything(x: str, attributes: str) -> None:
    n, _, *spatial = x.split(",")
    y = f"float[{n},4{',1' * len(spatial)}] y"
    model = model_of(f"y = AveragePool<{attributes}>(x)", x=f"float[{x}] x", y=y)
    assert rewrite(FUSE, model).ops == ["GlobalAveragePool"]


@pytest.mark.parametrize(
    ("x", "attributes", "y", "reason"),
    [
        ("1,4,5,6", "kernel_shape = [5,5]", "1,4,1,2", "the window is not the whole input"),
        ("1,4,5,W", "kernel_shape = [5,6]", "1,4,1,V", "the window is not the whole input"),
        ("1,4,5,5", "kernel_shape = [5,5], pads = [1,1,0,0]", "1,4,2,2", "padded"),
        ("1,4,5,5", 'kernel_shape = [5,5], auto_pad = "SAME_UPPER"', "1,4,5,5", "padded"),
    ],
)
def test_other_windows(x: str, attributes: str, y: str, reason: str) -> None:
    model = model_of(f"y = AveragePool<{attributes}>(x)", x=f"float[{x}] x", y=f"float[{y}] y")
    assert declined(FUSE, model) == {reason}


MEAN = "m = ReduceMean<axes = [-1]>"


@pytest.mark.parametrize(
    "body",
    [
        f"p = Pow(x, two) {MEAN}(p) e = Add(m, eps) r = Sqrt(e) y = Div(x, r)",
        f"p = Mul(x, x) {MEAN}(p) e = Add(m, eps) r = Sqrt(e) y = Div(x, r)",
        f"{MEAN}(x) y = Sub(x, m)",
    ],
)
def test_normalisations_of_rows_stay_as_the_runtime_fuses_them(body: str) -> None:
    weights = "float two = {2}, float eps = {0.00001}"
    model = model_of(body, weights, x="float[N,5,8] x", y="float[N,5,8] y")
    infer_shapes(model)
    assert declined(FUSE, model) == {"part of a normalisation of rows"}


def test_a_mean_of_a_signal_that_is_taken_off_something_else() -> None:
    model = model_of(f"n = Neg(x) {MEAN}(x) y = Sub(n, m)", x="float[N,5,8] x", y="float[N,5,8] y")
    assert "GlobalAveragePool" in rewrite(FUSE, model).ops
