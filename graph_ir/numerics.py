# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of ONNX QuantizeLinear and DequantizeLinear, and the grids it is done on.

`q = saturate(round_half_even(x / scale) + zero_point)` and `x = (q - zero_point) * scale`, in float32 as the
operators define it. All functions are pure; none writes into its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = "NDArray[Any]"
    Floats: TypeAlias = "NDArray[np.float32]"

# The product of an activation scale and a weight scale (the bias scale) must stay a normal float32.
SMALLEST_SCALE = 2.0**-60
LARGEST_SCALE = 2.0**60
INT32_MAX = 2**31 - 1

_BLOCK = 1 << 16  # weights searched at once: the temporaries stay in the cache


@dataclass(frozen=True, eq=False)
class QuantParams:
    """A quantisation grid.

    Attributes:
        scale: float32; 0-d for the whole tensor, or 1-d with one step per index of `axis`.
        zero_point: the code of 0.0, in the dtype of the codes and the shape of `scale`.
        axis: the axis of a 1-d scale; None for the whole tensor.
    """

    scale: Floats
    zero_point: Array
    axis: int | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the codes."""
        return self.zero_point.dtype

    @property
    def key(self) -> tuple[bytes, bytes, str, int | None]:
        """Equal for equal grids."""
        return self.scale.tobytes(), self.zero_point.tobytes(), str(self.dtype), self.axis

    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value the (whole-tensor) grid can hold."""
        info = np.iinfo(self.dtype)
        zero, scale = int(self.zero_point), float(self.scale)
        return (info.min - zero) * scale, (info.max - zero) * scale


def activation_params(
    lo: float, hi: float, dtype: type[np.integer[Any]] = np.uint8, *, symmetric: bool = False
) -> QuantParams:
    """The grid that covers `[lo, hi]` and has 0.0 exactly on it.

    Asymmetric: all codes of the dtype span the range widened to hold 0; a range with `lo >= 0` gets the
    dtype's lowest code as zero point (which is what lets a runtime absorb a Relu). Symmetric: the zero point
    is the middle code (0 for signed types) and the lowest signed code is not used. A range of zero width
    around 0, or one too narrow for a normal scale, gets a grid that holds 0 and has the step 1 or the
    smallest usable one.

    Raises:
        ValueError: when a bound is not finite, `lo > hi`, or the range is too wide for a float32 step.
    """
    if not (np.isfinite(lo) and np.isfinite(hi)):
        raise ValueError(f"range [{lo}, {hi}] is not finite")
    if lo > hi:
        raise ValueError(f"range [{lo}, {hi}] is empty")
    info = np.iinfo(dtype)
    lo, hi = min(float(lo), 0.0), max(float(hi), 0.0)
    if symmetric:
        middle = 0 if info.min < 0 else (info.max + 1) // 2
        scale = _usable(max(-lo, hi) / (info.max - middle))
        return QuantParams(np.array(scale, np.float32), np.array(middle, dtype))
    scale = _usable((hi - lo) / (info.max - info.min))
    zero = int(np.clip(np.rint(info.min - lo / scale), info.min, info.max))
    return QuantParams(np.array(scale, np.float32), np.array(zero, dtype))


def _usable(scale: float) -> float:
    if scale == 0.0:
        return 1.0
    if scale > LARGEST_SCALE:
        raise ValueError(f"a step of {scale:g} is too large")
    return float(np.float32(max(scale, SMALLEST_SCALE)))


def quantize(x: Array, params: QuantParams) -> Array:
    """QuantizeLinear: the codes of `x` (any float dtype; computed in float32), saturated.

    Raises:
        ValueError: when `x` holds a NaN, whose code the operator leaves undefined.
    """
    values = np.asarray(x, np.float32)
    if np.isnan(np.min(values, initial=0.0)):
        raise ValueError("cannot quantize NaN")
    info = np.iinfo(params.dtype)
    scale, zero = _spread(params, values.ndim)
    exact = np.float32 if params.dtype.itemsize <= 2 else np.float64  # for every code there is
    zero = zero.astype(exact)
    with np.errstate(over="ignore"):
        steps = np.asarray(np.divide(values, scale))
    steps = np.rint(steps, out=steps).astype(exact, copy=False)
    np.clip(steps, info.min - zero, info.max - zero, out=steps)
    np.add(steps, zero, out=steps)
    return steps.astype(params.dtype)


def dequantize(q: Array, params: QuantParams) -> Floats:
    """DequantizeLinear: the float32 values of the codes."""
    codes = np.asarray(q)
    scale, zero = _spread(params, codes.ndim)
    exact = np.float32 if codes.dtype.itemsize <= 2 else np.int64
    steps = np.asarray(codes.astype(exact) - zero.astype(exact)).astype(np.float32, copy=False)
    return np.multiply(steps, scale, out=steps)


