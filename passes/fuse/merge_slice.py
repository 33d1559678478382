# SPDX-License-Identifier: Apache-2.0
"""Consecutive Slices of different axes become one."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Rewriter, Value
from ...graph_ir.ops import rank
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .slices import taken


class MergeSlice(Rule):
    """Slice(Slice(x, A), B) = Slice(x, A and B), where A and B are of different axes.

    What is taken of one axis says nothing of another. So exporters write `x[:, :, ::2, ::2]`. Not valid where
    bounds, axes or steps are not constant, or an axis may be in both, which takes the rank to tell; below
    opset 10, where bounds are attributes; where others read the first Slice.
    """

    inner: ClassVar[Op] = op(
        "Slice", var("x"), var("starts"), var("ends"), maybe(var("axes")), maybe(var("steps"))
    )
    root: ClassVar[Op] = op("Slice", inner, var("from"), var("to"), maybe(var("of")), maybe(var("by")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Slice of the axes of both."""
        first, second, extent = taken(m.node(self.inner)), taken(m.root), rank(m["x"])
        if first is None or second is None or not extent:
            return Miss("bounds are not constant, or the rank is not known")
        parts = [*first, *second]
        if len({part.axis % extent for part in parts}) < len(parts):
            return Miss("of one axis twice")
        name = m.root.outputs[0].name or "slice"
        rows = {
            "starts": [part.start for part in parts],
            "ends": [part.end for part in parts],
            "axes": [part.axis for part in parts],
            "steps": [part.step for part in parts],
        }
        given = [rw.constant(np.array(row, np.int64), f"{name}_{what}", m.root) for what, row in rows.items()]
        return rw.node("Slice", [m["x"], *given], before=m.root, name=m.root.name or "").outputs[0]


class MergeSlices(Pass):
    """Merge consecutive Slices of different axes into one.

    The algebra and limits stand with the rule `MergeSlice`. Elements are only copied, once instead of twice.
    It needs ranks (`infer-shapes`).
    """

    name: ClassVar[str] = "merge-slice"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [MergeSlice()])
