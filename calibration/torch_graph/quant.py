# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and DequantizeLinear, with gradients.

Codes are held as floating-point numbers of whole value, and rounding passes gradients straight through
(Bengio et al. 2013, arXiv:1308.3432); beyond the ends of the grid they are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .call import Call, Function

_RANGES = {torch.int8: (-128.0, 127.0), torch.uint8: (0.0, 255.0), torch.int16: (-32768.0, 32767.0)}


def _grid(call: Call) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point, shaped to broadcast over the input."""
    if call.int("block_size", 0):
        raise call.refuse("scales of blocks")
    x, scale, zero = call.x(0), call.x(1), call.maybe(2)
    if scale.dim() and scale.numel() > 1:
        shape = [1] * x.dim()
        shape[call.axis(x.dim(), 1)] = -1
        return scale.reshape(shape), None if zero is None else zero.reshape(shape)
    return scale.reshape([]), None if zero is None else zero.reshape([])


def _quantize(call: Call) -> Tensor:
    scale, zero = _grid(call)
    low, high = _RANGES.get(torch.uint8 if zero is None else zero.dtype, (0.0, 0.0))
    if low == high or call.int("output_dtype", 0):
        raise call.refuse("codes of a type other than int8, uint8 and int16")
    steps = call.x() / scale
    whole = steps + (torch.round(steps) - steps).detach()
    return torch.clamp(whole if zero is None else whole + zero.to(whole.dtype), low, high)


def _dequantize(call: Call) -> Tensor:
    scale, zero = _grid(call)
    codes = call.x().to(scale.dtype)
    return (codes if zero is None else codes - zero.to(scale.dtype)) * scale


TABLE: dict[str, Function] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