def _spread(params: QuantParams, ndim: int) -> tuple[Floats, NDArray[np.int64]]:
    zero = params.zero_point.astype(np.int64)
    if params.axis is None:
        return params.scale, zero
    shape = [1] * ndim
    shape[params.axis] = -1
    return params.scale.reshape(shape), zero.reshape(shape)


def weight_params(w: Array, axis: int | None, *, bits: int = 8, mse: bool = False) -> QuantParams:
    """The symmetric int8 grid of a weight: zero point 0, codes within `+-(2**(bits-1) - 1)`.

    Args:
        w: finite weights of any float dtype.
        axis: the channel axis with one scale per index, or None for a single scale.
        bits: 2 to 8; 7 avoids the 16-bit saturation of x86 CPUs without VNNI.
        mse: shrink each channel's scale to the one of 41 candidates (0.5 to 1 times max-abs) with the least
            squared error of the weights.

    A channel of zeros takes the median scale of the others (1 when there are none), so that its bias keeps a
    fine step and no scale is 0.

    Raises:
        ValueError: when a weight is not finite.
    """
    values = np.asarray(w, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a weight is not finite")
    top = 2 ** (bits - 1) - 1
    rows = (
        values.reshape(1, -1)
        if axis is None
        else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    )
    peak = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    live = peak > 0
    spare = float(np.median(peak[live])) if live.any() else float(top)
    scale = np.where(live, peak, spare) / top
    if mse:
        scale = _least_squares(rows, scale, top)
    scale = np.clip(scale, SMALLEST_SCALE, LARGEST_SCALE).astype(np.float32)
    shaped = scale.reshape(()) if axis is None else scale
    return QuantParams(shaped, np.zeros(shaped.shape, np.int8), axis)


def _least_squares(rows: Floats, scale: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    best = [
        _least_squares_of_few(
            np.ascontiguousarray(rows[start : start + step]), scale[start : start + step], top
        )
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(best) if best else scale


def _least_squares_of_few(rows: Floats, scale: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    best, least, error = scale, np.full(len(rows), np.inf), np.empty_like(rows)
    for factor in np.linspace(1.0, 0.5, 41):
        tried = np.maximum(scale * factor, SMALLEST_SCALE)[:, None].astype(np.float32)
        np.rint(np.divide(rows, tried, out=error), out=error)
        np.multiply(np.clip(error, -top, top, out=error), tried, out=error)
        np.subtract(rows, error, out=error)
        total = np.einsum("ij,ij->i", error, error, dtype=np.float64)
        better = total < least
        best, least = np.where(better, tried[:, 0], best), np.where(better, total, least)
    return best


def raise_scales_for_bias(bias: Array, x_scale: float, weights: QuantParams, depth: int) -> QuantParams:
    """Weight scales raised where `bias / (x_scale * w_scale)` would not fit the int32 accumulator.

    Room is left for the `depth` products of at most 255 * 127 that are added to the bias. Only the channels
    in need change; coarser weights of a channel whose bias dwarfs them cost nothing that its output could
    show.
    """
    room = float(max(INT32_MAX - depth * 255 * 127, 2**30))
    least = np.abs(np.asarray(bias, np.float64)) / (float(x_scale) * room)
    if weights.axis is None:
        least = least.max(initial=0.0)
    scale = np.asarray(weights.scale, np.float64)
    raised = np.where(
        least > scale, np.nextafter(least.astype(np.float32), np.float32(np.inf)), weights.scale
    )
    return QuantParams(np.asarray(raised, np.float32), weights.zero_point, weights.axis)


def quantize_bias(bias: Array, x_scale: Array, w_scale: Array) -> tuple[NDArray[np.int32], Floats]:
    """A bias as int32 codes with zero point 0 and the exact scale `x_scale * w_scale` (float32), clamped.

    Args:
        bias: shape `[C]`.
        x_scale: 0-d.
        w_scale: 0-d or `[C]`.

    Returns:
        Codes and scales, both `[C]`.
    """
    scale = np.broadcast_to(np.asarray(x_scale, np.float32) * np.asarray(w_scale, np.float32), np.shape(bias))
    codes = np.rint(np.asarray(bias, np.float64) / scale.astype(np.float64))
    return np.clip(codes, -INT32_MAX, INT32_MAX).astype(np.int32), np.ascontiguousarray(scale)


def pack_int4(values: Array) -> NDArray[np.uint8]:
    """Pack 4-bit codes two to a byte as ONNX stores them: C order, first in the low half, padded with 0.

    Args:
        values: integers in [-8, 7] (signed dtype) or [0, 15] (unsigned dtype).

    Raises:
        ValueError: when a code does not fit.
    """
    flat = np.asarray(values).reshape(-1)
    low, high = (0, 15) if np.issubdtype(flat.dtype, np.unsignedinteger) else (-8, 7)
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(f"a code lies outside [{low}, {high}]")
    nibbles = (flat.astype(np.int16) & 15).astype(np.uint8)
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return np.bitwise_or(nibbles[0::2], np.left_shift(nibbles[1::2], 4), dtype=np.uint8)
