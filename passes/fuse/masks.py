# SPDX-License-Identifier: Apache-2.0
"""Two constants added to the scores of an attention, in two shapes, as one."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import Rewriter, Value
from ..pattern import Match, Miss, Op, Rule, commute, const, op, var
from .reshape_dims import known_dims

_MOST_ELEMENTS = 2**21


class MasksAsOne(Rule):
    """Reshape_S(Reshape_T(x + a) + b) = x + (a + Reshape_S(b)), x of shape S, for constants a and b.

    So are the biases of relative positions and the masks of shifted windows added (Liu and others, 2021,
    arXiv:2103.14030, section 3.2). Valid where S and T are known and neither constant enlarges what it is
    added to; sums are rounded in another order. Not done: a sum of more than two million elements; types
    other than float; parts that are read elsewhere.
    """

    first: ClassVar[Op] = commute("Add", var("x"), const("a"))
    second: ClassVar[Op] = commute("Add", op("Reshape", first, var("between")), const("b"))
    root: ClassVar[Op] = op("Reshape", second, var("shape"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One sum."""
        x, a, b = m["x"], m.array("a"), m.array("b")
        shape, between = known_dims(x), known_dims(m.node(self.second).outputs[0])
        sizes = [d for d in shape or () if isinstance(d, int)]
        inner = [d for d in between or () if isinstance(d, int)]
        if shape is None or between is None or len(sizes) < len(shape) or len(inner) < len(between):
            return Miss("shapes are not known")
        if known_dims(m.root.outputs[0]) != shape:
            return Miss("the shape does not come back")
        if a.dtype != np.float32 or b.dtype != np.float32:
            return Miss("not of float")
        if not _within(a.shape, sizes) or not _within(b.shape, inner) or prod(inner) != prod(sizes):
            return Miss("a constant enlarges the sum")
        if prod(sizes) > _MOST_ELEMENTS:
            return Miss("too many elements")
        with np.errstate(all="ignore"):
            both = np.broadcast_to(a, sizes) + np.broadcast_to(b, inner).reshape(sizes)
        made = rw.constant(both, f"{m['a'].name}_both", m.root)
        name = m.node(self.first).name or ""
        return rw.node("Add", [x, made], before=m.root, name=name).outputs[0]


def _within(shape: tuple[int, ...], sizes: list[int]) -> bool:
    padded = (1,) * (len(sizes) - len(shape)) + shape
    return len(padded) == len(sizes) and all(d in (1, s) for d, s in zip(padded, sizes, strict=True))
