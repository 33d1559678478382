# SPDX-License-Identifier: Apache-2.0
"""ConvTranspose as a convolution whose channels become pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataType, Model, Node, Rewriter, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_constant, is_op, only_user, string_attr
from ..base import Context, Exactness, Pass

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ALONE = ("Clip", "LeakyRelu", "Relu")  # of each element alone, and of one bound or slope
_FEWEST = 8  # channels made, below which nothing is gained
_MOST = 2.5  # products for one before


@dataclass(frozen=True)
class _Taps:
    """Along one axis: y[s t + a] = sum over d from `low` to `high` of W[s d + a + pad] x[t - d]."""

    size: int
    kernel: int
    stride: int
    pad: int

    @property
    def low(self) -> int:
        """The least d that a tap of any of the s phases falls on."""
        return -((self.stride - 1 + self.pad) // self.stride)

    @property
    def high(self) -> int:
        """The largest."""
        return (self.kernel - 1 - self.pad) // self.stride

    @property
    def products(self) -> float:
        """For each one before, zeros included."""
        return (self.high - self.low + 1) * self.stride / self.kernel

    def picked(self, weight: NDArray[Any], axis: int) -> NDArray[Any]:
        """The taps by phase and position, two axes in place of one; zeros where there is none."""
        offsets = np.arange(self.high, self.low - 1, -1)  # the first position of the window has the largest d
        index = self.stride * offsets + np.arange(self.stride)[:, None] + self.pad
        inside = (index >= 0) & (index < self.kernel)
        taps = np.take(weight, np.clip(index, 0, self.kernel - 1), axis=axis)
        behind = weight.ndim - axis - 1
        return np.where(inside.reshape(*inside.shape, *(1,) * behind), taps, taps.dtype.type(0))


@dataclass(frozen=True)
class ConvTransposeToConv(Pass):
    """Write ConvTranspose with strides as a convolution and a move of its channels into pixels.

    Along each axis, with stride s, pixel s t + a of the result sees every s-th tap of the kernel:

        y[s t + a] = sum over d of W[s d + a + pad] x[t - d]

    So one convolution of the input, with s filters for each channel and axis, computes all pixels; Reshape
    and Transpose put them in their places. Taps that some phases lack are zeros. Where there is one pixel
    along an axis, all it makes there are its phases. A Relu, LeakyRelu or Clip behind is of each element
    alone and goes in front of the move.

    Not valid, so left alone: groups, dilations, automatic padding; sizes other than s times those before;
    weights or biases that are no constants. Not done: other types than float32 rows and pictures of known
    size; opsets below 13; fewer than 8 channels made; more than 2.5 times the products; results that lead
    to no linear layer (among which count other ConvTransposes).

    For int8 in onnxruntime, which has no such kernel for ConvTranspose: 1.1 to 2.2 times as fast with the
    layers beside it. In float it is slower. It needs shapes (`infer-shapes`).
    """

    name: ClassVar[str] = "conv-transpose-to-conv"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid, from the outputs on; True if anything changed."""
        rw = ctx.rewriter(model)
        if not rw.occurs("ConvTranspose"):
            return False
        leading: set[Node] = set()
        for node in reversed(list(model.graph)):
            readers = [user for value in node.outputs for user, _ in value.uses()]
            leads = any(user in leading or is_op(user, *_LINEAR) for user in readers)
            if not is_op(node, "ConvTranspose"):
                leading.update([node] if leads else [])
            elif rw.allowed(self.name, node):
                ctx.tally(self.name, _rewritten(node, rw) if leads else "leads to no linear layer")
        return rw.edits > 0


