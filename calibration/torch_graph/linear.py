# SPDX-License-Identifier: Apache-2.0
"""Products and convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Function
from .windows import Window, pad_ends

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _matmul(call: Call) -> Tensor:
    return torch.matmul(call.x(0), call.x(1))


def _gemm(call: Call) -> Tensor:
    a = call.x(0).transpose(0, 1) if call.int("transA", 0) else call.x(0)
    b = call.x(1).transpose(0, 1) if call.int("transB", 0) else call.x(1)
    made, bias = torch.matmul(a, b), call.maybe(2)
    if call.float("alpha", 1.0) != 1.0:
        made = call.float("alpha", 1.0) * made
    return made if bias is None else made + call.float("beta", 1.0) * bias


def _einsum(call: Call) -> Tensor:
    return torch.einsum(call.string("equation", ""), *call.all())


def _conv(call: Call) -> Tensor:
    x, weight = call.x(0), call.x(1)
    window = Window.of(call, x, list(weight.shape[2:]))
    if window.count not in _CONV:
        raise call.refuse(f"{window.count} spatial axes")
    return _CONV[window.count](
        pad_ends(x, window.pads, 0.0), weight, call.maybe(2),
        stride=window.strides, dilation=window.dilations, groups=call.int("group", 1),
    )  # fmt: skip


def _conv_transpose(call: Call) -> Tensor:
    x, weight = call.x(0), call.x(1)
    n = x.dim() - 2
    if n not in _CONV_TRANSPOSE:
        raise call.refuse(f"{n} spatial axes")
    strides = call.ints("strides") or [1] * n
    dilations = call.ints("dilations") or [1] * n
    extra = call.ints("output_padding") or [0] * n
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    full = [(s - 1) * t + r + e for s, t, r, e in zip(x.shape[2:], strides, reach, extra, strict=True)]
    made = _CONV_TRANSPOSE[n](
        x, weight, None, stride=strides, dilation=dilations, groups=call.int("group", 1)
    )
    begins, ends = _cuts(call, x, full, strides)
    # An output padding, or an output shape that asks for more, reaches beyond what the kernel touches.
    lack = [max(0, f - s) for f, s in zip(full, made.shape[2:], strict=True)]
    made = pad_ends(made, [(0, e) for e in lack], 0.0)
    for axis in range(n):
        stop = full[axis] - ends[axis]
        made = made.narrow(2 + axis, begins[axis], min(stop, made.shape[2 + axis]) - begins[axis])
    bias = call.maybe(2)
    return made if bias is None else made + bias.reshape(1, -1, *[1] * n)


def _cuts(call: Call, x: Tensor, full: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """What is cut off the full output at the beginnings and ends."""
    n = x.dim() - 2
    padding, wanted = call.string("auto_pad", "NOTSET"), call.ints("output_shape")
    if wanted is None and padding in ("NOTSET", "VALID"):
        pads = (call.ints("pads") or [0] * (2 * n)) if padding == "NOTSET" else [0] * (2 * n)
        return pads[:n], pads[n:]
    sizes = wanted or [s * t for s, t in zip(x.shape[2:], strides, strict=True)]
    total = [f - s for f, s in zip(full, sizes[-n:], strict=True)]
    if min(total) < 0:
        raise call.refuse("its output shape is larger than what the kernel reaches")
    small = [t // 2 for t in total]
    large = [t - s for t, s in zip(total, small, strict=True)]
    return (small, large) if padding == "SAME_UPPER" else (large, small)


TABLE: dict[str, Function] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
