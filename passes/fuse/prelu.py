# SPDX-License-Identifier: Apache-2.0
"""PRelu of many slopes as a product and a sum, which runtimes have fast kernels for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Rewriter, Value
from ...graph_ir.ops import dims, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..layout.blocks import BLOCK
from ..pattern import Match, Miss, Op, Rule, const, op, var
from .affine_conv import by_channel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEEPEST = -16.0  # of a slope: the larger the product beside x, the more digits the sum loses


@dataclass(frozen=True)
class SlopesAsProduct(Rule):
    """PRelu(x, s) = x + Relu((s - 1) x) for s <= 1: the product is positive where x is not, s x less x.

    Where each channel of a picture has a slope, the product is a depthwise convolution of one pixel: in float
    behind a convolution in whole blocks of channels, which it takes as they lie, and in int8.

    The sum is as exact as x, of which s x may be a small part. Not valid below opset 7, where PRelu aligns
    its slopes otherwise, for x of minus infinity and, as a convolution, for pictures without pixels. Not
    done: other element types than float32, slopes that are not constant, or not from -16 to 1.
    """

    int8: bool = False

    root: ClassVar[Op] = op("PRelu", var("x"), const("slope"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The sum."""
        x, node, slopes = m["x"], m.root, m.array("slope")
        if rw.opset(node) < 7:
            return Miss("opset below 7")
        if x.dtype != DataType.FLOAT or slopes.dtype != np.float32:
            return Miss("not float32")
        if not ((slopes >= _STEEPEST) & (slopes <= 1)).all():
            return Miss("a slope is steeper than 1 or -16")
        channels, name = _channels(x, slopes, self.int8), node.name or "PRelu"
        factors = np.asarray(slopes - 1, np.float32)
        if channels is None:
            given = rw.constant(factors, f"{name}_factors", node)
            scaled = rw.node("Mul", [x, given], before=node, name=f"{name}_scaled").outputs[0]
        else:
            scaled = by_channel(x, factors.reshape(channels), None, node, rw, f"{name}_scaled")
        rest = rw.node("Relu", [scaled], before=node, name=f"{name}_rest").outputs[0]
        return rw.node("Add", [x, rest], before=node, name=name).outputs[0]


def _channels(x: Value, slopes: NDArray[np.float32], int8: bool) -> int | None:
    """How many channels there are, if the product is to be a convolution."""
    sizes = dims(x)
    if sizes is None or len(sizes) != 4 or not isinstance(sizes[1], int) or not sizes[1]:
        return None
    channels = sizes[1]
    if slopes.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    blocks = is_op(x.producer(), "Conv", "Add") and channels % BLOCK == 0
    return channels if int8 or blocks else None


@dataclass(frozen=True)
class SplitPRelu(Pass):
    """Compute PRelu of several slopes by a product, Relu and a sum.

    The algebra and limits stand with the rule `SlopesAsProduct`. It needs shapes (`infer-shapes`).

    onnxruntime's PRelu decides for each element by a branch and takes up to eight times as long on CPU; it is
    also an operator that its blocked layout of pictures has to be left for, and has no int8 kernel. For the
    end of a pipeline.

    Attributes:
        int8: whether the result is to become int8.
    """

    name: ClassVar[str] = "split-prelu"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    int8: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [SlopesAsProduct(self.int8)])