def _rewritten(node: Node, rw: Rewriter) -> str | None:
    """Put the convolution in the place of a ConvTranspose; the reason where it is left alone."""
    x, bias = node.inputs[0], input_at(node, 2)
    weight, shift = constant(node.inputs[1]), constant(bias)
    axes = _taps(node)
    if isinstance(axes, str):
        return axes
    if x is None or weight is None or (bias is not None and shift is None):
        return "weights or biases are no constants"
    if x.dtype != DataType.FLOAT or rw.opset(node) < 13:
        return "not float32 of opset 13 or later"
    if math.prod(axis.products for axis in axes) > _MOST:
        return "most taps would be zeros"
    made, name = weight.shape[1], node.name or "ConvTranspose"
    if made < _FEWEST:
        return "few channels are made"
    last = moved(node) or node
    picked = weight
    for index, axis in enumerate(axes):  # [in, out, phase, position, ...]
        picked = axis.picked(picked, 2 + 2 * index)
    phases = math.prod(axis.stride for axis in axes)
    order = (*range(2, picked.ndim, 2), 1, 0, *range(3, picked.ndim, 2))
    shape = (phases * made, weight.shape[0], *picked.shape[3::2])
    filters: NDArray[np.float32] = np.transpose(picked, order).reshape(shape)
    with rw.standing_for([node, last]):
        inputs = [x, rw.constant(filters, f"{name}_phases", last)]
        if shift is not None:
            tiled = np.tile(shift, phases)
            inputs.append(rw.constant(tiled, f"{name}_shifts", last))
        attributes = {
            "kernel_shape": list(filters.shape[2:]),
            "pads": [*(axis.high for axis in axes), *(-axis.low for axis in axes)],
        }
        value = rw.node("Conv", inputs, attributes, before=last, name=name).outputs[0]
        if last is not node:
            more, given = [value, *last.inputs[1:]], list(last.attributes.values())
            value = rw.node(last.op_type, more, given, before=last).outputs[0]
        for op_type, given in _move(axes, made):
            if op_type == "Transpose":
                value = rw.node(op_type, [value], {"perm": given}, before=last, name=name).outputs[0]
            else:
                sizes = rw.constant(np.array(given, np.int64), f"{name}_sizes", last)
                value = rw.node(op_type, [value, sizes], before=last, name=name).outputs[0]
        rw.replace(last.outputs[0], value)
        rw.erase_all([last] if last is node else [last, node])
    return None


def _move(axes: Sequence[_Taps], made: int) -> list[tuple[str, list[int]]]:
    """Channels to their places: pixels first, so that whole runs of channels are moved."""
    joined = ("Reshape", [0, *(axis.size * axis.stride for axis in axes), made])
    if len(axes) == 1:
        return [("Transpose", [0, 2, 1]), joined, ("Transpose", [0, 2, 1])]
    rows, columns = axes
    cut = [0, rows.size, columns.size, rows.stride, columns.stride * made]
    apart = [("Reshape", cut), ("Transpose", [0, 1, 3, 2, 4]), joined]
    return [("Transpose", [0, 2, 3, 1]), *apart, ("Transpose", [0, 3, 1, 2])]


def moved(node: Node) -> Node | None:
    """What alone reads the result, if that is of each element alone."""
    user = only_user(node.outputs[0])
    if user is None or not is_op(user, *_ALONE):
        return None
    return user if all(value is None or is_constant(value) for value in user.inputs[1:]) else None


def _taps(node: Node) -> list[_Taps] | str:
    """Which taps each row and column of the result sees; or why that is not known."""
    if int_attr(node, "group", 1) != 1 or any(d != 1 for d in ints_attr(node, "dilations") or []):
        return "groups or dilations"
    if string_attr(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "automatic padding"
    sizes, kernel = dims(node.inputs[0]) or (), (dims(node.inputs[1]) or ())[2:]
    rank = len(kernel)
    if rank not in (1, 2) or len(sizes) != rank + 2:
        return "neither a row nor a picture"
    strides = ints_attr(node, "strides") or [1] * rank
    pads, more = ints_attr(node, "pads") or [0] * 2 * rank, ints_attr(node, "output_padding") or [0] * rank
    found: list[_Taps] = []
    for axis in range(rank):
        size, width, stride = sizes[axis + 2], kernel[axis], strides[axis]
        if not isinstance(size, int) or not isinstance(width, int):
            return "its size is not known"
        made = stride * (size - 1) + more[axis] + width - pads[axis] - pads[axis + rank]
        stride = made if size == 1 else stride  # of one pixel, its length does not matter
        if made < 1 or made != stride * size or not 0 <= pads[axis] < width:
            return "the result is not s times as large"
        found.append(_Taps(size, width, stride, pads[axis]))
    return found if any(axis.stride > 1 for axis in found) else "no strides"
