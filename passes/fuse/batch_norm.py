# SPDX-License-Identifier: Apache-2.0
"""BatchNormalization in inference form into the linear operator before or after it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import constant, float_attr, int_attr, rank
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Rule, const, maybe, op, var
from .linear import LINEAR, Linear, linear_of, view
from .weights import Wide, extra_outputs, fold_weights, wide

_PARAMETERS = (const("scale"), const("shift"), const("mean"), const("var"))
_EPSILON = float(np.float32(1e-5))  # the default is a float attribute, rounded to float32


def scale_and_shift(node: Node, opset: int) -> tuple[Wide, Wide] | Miss:
    """BatchNormalization as x -> s x + t: s and t, float64 [channels].

    Misses in training mode: opset 14 has an attribute for it, opsets 7 to 13 tell it by further outputs,
    older ones by `is_test`. Up to opset 8 `spatial = 0` normalizes each place by itself: no channel factor.
    """
    if int_attr(node, "training_mode", 0) or extra_outputs(node):
        return Miss("training mode")
    if opset < 7 and not int_attr(node, "is_test", 0):
        return Miss("training mode")
    if opset < 9 and int_attr(node, "spatial", 1) != 1:
        return Miss("not spatial")
    found = [constant(value) for value in node.inputs[1:5]]
    arrays = [wide(a) for a in found if a is not None]
    if len(arrays) != 4 or any(a.shape != arrays[0].shape or a.ndim != 1 for a in arrays):
        return Miss("parameters are not one value a channel")
    scale, shift, mean, variance = arrays
    with np.errstate(all="ignore"):
        s = scale / np.sqrt(variance + float_attr(node, "epsilon", _EPSILON))
        t = shift - mean * s
    if not np.isfinite(t).all():  # nor is t where s is not: mean * s is infinite then, or NaN
        return Miss("parameters are not finite")
    return s, t


class BatchNormAfter(Rule):
    """BatchNormalization of a linear operator: s (W x + b) + t = (s W) x + (s b + t)."""

    root: ClassVar = op("BatchNormalization", LINEAR, *_PARAMETERS)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights."""
        parameters = scale_and_shift(m.root, rw.opset(m.root))
        linear = linear_of(m, rw)
        if isinstance(parameters, Miss):
            return parameters
        if isinstance(linear, Miss):
            return linear
        out_rank = linear.out_rank if linear.rank_known else rank(m.root.inputs[0])
        if out_rank is None:
            return Miss("rank is unknown")
        if linear.out_axis != 1 - out_rank:
            return Miss("normalizes another axis than the operator's channels")
        if parameters[0].shape != (linear.outputs,):
            return Miss("parameters are not one value a channel")
        folded = linear.after(*parameters)
        return folded if isinstance(folded, Miss) else folded.apply(linear.x, rw, m.root)


class BatchNormBefore(Rule):
    """A linear operator of a BatchNormalization: W (s x + t) + b = (W s) x + (W t + b)."""

    norm: ClassVar = op("BatchNormalization", var("from"), *_PARAMETERS).named("x")
    root: ClassVar = op(("Conv", "ConvTranspose", "Gemm", "MatMul"), norm, const("w"), maybe(const("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights, reading what was normalized."""
        norm = m.node(self.norm)
        parameters = scale_and_shift(norm, rw.opset(norm))
        linear = view(m.root, m["from"], m["w"], m.get("b"), rw.opset(m.root))
        if isinstance(parameters, Miss):
            return parameters
        if isinstance(linear, Miss):
            return linear
        if not _normalizes_inputs(linear, m["from"]):
            return Miss("normalizes another axis than the operator's channels, or the rank is unknown")
        if parameters[0].shape != (linear.inputs,):
            return Miss("parameters are not one value a channel")
        folded = linear.before(*parameters)
        return folded if isinstance(folded, Miss) else folded.apply(m["from"], rw, m.root)


class BatchNormBeforeOnRight(BatchNormBefore):
    """The same where the weight is MatMul's left operand."""

    root: ClassVar = op("MatMul", const("w"), BatchNormBefore.norm)


def _normalizes_inputs(linear: Linear, x: Value) -> bool:
    x_rank = rank(x) if linear.node.op_type == "MatMul" else linear.w.ndim
    return x_rank is not None and linear.in_axis == 1 - x_rank


class FoldBatchNorm(Pass):
    """Fold BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before or after it.

    With s = scale / sqrt(var + epsilon) and t = bias - mean s, per channel:
        after a linear operator   s (W x + b) + t = (s W) x + (s b + t)
        before a linear operator  W (s x + t) + b = (W s) x + (W t + b)
    Weights are folded in float64 and rounded once. A MatMul gets its bias as an Add behind it.

    Not valid, so left alone: training mode; parameters, weights or bias that are no constants (also those a
    caller may override); a shift in front of a padded Conv (the border would miss it) or any ConvTranspose; a
    BatchNormalization over another axis than the operator's channels; a result between the two that others
    read; folded weights that overflow or lose digits in their dtype.
    Holds for finite results: 0 times infinity is not judged. Shared weights are copied, never changed.
    """

    name: ClassVar[str] = "fold-batch-norm"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Fold wherever valid; True if anything changed."""
        return fold_weights(model, ctx, [BatchNormAfter(), BatchNormBefore(), BatchNormBeforeOnRight()])
