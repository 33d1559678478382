# SPDX-License-Identifier: Apache-2.0
"""Convolutions of few filters, several pixels at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_op, string_attr
from ..base import Context, Exactness, Pass
from .conv_transpose import moved

_FILTERS = 16  # that a kernel makes in the time of one
_FEWEST = 8  # channels read, below which moving the pixels takes as long
_BLOCKS = (2, 3, 4)
_WORTH = 0.75  # of the products before, at most


@dataclass(frozen=True)
class PixelsToFilters(Pass):
    """Let a convolution of few filters make a block of pixels at once, as further filters.

    Kernels of onnxruntime make 16 filters in the time of one. With s x s shifted copies of the F filters,
    a kernel as much larger and strides of s, the channels of one pixel are those of a block of s x s:

        y[f, s i + a, s j + b] = sum over p, q of W[f, p - a, q - b] x[s i + p, s j + q]

    DepthToSpace puts them in their places. What a shifted filter does not read has zeros. A Relu,
    LeakyRelu or Clip behind is of each element alone and goes in front of the move.

    Not valid, so left alone: strides, groups, dilations, automatic padding; results whose height and width
    s does not divide; weights or biases that are no constants. Not done: other types than float32
    pictures of known size; more than 16 filters for a block; fewer than 8 channels read; more than three
    quarters of the products, filters rounded up to 16 (so never for kernels of 1 x 1).
    Holds for finite inputs: an infinity is now multiplied by zeros, too.

    The last layer of a network that makes pictures, maps or masks: of 3 filters 9 x 9 a third of the time, of
    1 filter 3 x 3 half of it, in float and in int8. It needs shapes (`infer-shapes`).
    """

    name: ClassVar[str] = "pixels-to-filters"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        rw = ctx.rewriter(model)
        for node in list(model.graph):
            if is_op(node, "Conv") and rw.allowed(self.name, node):
                ctx.tally(self.name, _rewritten(node, rw))
        return rw.edits > 0


def _rewritten(node: Node, rw: Rewriter) -> str | None:
    """Put the larger convolution in the place of a Conv; the reason where it is left alone."""
    x, bias = node.inputs[0], input_at(node, 2)
    weight, shift = constant(node.inputs[1]), constant(bias)
    if x is None or weight is None or (bias is not None and shift is None):
        return "weights or biases are no constants"
    if x.dtype != DataType.FLOAT or weight.ndim != 4:
        return "not a float32 picture"
    if int_attr(node, "group", 1) != 1 or any(
        of != 1 for name in ("dilations", "strides") for of in ints_attr(node, name) or []
    ):
        return "groups, dilations or strides"
    if string_attr(node, "auto_pad", "NOTSET") != "NOTSET":
        return "automatic padding"
    if weight.shape[1] < _FEWEST:
        return "few channels are read"
    pads = ints_attr(node, "pads") or [0, 0, 0, 0]
    s = _block(weight, _made(x, weight, pads))
    if s is None:
        return "no block of pixels is cheaper"
    filters = _shifted(weight, s)
    last, name = moved(node) or node, node.name or "Conv"
    with rw.standing_for([node, last]):
        inputs = [x, rw.constant(filters, f"{name}_block", last)]
        if shift is not None:
            inputs.append(rw.constant(np.tile(shift, s * s), f"{name}_shifts", last))
        attributes = {"kernel_shape": list(filters.shape[2:]), "pads": pads, "strides": [s, s]}
        value = rw.node("Conv", inputs, attributes, before=last, name=name).outputs[0]
        if last is not node:
            more, given = [value, *last.inputs[1:]], list(last.attributes.values())
            value = rw.node(last.op_type, more, given, before=last).outputs[0]
        value = rw.node("DepthToSpace", [value], {"blocksize": s}, before=last, name=name).outputs[0]
        rw.replace(last.outputs[0], value)
        rw.erase_all([last] if last is node else [last, node])
    return None


def _made(x: Value, weight: NDArray[Any], pads: list[int]) -> tuple[int, ...]:
    """Height and width of the result; none where they are not known."""
    sizes = (dims(x) or ())[2:]
    known = [size for size in sizes if isinstance(size, int)]
    return tuple(
        size + pads[axis] + pads[axis + 2] - weight.shape[axis + 2] + 1
        for axis, size in enumerate(known if len(known) == 2 else ())
    )


def _block(weight: NDArray[Any], made: tuple[int, ...]) -> int | None:
    """The side of the cheapest block; None where none is worth it."""
    rows, columns = weight.shape[2:]
    cost = {1: float(_FILTERS * rows * columns)}
    for s in _BLOCKS:
        fits = len(made) == 2 and all(size > 0 and size % s == 0 for size in made)
        if fits and len(weight) * s * s <= _FILTERS:
            cost[s] = _FILTERS * (rows + s - 1) * (columns + s - 1) / (s * s)
    best = min(cost, key=lambda s: (cost[s], s))
    return best if cost[best] <= _WORTH * cost[1] else None


def _shifted(weight: NDArray[Any], s: int) -> NDArray[np.float32]:
    """Copies of the filters for each pixel of a block, row by row."""
    rows, columns = weight.shape[2] + s - 1, weight.shape[3] + s - 1
    found = np.zeros((s, s, *weight.shape[:2], rows, columns), np.float32)
    for a in range(s):
        for b in range(s):
            found[a, b, :, :, a : a + weight.shape[2], b : b + weight.shape[3]] = weight
    return found.reshape(math.prod(found.shape[:3]), *found.shape[3:])
