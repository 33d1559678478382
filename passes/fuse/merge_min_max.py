# SPDX-License-Identifier: Apache-2.0
"""Min and Max by scalar constants become one Clip."""

from __future__ import annotations

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, commute, const, maybe, op, var
from .clamp import clamp_of, compose, emit, limits, split_operands

_BOUNDS = ("Min", "Max")
_CLAMPS = ("Relu", "Clip")


class MergeMinMax(Rule):
    """Min(Max(x, a), b), Max(Min(x, b), a) and clamps before them are one Clip, as in `MergeClip`.

    The result is bounded on both sides or is a Relu. What may change is the sign of a zero: Max(-0, 0) is
    either zero in onnxruntime, depending on the place in the tensor. Not valid: more than two operands; a
    bound that is not one constant number, or whose rank is above the tensor's (it would raise it); NaN, -0 or
    crossed bounds; other types than float below opset 12 (Clip takes no integers there, and onnxruntime no
    other floats); a first clamp that others read.
    """

    inner = op((*_BOUNDS, *_CLAMPS), var("a"), maybe(var("b")), maybe(var("c")))
    root = commute(_BOUNDS, inner, const("bound"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Clip or Relu."""
        return _merge(m.node(self.inner), m.root, rw)


class MergeClipOfMinMax(Rule):
    """Relu or Clip of Min or Max is one Clip; as `MergeMinMax`."""

    inner = op(_BOUNDS, var("a"), var("b"))
    root = op(_CLAMPS, inner, maybe(var("low")), maybe(var("high")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Clip or Relu."""
        return _merge(m.node(self.inner), m.root, rw)


class MergeMinMaxes(Pass):
    """Merge Min and Max by scalar constants into one Clip (ReLU6 as older exporters wrote it).

    The algebra and limits stand with the rules `MergeMinMax` and `MergeClipOfMinMax`. It needs the types of
    values (`infer-shapes`).
    """

    name = "merge-min-max"
    exact = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        return apply_rules(model, ctx, [MergeMinMax(), MergeClipOfMinMax()])


def _merge(inner: Node, root: Node, rw: Rewriter) -> Value | Miss:
    between = inner.outputs[0]
    if is_op(root, *_BOUNDS) and split_operands(root)[0] is not between:
        return Miss("no scalar constant operand")
    x = split_operands(inner)[0] if is_op(inner, *_BOUNDS) else inner.inputs[0]
    dtype = None if x is None else x.dtype or between.dtype or root.outputs[0].dtype
    if x is None or dtype is None:
        return Miss("no scalar constant operand, or type not known")
    first, second = clamp_of(inner, dtype), clamp_of(root, dtype)
    if isinstance(first, Miss):
        return first
    if isinstance(second, Miss):
        return second
    both, finite = compose(first, second), limits(dtype)
    # The standard has Clip of all floats from opset 6 on; onnxruntime has kernels of float alone below 12.
    if finite is None or rw.opset(root) < (6 if dtype == DataType.FLOAT else 12):
        return Miss("no Clip for this dtype at this opset")
    if both.low < finite[0] or (both.high > finite[1] and both.low != 0):
        return Miss("not bounded on both sides")
    return emit(both, x, dtype, root, rw)
