# SPDX-License-Identifier: Apache-2.0
"""Spatial dims of convolutions and pools over symbolic dims (ONNX Conv, ConvTranspose, MaxPool and kin).

For input size i, kernel k, stride s, dilation d and padding p in all, the output size is
floor((i + p - d*(k-1) - 1) / s) + 1; with ``ceil_mode`` the division rounds up, which is left unknown here;
SAME padding gives ceil(i / s).
"""

from __future__ import annotations

from collections.abc import Sequence

from . import expr
from .expr import Dim
from .node_view import NodeView


def _window(view: NodeView, size: Dim, kernel: Dim, axis: int, count: int) -> Dim:
    """Output size along spatial ``axis`` of ``count``."""
    stride = (view.ints("strides") or [1] * count)[axis]
    dilation = (view.ints("dilations") or [1] * count)[axis]
    padding = view.string("auto_pad", "NOTSET")
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        return expr.ceil_div(size, stride)
    if padding not in ("NOTSET", "VALID") or (view.int("ceil_mode", 0) and stride > 1):
        return None
    pads = (view.ints("pads") or [0] * (2 * count)) if padding == "NOTSET" else [0] * (2 * count)
    reach = expr.add(expr.mul(expr.sub(kernel, 1), dilation), 1)
    span = expr.sub(expr.add(size, pads[axis] + pads[axis + count]), reach)
    return expr.add(expr.floor_div(span, stride), 1)


def _sound(view: NodeView, count: int) -> bool:
    """Whether the list attributes have the lengths the operator asks for."""
    lengths = (("strides", count), ("dilations", count), ("kernel_shape", count), ("pads", 2 * count))
    given = ((view.ints(name), length) for name, length in lengths)
    return all(values is None or len(values) == length for values, length in given)


def conv(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """Dims of Conv, ConvInteger or QLinearConv: batch from the input, channels from the weight."""
    dims, weight = view.dims(0), view.dims(3 if view.op == "QLinearConv" else 1)
    if dims is None or weight is None or len(dims) != len(weight) or len(dims) < 3:
        return [None]
    count = len(dims) - 2
    if not _sound(view, count):
        return [None]
    space = (_window(view, dims[2 + i], weight[2 + i], i, count) for i in range(count))
    return [(dims[0], weight[0], *space)]


def conv_transpose(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """Dims of ConvTranspose: s*(i-1) + output_padding + d*(k-1) + 1 - pads along each axis."""
    dims, weight = view.dims(0), view.dims(1)
    if dims is None or weight is None or len(dims) != len(weight) or len(dims) < 3:
        return [None]
    count = len(dims) - 2
    channels = expr.mul(weight[1], view.int("group", 1))
    if not _sound(view, count) or view.ints("output_shape") or view.string("auto_pad", "NOTSET") != "NOTSET":
        return [(dims[0], channels, *[None] * count)]
    strides = view.ints("strides") or [1] * count
    dilations = view.ints("dilations") or [1] * count
    pads = view.ints("pads") or [0] * (2 * count)
    extra = view.ints("output_padding") or [0] * count
    space = (
        expr.total(
            [
                expr.mul(expr.sub(dims[2 + i], 1), strides[i]),
                expr.mul(expr.sub(weight[2 + i], 1), dilations[i]),
                extra[i] + 1 - pads[i] - pads[i + count],
            ]
        )
        for i in range(count)
    )
    return [(dims[0], channels, *space)]


def pool(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """Dims of MaxPool (both outputs), AveragePool or LpPool."""
    dims, kernel = view.dims(0), view.ints("kernel_shape")
    if dims is None or kernel is None or len(kernel) != len(dims) - 2 or not _sound(view, len(kernel)):
        return [None]
    space = (_window(view, dims[2 + i], k, i, len(kernel)) for i, k in enumerate(kernel))
    result = (*dims[:2], *space)
    return [result] * view.outputs
