# SPDX-License-Identifier: Apache-2.0
"""Chains of Relu and Clip become one; those that can change nothing go."""

from __future__ import annotations

from ...graph_ir import Model, Rewriter, Value
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, maybe, op, var
from .clamp import clamp_of, compose, emit

_CLAMPS = ("Relu", "Clip")


class MergeClip(Rule):
    """B(A(x)), clamps to [a, b] and [c, d], is one to [B(a), B(b)]; A(x) itself if [a, b] is inside [c, d].

    B is monotone, so the interval A leaves becomes the one between the images of its ends. NaN passes through
    all (onnxruntime's kernels and numpy's agree on it), and x equal to a bound is passed on as it is, so that
    -0 is kept. A Clip without a bound stops at the greatest finite value, a Relu does not: +inf tells them
    apart, and the bounds here do too. Not valid: a first interval without 0 where the result has it (-0 first
    became a bound); bounds that are not constants (or are defaults a caller may override), NaN, -0 or crossed
    bounds; a first clamp that others read, unless the second is simply dropped.
    """

    inner = op(_CLAMPS, var("x"), maybe(var("low")), maybe(var("high"))).shared()
    root = op(_CLAMPS, inner, maybe(var("low2")), maybe(var("high2")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The first clamp, or one of both."""
        inner, root = m.node(self.inner), m.root
        between = inner.outputs[0]
        if inner.op_type == root.op_type == "Relu":
            return between
        dtype = m["x"].dtype or between.dtype or root.outputs[0].dtype
        if dtype is None:
            return Miss("type not known")
        first, second = clamp_of(inner, dtype), clamp_of(root, dtype)
        if isinstance(first, Miss):
            return first
        if isinstance(second, Miss):
            return second
        if second.low <= first.low and first.high <= second.high:
            return between
        if between.is_graph_output() or len(between.uses()) > 1 or inner.graph is not root.graph:
            return Miss("the first is read by others")
        both = compose(first, second)
        if both.low <= 0 <= both.high and not first.low <= 0 <= first.high:
            return Miss("only the merged clamp would keep -0")
        return emit(both, m["x"], dtype, root, rw)


class MergeClips(Pass):
    """Merge chains of Relu and Clip into one, and drop those that can change nothing.

    The algebra and limits stand with the rule `MergeClip`. Chains of Min and Max are `merge-min-max`. It
    needs the types of values (`infer-shapes`).
    """

    name = "merge-clip"
    exact = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [MergeClip()])
