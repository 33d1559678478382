# SPDX-License-Identifier: Apache-2.0
"""The sum before a layer normalisation, in a form that stays one."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Model, Rewriter, Value
from ...graph_ir.ops import is_op, only_user
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, op, var
from .reshape_dims import Dims, known_dims

_FUSED_RANK = 3


class SumForAdd(Rule):
    """LayerNormalization(Add(a, b)) = LayerNormalization(Sum(a, b)); Sum of two is their Add.

    Not valid below opset 8, where Sum does not broadcast. Not done where the runtime keeps the two apart
    itself: others read the Add, or its operands are known to differ in shape or to have another rank than 3.
    """

    root: ClassVar[Op] = op("Add", var("a"), var("b"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Sum."""
        out = m.root.outputs[0]
        user = only_user(out)
        if user is None or not is_op(user, "LayerNormalization") or user.inputs[0] is not out:
            return Miss("not for a layer normalisation alone")
        if rw.opset(m.root) < 8:
            return Miss("Sum does not broadcast below opset 8")
        shapes = [known_dims(value) for value in (m["a"], m["b"])]
        if any(s is not None and len(s) != _FUSED_RANK for s in shapes) or _differ(*shapes):
            return Miss("the runtime does not fuse these shapes")
        name = m.root.name or ""
        return rw.node("Sum", [m["a"], m["b"]], before=m.root, name=name).outputs[0]


def _differ(a: Dims | None, b: Dims | None) -> bool:
    pairs = zip(a or (), b or (), strict=False)
    return any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in pairs)


class SumBeforeLayerNorm(Pass):
    """Write the Add that only a LayerNormalization reads as Sum, so that onnxruntime keeps the two apart.

    The algebra and limits stand with the rule `SumForAdd`. It needs shapes (`infer-shapes`).

    onnxruntime fuses such a pair of known shapes into SkipLayerNormalization, whose CPU kernel takes three to
    ten times as long as the two. For the end of a pipeline and for that runtime on CPU.
    """

    name: ClassVar[str] = "sum-before-layer-norm"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule wherever it holds; True if anything changed."""
        return apply_rules(model, ctx, [SumForAdd()])
