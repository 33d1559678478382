# SPDX-License-Identifier: Apache-2.0
"""Quantisation arithmetic against the operators of onnxruntime, and exact round trips."""

from __future__ import annotations

from typing import Any, cast

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tersor.graph_ir.numerics import (
    INT32_MAX,
    QuantParams,
    activation_params,
    dequantize,
    pack_int4,
    quantize,
    quantize_bias,
    raise_scales_for_bias,
    weight_params,
)

bound = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def runtime(op: str, x: NDArray[Any], params: QuantParams) -> NDArray[Any]:
    """The operator as onnxruntime computes it."""
    kinds = {
        np.dtype(np.uint8): TensorProto.UINT8,
        np.dtype(np.int8): TensorProto.INT8,
        np.dtype(np.float32): TensorProto.FLOAT,
    }
    attributes: dict[str, Any] = {} if params.axis is None else {"axis": params.axis}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "s", "z"], ["y"], **attributes)],
        "q",
        [helper.make_tensor_value_info("x", kinds[x.dtype], x.shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(params.scale, "s"), numpy_helper.from_array(params.zero_point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(inferred.SerializeToString(), providers=["CPUExecutionProvider"])
    return cast("NDArray[Any]", session.run(None, {"x": x})[0])


@settings(max_examples=60, deadline=None)
@given(bound, bound, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_codes_are_those_of_the_operators(
    a: float, b: float, signed: bool, symmetric: bool, seed: int
) -> None:
    lo, hi = sorted((a, b))
    params = activation_params(lo, hi, np.int8 if signed else np.uint8, symmetric=symmetric)
    rng = np.random.default_rng(seed)
    x = (rng.uniform(-1.5, 1.5, 64) * max(abs(lo), abs(hi), 1e-6)).astype(np.float32)
    ties = (np.arange(-8, 8) + 0.5) * params.scale
    x = np.concatenate([x, ties, [0.0, np.inf, -np.inf]]).astype(np.float32)
    codes = quantize(x, params)
    np.testing.assert_array_equal(codes, runtime("QuantizeLinear", x, params))
    np.testing.assert_array_equal(dequantize(codes, params), runtime("DequantizeLinear", codes, params))


@given(bound, bound, st.booleans(), st.booleans())
def test_a_range_is_covered_and_zero_is_exact(a: float, b: float, signed: bool, symmetric: bool) -> None:
    lo, hi = sorted((a, b))
    params = activation_params(lo, hi, np.int8 if signed else np.uint8, symmetric=symmetric)
    assert dequantize(quantize(np.zeros(1, np.float32), params), params)[0] == 0.0
    low, high = params.bounds()
    step = float(params.scale)
    assert low <= min(lo, 0) + step
    assert high >= max(hi, 0) - step
    inside = np.linspace(max(lo, low), min(hi, high), 17).astype(np.float32)
    error = np.abs(dequantize(quantize(inside, params), params) - inside)
    assert error.max() <= step * (0.5 + 1e-3)


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 0.0), (0.0, 6.0), (2.0, 7.0), (3.0, 3.0)])
def test_a_range_without_negatives_starts_at_the_lowest_code(lo: float, hi: float) -> None:
    assert int(activation_params(lo, hi).zero_point) == 0
    assert int(activation_params(lo, hi, np.int8).zero_point) == -128


def test_a_range_of_denormals_keeps_a_normal_step() -> None:
    params = activation_params(0.0, 1e-42)
    assert params.scale * params.scale > np.finfo(np.float32).tiny
    assert quantize(np.array([1e-42], np.float32), params)[0] == 0


@pytest.mark.parametrize(("lo", "hi"), [(float("nan"), 1), (0, float("inf")), (2, 1), (0, 1e300)])
def test_an_unusable_range_is_refused(lo: float, hi: float) -> None:
    with pytest.raises(ValueError, match=r"range|step"):
        activation_params(lo, hi)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        quantize(np.array([np.nan], np.float32), activation_params(0, 1))


def test_weights_have_one_symmetric_scale_per_channel() -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 3, 2)).astype(np.float32)
    w[1] = 0
    params = weight_params(w, 0)
    codes = quantize(w, params)
    assert codes.dtype == np.int8
    assert not params.zero_point.any()
    np.testing.assert_array_equal(np.abs(codes).reshape(4, -1).max(1), [127, 0, 127, 127])
    live = np.array([0, 2, 3])
    assert params.scale[1] == np.median(np.abs(w[live]).reshape(3, -1).max(1) / 127).astype(np.float32)
    np.testing.assert_array_equal(codes, runtime("QuantizeLinear", w, params))


def test_seven_bits_stay_clear_of_saturation() -> None:
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    assert np.abs(quantize(w, weight_params(w, 1, bits=7))).max() == 63


def test_all_zero_and_unfinite_weights() -> None:
    assert weight_params(np.zeros((2, 2), np.float32), 0).scale.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="not finite"):
        weight_params(np.array([[np.inf]], np.float32), 0)


def test_least_squares_scales_are_never_worse_and_help_outliers() -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((3, 400)).astype(np.float32)
    w[0, 0] = 9.0

    def error(mse: bool) -> NDArray[Any]:
        params = weight_params(w, 0, bits=4, mse=mse)
        return np.square(dequantize(np.clip(quantize(w, params), -7, 7), params) - w).sum(1)

    assert (error(True) <= error(False) * (1 + 1e-6)).all()
    assert error(True)[0] < 0.8 * error(False)[0]


@given(st.floats(1e-6, 1e3), st.floats(1e-9, 1e2), st.floats(-1e6, 1e6))
def test_a_bias_fits_after_its_scale_was_raised(x_scale: float, w_scale: float, bias: float) -> None:
    params = QuantParams(np.array([w_scale, w_scale], np.float32), np.zeros(2, np.int8), 0)
    values = np.array([bias, 0.0], np.float32)
    raised = raise_scales_for_bias(values, x_scale, params, 9)
    codes, scale = quantize_bias(values, np.array(x_scale, np.float32), raised.scale)
    assert raised.scale[1] == params.scale[1]
    assert abs(int(codes[0])) <= INT32_MAX - 9 * 255 * 127 + 1024
    assert abs(codes[0] * float(scale[0]) - float(values[0])) <= float(scale[0]) * 0.51 + abs(bias) * 1e-6
    np.testing.assert_array_equal(scale, np.array(x_scale, np.float32) * raised.scale)


@given(st.lists(st.integers(-8, 7), max_size=9))
def test_int4_is_packed_as_onnx_packs_it(values: list[int]) -> None:
    signed = np.array(values, np.int8)
    unsigned = (signed + 8).astype(np.uint8)
    for codes, dtype in ((signed, ml_dtypes.int4), (unsigned, ml_dtypes.uint4)):
        assert pack_int4(codes).tobytes() == numpy_helper.from_array(codes.astype(dtype), "w").raw_data


@pytest.mark.parametrize(("code", "dtype"), [(8, np.int8), (-9, np.int8), (16, np.uint8)])
def test_codes_beyond_4_bits_are_not_packed(code: int, dtype: type[np.integer[Any]]) -> None:
    with pytest.raises(ValueError, match="outside"):
        pack_int4(np.array([code], dtype))
