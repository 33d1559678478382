# SPDX-License-Identifier: Apache-2.0
"""Softmax over an axis that is not the last, as one over rows."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import int_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..fuse.reshape_dims import Dims, known_dims
from ..pattern import Match, Miss, Op, Rule, const, either, maybe, op, var
from .perms import inverse, perm_of

_KINDS = ("Softmax", "LogSoftmax")
_TURN = (0, 2, 1)
_LEAST = 1024  # elements below which the moves cost as much as they bring


class SoftmaxOverChannels(Rule):
    """Softmax over axis a of x [L.., C, P..] = T(Softmax over rows of T(x)), T from [L, C, P] to [L, P, C].

    Not valid below opset 13, where it is over all axes from a on. Not done: C and P not known, or more than
    one size before them; fewer than 1024 elements.
    """

    root: ClassVar[Op] = op(_KINDS, var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The rows' softmax, turned back."""
        sizes = known_dims(m["x"])
        if sizes is None or rw.opset(m.root) < 13:
            return Miss("rank is not known, or opset below 13")
        plan = _plan(sizes, int_attr(m.root, "axis", -1) % len(sizes))
        return plan if isinstance(plan, Miss) else _by_rows(m.root, m["x"], plan, m.root, rw)


class SoftmaxBetweenTransposes(Rule):
    """Transpose_q(Softmax over the last axis of Transpose_p(x)), q the inverse of p: over axis p[-1] of x.

    onnxruntime takes the Transposes out itself and is left with the slow form; so as `SoftmaxOverChannels`.
    A QuantizeLinear and DequantizeLinear of one scale may stand behind the first. Not done: as there.
    """

    before: ClassVar[Op] = op("Transpose", var("x"))
    codes: ClassVar[Op] = op("QuantizeLinear", before, const("scale"), maybe(const("zero")))
    widened: ClassVar[Op] = op("DequantizeLinear", codes, const("scale"), maybe(const("zero")))
    softmax: ClassVar[Op] = op(_KINDS, either(before, widened))
    root: ClassVar[Op] = op("Transpose", softmax)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The same over an axis of x."""
        p, node, sizes = perm_of(m.node(self.before)), m.node(self.softmax), known_dims(m["x"])
        if p is None or sizes is None or perm_of(m.root) != inverse(p):
            return Miss("the transposes do not cancel")
        # Below opset 13 an axis that is last means the same; without one it does not.
        if int_attr(node, "axis", -1 if rw.opset(node) >= 13 else 1) not in (-1, len(p) - 1):
            return Miss("not over the last axis")
        plan = _plan(sizes, p[-1])
        if isinstance(plan, Miss):
            return plan
        x, scale = m["x"], m.get("scale")
        if scale is not None:
            if m.array("scale").size != 1:
                return Miss("scales along an axis")
            for pattern in (self.codes, self.widened):
                moved = m.node(pattern)
                operands, title = [x, *moved.inputs[1:]], moved.name or ""
                x = rw.node(moved.op_type, operands, before=m.root, name=title).outputs[0]
        return _by_rows(node, x, plan, m.root, rw)


Plan = tuple[int, int, list[int]]
"""Channels, places behind them, and the whole shape with at most one -1."""


def _by_rows(node: Node, x: Value, plan: Plan, near: Node, rw: Rewriter) -> Value:
    channels, places, shape = plan
    name = node.name or node.op_type

    def shaped(value: Value, target: list[int], hint: str) -> Value:
        given = rw.constant(np.array(target, np.int64), f"{name}_{hint}_shape", near)
        return rw.node("Reshape", [value, given], before=near, name=f"{name}_{hint}").outputs[0]

    def turned(value: Value, hint: str) -> Value:
        return rw.node("Transpose", [value], {"perm": _TURN}, before=near, name=f"{name}_{hint}").outputs[0]

    rows = shaped(turned(shaped(x, [-1, channels, places], "flat"), "turned"), [-1, channels], "rows")
    made = rw.node(node.op_type, [rows], {"axis": 1}, before=near, name=name).outputs[0]
    return shaped(turned(shaped(made, [-1, places, channels], "stacked"), "back"), shape, "whole")


def _plan(sizes: Dims, axis: int) -> Plan | Miss:
    channels, behind = sizes[axis], sizes[axis + 1 :]
    known = [d for d in behind if isinstance(d, int)]
    if not behind:
        return Miss("over the last axis already")
    if not isinstance(channels, int) or len(known) < len(behind):
        return Miss("sizes from the axis on are not known")
    places = prod(known)
    if prod(d for d in sizes if isinstance(d, int)) < _LEAST or places == 1:
        return Miss("few elements")
    shape = [d if isinstance(d, int) else -1 for d in sizes]
    if shape.count(-1) > 1 or 0 in shape:
        return Miss("more than one size is not known")
    return channels, places, shape


class SoftmaxByRows(Pass):
    """Compute Softmax and LogSoftmax over other axes than the last as over rows, by Reshape and Transpose.

    The algebra and limits stand with the rules `SoftmaxOverChannels` and `SoftmaxBetweenTransposes`. It needs
    shapes (`infer-shapes`).

    onnxruntime's CPU kernel takes ten times as long over channels of pictures. It also carries Transposes
    through a Softmax, so a Reshape to rows stands between. For the end of a pipeline and for that runtime.
    """

    name: ClassVar[str] = "softmax-by-rows"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until they fire no more."""
        return apply_rules(model, ctx, [SoftmaxBetweenTransposes(), SoftmaxOverChannels()])
