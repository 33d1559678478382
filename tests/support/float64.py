# SPDX-License-Identifier: Apache-2.0
"""Operators that ONNX's reference evaluator computes wrongly or not at all, for the float64 truth.

BatchNormalization before opset 14 runs there in training mode; grouped ConvTranspose and pools with windows
that differ along the axes fail; so does Conv, before onnx 1.23, with auto_pad (VALID, or SAME with strides)
and with pads wider than its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_conv
from onnx.reference.ops import op_max_pool as reference
from onnx.reference.ops.op_average_pool import AveragePool_19

Array = NDArray[Any]


class BatchNormalization(OpRun):
    """Inference form of every opset; y = (x - mean) / sqrt(var + epsilon) * scale + bias over axis 1."""

    def _run(
        self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, **attributes: Any
    ) -> tuple[Array, ...]:
        epsilon = np.float64(np.float32(attributes.get("epsilon") or 1e-5))
        if attributes.get("training_mode") or attributes.get("spatial") == 0:
            raise NotImplementedError("only inference over channels")
        shape = (-1, *[1] * (x.ndim - 2))
        scale, bias, mean, var = (p.reshape(shape) for p in (scale, bias, mean, var))
        return (((x - mean) / np.sqrt(var + epsilon) * scale + bias).astype(x.dtype),)


class Conv(op_conv.Conv):
    """Pads, and those auto_pad means (Conv of the specification), come first; the rest as there."""

    def _run(self, *inputs: Array, **attributes: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        auto = attributes.get("auto_pad")
        n = inputs[0].ndim - 2
        pads = list(_ints(attributes, "pads", 2 * n, 0))
        if auto in ("VALID", "SAME_UPPER", "SAME_LOWER"):
            total = [0] * n
            if auto != "VALID":
                strides, dilations = _ints(attributes, "strides", n, 1), _ints(attributes, "dilations", n, 1)
                for i, (size, taps) in enumerate(zip(inputs[0].shape[2:], inputs[1].shape[2:], strict=True)):
                    last = (-(-size // strides[i]) - 1) * strides[i]
                    total[i] = max(last + (taps - 1) * dilations[i] + 1 - size, 0)
            less, more = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = more + less if auto == "SAME_LOWER" else less + more
        around = [(0, 0), (0, 0), *((pads[i], pads[n + i]) for i in range(n))]
        attributes = {**attributes, "auto_pad": "NOTSET", "pads": [0] * 2 * n}
        return cast("Any", super()._run(np.pad(inputs[0], around), *inputs[1:], **attributes))


class ConvTranspose(OpRun):
    """Any rank, group, stride, dilation and explicit pads; each input element adds its scaled kernel."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> tuple[Array]:
        if attributes.get("auto_pad") not in (None, "NOTSET") or attributes.get("output_shape"):
            raise NotImplementedError("only explicit pads")
        n = x.ndim - 2
        strides, dilations = _ints(attributes, "strides", n, 1), _ints(attributes, "dilations", n, 1)
        pads, extra = _ints(attributes, "pads", 2 * n, 0), _ints(attributes, "output_padding", n, 0)
        group = attributes.get("group") or 1
        full = [(x.shape[2 + i] - 1) * strides[i] + (w.shape[2 + i] - 1) * dilations[i] + 1 for i in range(n)]
        per_group = w.shape[1]
        y = np.zeros(
            (x.shape[0], per_group * group, *[f + e for f, e in zip(full, extra, strict=True)]), x.dtype
        )
        for g in range(group):
            rows = slice(g * (x.shape[1] // group), (g + 1) * (x.shape[1] // group))
            target = y[:, g * per_group : (g + 1) * per_group]
            for at in product(*map(range, w.shape[2:])):
                spot = tuple(
                    slice(
                        at[i] * dilations[i],
                        at[i] * dilations[i] + (x.shape[2 + i] - 1) * strides[i] + 1,
                        strides[i],
                    )
                    for i in range(n)
                )
                target[(slice(None), slice(None), *spot)] += np.einsum(
                    "nc...,co->no...", x[:, rows], w[(rows, slice(None), *at)]
                )
        inner = tuple(slice(pads[i], y.shape[2 + i] - pads[n + i]) for i in range(n))
        y = y[(slice(None), slice(None), *inner)]
        return (y if b is None else y + b.reshape(-1, *[1] * n),)


class MaxPool(reference.MaxPool):
    """Explicit pads and floor mode, of windows; the rest as the reference has it."""

    def _run(self, *inputs: Array, **attributes: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if _is_special(attributes) or len(self.onnx_node.output) > 1:
            return cast("Any", super()._run(*inputs, **attributes))
        (x,) = inputs
        return (_windows(x, attributes, -np.inf).max(axis=-1).astype(x.dtype),)


class AveragePool(AveragePool_19):
    """Explicit pads and floor mode, as the sum of windows over their counted elements; the rest as there."""

    def _run(self, *inputs: Array, **attributes: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if _is_special(attributes):
            return super()._run(*inputs, **attributes)
        (x,) = inputs
        counted = attributes.get("count_include_pad") or 0
        count = _windows(np.ones_like(x), attributes, counted).sum(axis=-1)
        return ((_windows(x, attributes, 0.0).sum(axis=-1) / count).astype(x.dtype),)


def _is_special(attributes: dict[str, Any]) -> bool:
    automatic = attributes.get("auto_pad") not in (None, "NOTSET")
    return bool(automatic or attributes.get("ceil_mode") or attributes.get("storage_order"))


def _windows(x: Array, attributes: dict[str, Any], fill: float) -> Array:
    """The padded input's windows, [N, C, places..., elements]."""
    kernel = _ints(attributes, "kernel_shape", 0, 0)
    n = len(kernel)
    strides, dilations = _ints(attributes, "strides", n, 1), _ints(attributes, "dilations", n, 1)
    pads = _ints(attributes, "pads", 2 * n, 0)
    around = [(0, 0), (0, 0), *((pads[i], pads[n + i]) for i in range(n))]
    padded = np.pad(x, around, constant_values=fill)
    places = [(padded.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(n)]
    taps: list[Array] = []
    for at in product(*map(range, kernel)):
        first = [at[i] * dilations[i] for i in range(n)]
        spot = [slice(f, f + (p - 1) * s + 1, s) for f, p, s in zip(first, places, strides, strict=True)]
        taps.append(padded[(slice(None), slice(None), *spot)])
    return np.stack(taps, axis=-1)


def _ints(attributes: dict[str, Any], name: str, count: int, default: int) -> Sequence[int]:
    given = attributes.get(name)
    return [default] * count if given is None else [int(i) for i in given]


CORRECTED: list[type[OpRun]] = [BatchNormalization, Conv, ConvTranspose, MaxPool, AveragePool]
