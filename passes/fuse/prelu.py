# SPDX-License-Identifier: Apache-2.0
"""PRelu of many slopes as products and a sum, which runtimes have fast kernels for."""

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

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEEPEST = 16.0  # of a slope: for x > 0 the two products cancel, and a digit is lost for each factor of ten


@dataclass(frozen=True)
class SlopesAsProducts(Rule):
    """PRelu(x, s) = (1 - s) Relu(x) + s x: for x >= 0 it is x, below it is s x.

    Where each channel of a picture has a slope, a product is a depthwise convolution of one pixel: in float
    behind a convolution in whole blocks of channels, which it takes as they lie, and in int8. There Relu is a
    LeakyRelu of slope 0, which has a kernel of its own.

    Not valid below opset 7, where PRelu aligns its slopes otherwise. For infinite x a product with 0 is no
    number. Not done: other element types than float32, slopes that are not constant or beyond 16.
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
        if not (np.abs(slopes) <= _STEEPEST).all():
            return Miss("slopes are not finite, or so steep that the sum would cancel")
        channels = _channels(x, slopes, self.int8)
        name = node.name or "PRelu"

        def scaled(value: Value, factors: NDArray[np.float32], hint: str) -> Value:
            if channels is None:
                given = rw.constant(factors, f"{name}_{hint}", node)
                return rw.node("Mul", [value, given], before=node, name=f"{name}_{hint}").outputs[0]
            filters = rw.constant(factors.reshape(channels, 1, 1, 1), f"{name}_{hint}", node)
            return rw.node(
                "Conv", [value, filters], {"group": channels}, before=node, name=f"{name}_{hint}"
            ).outputs[0]

        kind, how = ("LeakyRelu", {"alpha": 0.0}) if self.int8 else ("Relu", {})
        positive = rw.node(kind, [x], how, before=node, name=f"{name}_relu").outputs[0]
        rest = scaled(positive, np.asarray(1 - slopes, np.float32), "rest")
        return rw.node("Add", [rest, scaled(x, slopes, "slope")], before=node, name=name).outputs[0]


def _channels(x: Value, slopes: NDArray[np.float32], int8: bool) -> int | None:
    """How many channels there are, if products are to be convolutions."""
    sizes = dims(x)
    if sizes is None or len(sizes) != 4 or not isinstance(sizes[1], int):
        return None
    channels = sizes[1]
    if slopes.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    blocks = is_op(x.producer(), "Conv", "Add") and channels % BLOCK == 0
    return channels if int8 or blocks else None


@dataclass(frozen=True)
class SplitPRelu(Pass):
    """Compute PRelu of several slopes by Relu, products and a sum.

    The algebra and limits stand with the rule `SlopesAsProducts`. It needs shapes (`infer-shapes`).

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
        return apply_rules(model, ctx, [SlopesAsProducts(self.int8)])
