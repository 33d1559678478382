# SPDX-License-Identifier: Apache-2.0
"""Windows that slide over spatial axes: strides, dilations, pads, and the pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Function

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True)
class Window:
    """How a kernel slides; one entry per spatial axis.

    Attributes:
        kernel: sizes.
        strides: steps.
        dilations: distances between taps.
        pads: what is added before and after each axis.
        ceiling: what more must be added after each axis for the last, partial window (ceil_mode).
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[tuple[int, int]]
    ceiling: list[int]

    @property
    def count(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @classmethod
    def of(cls, call: Call, x: Tensor, kernel: list[int]) -> Window:
        """From a node's attributes and the size of what it reads."""
        n = len(kernel)
        strides = call.ints("strides") or [1] * n
        dilations = call.ints("dilations") or [1] * n
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        size = list(x.shape[2:])
        padding = call.string("auto_pad", "NOTSET")
        if padding.startswith("SAME"):
            pads = [_same(s, t, r, padding) for s, t, r in zip(size, strides, reach, strict=True)]
        else:
            given = (call.ints("pads") if padding == "NOTSET" else None) or [0] * (2 * n)
            pads = list(zip(given[:n], given[n:], strict=True))
        ceiling = [0] * n
        if call.int("ceil_mode", 0):
            ceiling = [_partial(s, p, t, r) for s, p, t, r in zip(size, pads, strides, reach, strict=True)]
        return cls(kernel, strides, dilations, pads, ceiling)


def _same(size: int, stride: int, reach: int, padding: str) -> tuple[int, int]:
    total = max(0, (-(-size // stride) - 1) * stride + reach - size)
    small = total // 2
    return (small, total - small) if padding == "SAME_UPPER" else (total - small, small)


def _partial(size: int, pads: tuple[int, int], stride: int, reach: int) -> int:
    """Padding for one more window, when one begins inside the input or the padding before it."""
    span = size + sum(pads) - reach
    steps = -(-span // stride)
    if steps * stride >= size + pads[0]:
        steps -= 1
    return max(0, steps * stride - span)


def pad_ends(x: Tensor, pads: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Add a constant around the last axes, one (before, after) each."""
    if not any(before or after for before, after in pads):
        return x
    return functional.pad(x, [end for pair in reversed(pads) for end in pair], value=value)


def _max_pool(call: Call) -> Tensor:
    if call.outputs > 1:
        raise call.refuse("it gives indices")
    x = call.x()
    window = Window.of(call, x, call.ints("kernel_shape") or [])
    if window.count not in _MAX:
        raise call.refuse(f"{window.count} spatial axes")
    pads = [(b, e + c) for (b, e), c in zip(window.pads, window.ceiling, strict=True)]
    return _MAX[window.count](
        pad_ends(x, pads, -torch.inf), window.kernel, stride=window.strides, dilation=window.dilations
    )


def _average_pool(call: Call) -> Tensor:
    x = call.x()
    window = Window.of(call, x, call.ints("kernel_shape") or [])
    if window.count not in _AVERAGE or max(window.dilations) > 1:
        raise call.refuse("dilations" if window.count in _AVERAGE else f"{window.count} spatial axes")
    pool = _AVERAGE[window.count]
    more = [(0, c) for c in window.ceiling]
    counted = torch.ones_like(x[:1, :1])
    value = 1.0 if call.int("count_include_pad", 0) else 0.0
    counted = pad_ends(pad_ends(counted, window.pads, value), more, 0.0)
    padded = pad_ends(pad_ends(x, window.pads, 0.0), more, 0.0)
    share = pool(counted, window.kernel, stride=window.strides)  # of each window that counts
    return pool(padded, window.kernel, stride=window.strides) / share


def _global(call: Call, *, largest: bool) -> Tensor:
    x = call.x()
    axes = list(range(2, x.dim()))
    return torch.amax(x, dim=axes, keepdim=True) if largest else torch.mean(x, dim=axes, keepdim=True)


TABLE: dict[str, Function] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda call: _global(call, largest=False),
    "GlobalMaxPool": lambda call: _global(call, largest=True),
    "MaxPool": _max_pool,
}
