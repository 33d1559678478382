# SPDX-License-Identifier: Apache-2.0
"""A factor and a shift for each channel, as a depthwise convolution of one pixel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import dims
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Rule, commute, const, op, var
from .batch_norm import scale_and_shift
from .weights import Array, channels, fold_weights


class NormAlone(Rule):
    """BatchNormalization of [N, C, H, W] in inference form: s x + t is Conv(x, s, t) in C groups.

    Left alone: what `fold-batch-norm` leaves alone for its parameters; other ranks and types than float32.
    """

    root: ClassVar = op(
        "BatchNormalization", var("x"), const("scale"), const("shift"), const("mean"), const("var")
    )

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The convolution."""
        count = _channels(m["x"])
        if count is None:
            return Miss("not float32 pictures of known channels")
        found = scale_and_shift(m.root, rw.opset(m.root))
        if isinstance(found, Miss):
            return found
        if found[0].shape != (count,):
            return Miss("parameters are not one value a channel")
        return by_channel(m["x"], *found, m.root, rw, m.root.name or m.root.op_type)


class FactorOfEachChannel(Rule):
    """x c of [N, C, H, W] with one constant factor for each channel: Conv(x, c) in C groups.

    Left alone: one factor for all channels, and other ranks and types than float32.
    """

    root: ClassVar = commute("Mul", var("x"), const("c"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The convolution."""
        count = _channels(m["x"])
        if count is None:
            return Miss("not float32 pictures of known channels")
        factors = channels(m.array("c"), -3, count, 4)
        if factors is None or m.array("c").size != count or count == 1:
            return Miss("not one factor for each channel")
        return by_channel(m["x"], factors, None, m.root, rw, m.root.name or m.root.op_type)


def _channels(x: Value) -> int | None:
    sizes = dims(x)
    if x.dtype != DataType.FLOAT or sizes is None or len(sizes) != 4:
        return None
    return sizes[1] if isinstance(sizes[1], int) and sizes[1] > 0 else None  # 0 groups crash onnxruntime


def by_channel(x: Value, factors: Array, shift: Array | None, near: Node, rw: Rewriter, name: str) -> Value:
    """A factor and a shift for each channel, s x + t, as a depthwise convolution of one pixel.

    Args:
        x: [N, C, H, W].
        factors: s, [C].
        shift: t, [C]; None for none.
        near: the node it goes before.
        rw: the door for edits.
        name: of the convolution.
    """
    inputs = [x, rw.constant(factors.astype(np.float32).reshape(-1, 1, 1, 1), f"{name}_factors", near)]
    if shift is not None:
        inputs.append(rw.constant(shift.astype(np.float32), f"{name}_shift", near))
    return rw.node("Conv", inputs, {"group": len(factors)}, before=near, name=name).outputs[0]


class AffineToConv(Pass):
    """Write BatchNormalization and factors of channels that fold into nothing as depthwise convolutions.

    The algebra and limits stand with the rules `NormAlone` and `FactorOfEachChannel`. It needs shapes
    (`infer-shapes`), and to come behind `fold-batch-norm` and `fold-affine`. Not valid for pictures without
    pixels, which onnxruntime does not convolve.

    For int8 in onnxruntime: there a depthwise convolution of one pixel takes a tenth of the time of a float
    BatchNormalization with its Q and DQ, and a fifth of that of an int8 product, whose one scale besides does
    not suit all channels.
    """

    name: ClassVar[str] = "affine-to-conv"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return fold_weights(model, ctx, [NormAlone(), FactorOfEachChannel()])
