# SPDX-License-Identifier: Apache-2.0
"""Consecutive Slices of different axes become one."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import rank
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .slices import Taken, taken


class MergeSlice(Rule):
    """Slice(Slice(x, A), B) = Slice(x, A and B), where A and B are of different axes.

    What is taken of one axis says nothing of another. So exporters write `x[:, :, ::2, ::2]`. Not valid where
    bounds, axes or steps are not constant, or an axis may be in both, which takes the rank to tell; below
    opset 10, where bounds are attributes. Not done where the first Slice would stay: something else reads it
    than Slices that can all be merged with it, as those of a picture taken apart into its pixels.
    """

    inner: ClassVar[Op] = op(
        "Slice", var("x"), var("starts"), var("ends"), maybe(var("axes")), maybe(var("steps"))
    ).shared()
    root: ClassVar[Op] = op("Slice", inner, var("from"), var("to"), maybe(var("of")), maybe(var("by")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Slice of the axes of both."""
        inner, extent = m.node(self.inner), rank(m["x"])
        parts = _both(inner, m.root, extent)
        if parts is None:
            return Miss("bounds or rank are not known, or of one axis twice")
        between = inner.outputs[0]
        readers = [(user, place) for user, place in between.uses() if user is not m.root]
        if between.is_graph_output() or any(p or _both(inner, u, extent) is None for u, p in readers):
            return Miss("others read the first")
        name = m.root.outputs[0].name or "slice"
        rows = {
            "starts": [part.start for part in parts],
            "ends": [part.end for part in parts],
            "axes": [part.axis for part in parts],
            "steps": [part.step for part in parts],
        }
        given = [rw.constant(np.array(row, np.int64), f"{name}_{what}", m.root) for what, row in rows.items()]
        return rw.node("Slice", [m["x"], *given], before=m.root, name=m.root.name or "").outputs[0]


def _both(first: Node, second: Node, extent: int | None) -> list[Taken] | None:
    """What two Slices take, if it is known to be of different axes."""
    inner, outer = taken(first), taken(second)
    if inner is None or outer is None or not extent:
        return None
    parts = [*inner, *outer]
    return parts if len({part.axis % extent for part in parts}) == len(parts) else None


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
