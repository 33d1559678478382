# SPDX-License-Identifier: Apache-2.0
"""Resize, axis by axis: where each output element reads, with what weights (ONNX specification, Resize)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .call import Call, Function

Places = NDArray[np.float64]


def _resize(call: Call) -> Tensor:
    x = call.x()
    if call.version < 11:
        return _scaled(call, x, call.x(1).tolist(), None, "asymmetric")
    if call.int("antialias", 0) or call.string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("antialias, or a kept aspect ratio")
    scales = call.x(2).tolist() if call.has(2) and call.x(2).numel() else None
    return _scaled(
        call, x, scales, call.contents(3), call.string("coordinate_transformation_mode", "half_pixel")
    )


def _upsample(call: Call) -> Tensor:
    attr = call.attrs.get("scales")
    scales = call.x(1).tolist() if attr is None else [float(s) for s in attr.as_floats()]
    return _scaled(call, call.x(), scales, None, "asymmetric")


def _scaled(
    call: Call, x: Tensor, scales: list[float] | None, sizes: list[int] | None, coordinates: str
) -> Tensor:
    axes = [a % x.dim() for a in call.ints("axes") or range(x.dim())]
    for i, axis in enumerate(axes):
        size = x.shape[axis]
        wanted = (
            sizes[i] if scales is None and sizes is not None else int(np.floor(size * (scales or [1])[i]))
        )
        scale = wanted / size if scales is None else scales[i]
        if wanted != size or scale != 1.0:
            x = _along(call, x, axis, wanted, scale, coordinates)
    return x


def _along(call: Call, x: Tensor, axis: int, wanted: int, scale: float, coordinates: str) -> Tensor:
    size = x.shape[axis]
    places = _places(call, size, wanted, scale, coordinates)
    mode = call.string("mode", "nearest")
    if mode == "nearest":
        rounding = call.string("nearest_mode", "round_prefer_floor" if call.version >= 11 else "floor")
        near = np.clip(_rounded(places, rounding), 0, size - 1)
        return x.index_select(axis, torch.from_numpy(near.astype(np.int64)))
    if mode != "linear":
        raise call.refuse(f"mode {mode}")
    low = np.floor(places)
    shape = [-1 if i == axis else 1 for i in range(x.dim())]
    share = torch.from_numpy(places - low).to(x.dtype).reshape(shape)
    first, second = (
        x.index_select(axis, torch.from_numpy(np.clip(at, 0, size - 1).astype(np.int64)))
        for at in (low, low + 1)
    )
    return first * (1 - share) + second * share


def _places(call: Call, size: int, wanted: int, scale: float, coordinates: str) -> Places:
    at = np.arange(wanted, dtype=np.float64)
    if coordinates == "asymmetric":
        return at / scale
    if coordinates == "align_corners":
        return at * ((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and wanted > 1):
        return (at + 0.5) / scale - 0.5
    if coordinates == "pytorch_half_pixel":
        return at * 0.0
    if coordinates == "half_pixel_symmetric":
        adjust = wanted / (scale * size)
        return size / 2 * (1 - adjust) + (at + 0.5) / scale - 0.5
    raise call.refuse(f"coordinates {coordinates}")


def _rounded(places: Places, mode: str) -> Places:
    if mode == "floor":
        return np.floor(places)
    if mode == "ceil":
        return np.ceil(places)
    return np.floor(places + 0.5) if mode == "round_prefer_ceil" else np.ceil(places - 0.5)


TABLE: dict[str, Function] = {"Resize": _resize, "Upsample": _upsample}
