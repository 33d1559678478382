# SPDX-License-Identifier: Apache-2.0
"""Mul, Div, Add and Sub by constants into the linear operator before or after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import is_op, may_enlarge, rank
from ..base import Context, Exactness, Pass
from ..pattern import Const, Match, Miss, Rule, commute, const, maybe, op, var
from .linear import LINEAR, channels_of_input, linear_of, view
from .weights import FLOATS, Wide, channels, fold_weights, rounded, typed, wide

_OPERATORS = ("Mul", "Div", "Add", "Sub")
_KINDS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")


def scale_and_shift(node: Node, c: Wide, constant_first: bool) -> tuple[Wide, Wide] | Miss:
    """The node's effect on its other operand as y -> s y + t; Misses for c / y, which is not linear."""
    one, none = np.ones_like(c), np.zeros_like(c)
    if node.op_type == "Mul":
        return c, none
    if node.op_type == "Add":
        return one, c
    if node.op_type == "Sub":
        return (-one, c) if constant_first else (one, -c)
    if constant_first:
        return Miss("constant is the dividend")
    if not c.all():
        return Miss("division by zero")
    return 1 / c, none


class AffineAfter(Rule):
    """A constant operator of a linear one: s (W x + b) + t = (s W) x + (s b + t)."""

    root: ClassVar = commute(_OPERATORS, LINEAR, const("c"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights."""
        if rw.opset(m.root) < 7:
            return Miss("opset below 7")
        linear = linear_of(m, rw)
        if isinstance(linear, Miss):
            return linear
        c = channels(typed(m["c"]), linear.out_axis, linear.outputs, linear.out_rank)
        if c is None:
            return Miss("operand is not one value a channel, or may enlarge the result")
        parameters = scale_and_shift(m.root, c, m.root.inputs[0] is m["c"])
        if isinstance(parameters, Miss):
            return parameters
        if linear.node.op_type == "MatMul" and linear.bias is None and m.root.op_type in ("Add", "Sub"):
            return Miss("is the product's bias already")
        folded = linear.after(*parameters)
        return folded if isinstance(folded, Miss) else folded.apply(linear.x, rw, m.root)


class NegAfter(Rule):
    """The negative of a linear operator: -(W x + b) = (-W) x + (-b), which rounds nothing."""

    root: ClassVar = op("Neg", LINEAR)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights."""
        linear = linear_of(m, rw)
        if isinstance(linear, Miss):
            return linear
        folded = linear.after(-np.ones(linear.outputs), np.zeros(linear.outputs))
        return folded if isinstance(folded, Miss) else folded.apply(linear.x, rw, m.root)


class NegBefore(Rule):
    """A linear operator of a negative: W (-x) + b = (-W) x + b, which rounds nothing."""

    root: ClassVar = op(_KINDS, op("Neg", var("x")), const("w"), maybe(const("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights, reading x."""
        linear = view(m.root, m["x"], m["w"], m.get("b"), rw.opset(m.root))
        if isinstance(linear, Miss):
            return linear
        folded = linear.before(-np.ones(linear.inputs), np.zeros(linear.inputs))
        return folded if isinstance(folded, Miss) else folded.apply(m["x"], rw, m.root)


class AffineBefore(Rule):
    """A linear operator of a constant one: W (s x + t) + b = (W s) x + (W t + b)."""

    inner: ClassVar = commute(_OPERATORS, var("from"), const("c")).named("x")
    root: ClassVar = op(_KINDS, inner, const("w"), maybe(const("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights, reading the constant operator's input."""
        if rw.opset(m.root) < 7:
            return Miss("opset below 7")
        linear = view(m.root, m["from"], m["w"], m.get("b"), rw.opset(m.root))
        if isinstance(linear, Miss):
            return linear
        c = channels_of_input(typed(m["c"]), m["from"], linear)
        if isinstance(c, Miss):
            return c
        if (whole := _ends(m["from"])) is not None:
            return Miss(f"ends a {whole}, which runtimes run as one kernel")
        inner = m.node(self.inner)
        parameters = scale_and_shift(inner, c, inner.inputs[0] is m["c"])
        if isinstance(parameters, Miss):
            return parameters
        folded = linear.before(*parameters)
        return folded if isinstance(folded, Miss) else folded.apply(m["from"], rw, m.root)


def _ends(x: Value) -> str | None:
    """What a constant factor or addend of x is the last part of, below the opsets that have it whole."""
    product = x.producer()
    if product is None or not is_op(product, "Mul", "Div"):
        return None
    if any(_made_by(a, "Erf") for v in product.inputs for a in _made_by(v, "Add")):
        return "Gelu"
    if any(_made_by(d, "Sqrt") for v in (x, *product.inputs) for d in _made_by(v, "Div")[1:]):
        return "LayerNormalization"
    return None


def _made_by(value: Value | None, *op_types: str) -> list[Value | None]:
    """The operands of the value's producer if it is one of these operators; else nothing."""
    node = None if value is None else value.producer()
    return list(node.inputs) if node is not None and is_op(node, *op_types) else []


class AffineBeforeMove(Rule):
    """The same with one number for all, and a reshape or transpose between: W M(s x + t) = W (s M(x) + t)."""

    inner: ClassVar = commute(_OPERATORS, var("from"), const("c"))
    moved: ClassVar = op(_MOVES, inner, maybe(var("how"))).named("x")
    root: ClassVar = op(_KINDS, moved, const("w"), maybe(const("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The linear operator with new weights, and the move reading the constant operator's input."""
        if rw.opset(m.root) < 7:
            return Miss("opset below 7")
        linear = view(m.root, m["x"], m["w"], m.get("b"), rw.opset(m.root))
        if isinstance(linear, Miss):
            return linear
        c, known = typed(m["c"]), rank(m["from"])
        if c.size != 1 or known is None or c.ndim > known:
            return Miss("operand is not one number, or may enlarge the input")
        if (whole := _ends(m["from"])) is not None:
            return Miss(f"ends a {whole}, which runtimes run as one kernel")
        inner = m.node(self.inner)
        found = scale_and_shift(inner, wide(c).reshape(1), inner.inputs[0] is m["c"])
        if isinstance(found, Miss):
            return found
        folded = linear.before(*(np.full(linear.inputs, part[0]) for part in found))
        if isinstance(folded, Miss):
            return folded
        moved = m.node(self.moved)
        rw.set_input(moved, 0, m["from"])
        rw.remade(moved, result=True)
        return folded.apply(m["x"], rw, m.root)


class ChainOfConstants(Rule):
    """Two factors, or two addends, one behind the other: (x c) d = x (c d), and (x + c) + d = x + (c + d).

    Addends of opposite signs stay: (x + c) - c rounds x where c is large.
    """

    inner: ClassVar = commute(_OPERATORS, var("x"), const("c"))
    root: ClassVar = commute(_OPERATORS, inner, const("d"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One operator of both constants."""
        inner, root = m.node(self.inner), m.root
        factor = root.op_type in ("Mul", "Div")
        if factor != (inner.op_type in ("Mul", "Div")):
            return Miss("a factor and an addend")
        dtype = m["c"].dtype
        if rw.opset(root) < 7 or dtype is None or dtype not in FLOATS or dtype != m["d"].dtype:
            return Miss("opset below 7, or not floats")
        if (whole := _ends(m["x"])) is not None:
            return Miss(f"ends a {whole}, which runtimes run as one kernel")
        first = scale_and_shift(inner, wide(typed(m["c"])), inner.inputs[0] is m["c"])
        second = scale_and_shift(root, wide(typed(m["d"])), root.inputs[0] is m["d"])
        if isinstance(first, Miss) or isinstance(second, Miss):
            return Miss("a constant divided, or a division by zero")
        if not factor and ((first[0] < 0).any() or (second[0] < 0).any()):
            return Miss("x is subtracted")
        both = np.asarray(first[0] * second[0] if factor else first[1] + second[1])
        if not factor and (np.abs(both) < np.maximum(np.abs(first[1]), np.abs(second[1]))).any():
            return Miss("addends of opposite signs, which may be there to round")
        if both.size > max(first[0].size, second[0].size):
            return Miss("both constants together are larger")
        array = rounded(both.reshape(-1, 1), typed(m["c"]), dtype, np.zeros(both.size))
        if array is None:
            return Miss("the constants overflow or underflow")
        constant = rw.constant(array.reshape(both.shape), m["d"].name or "constant", root)
        return rw.node("Mul" if factor else "Add", [m["x"], constant], before=root).outputs[0]


class ZeroAddend(Rule):
    """x + 0 = x, where an exporter writes a factor as a factor and an addend of 0 (Paddle's `scale`).

    A negative zero keeps its sign, which the sum would lose; no other number differs.
    """

    root: ClassVar = commute("Add", var("x"), Const("zero", 0.0))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The other operand."""
        x, result = m["x"], m.root.outputs[0]
        if x.dtype not in FLOATS or may_enlarge(x, m.array("zero").shape):
            return Miss("not floats, or zero may have more axes")
        if result.is_graph_output() and not rw.can_take_output(result, x):
            return Miss("names a graph output")
        return x


class AffineBeforeOnRight(AffineBefore):
    """The same where the weight is MatMul's left operand."""

    root: ClassVar = op("MatMul", const("w"), AffineBefore.inner)


@dataclass(frozen=True)
class FoldAffine(Pass):
    """Fold Mul, Div, Add and Sub by constants, and Neg, into the Conv, ConvTranspose, Gemm or MatMul beside.

    With one s and t a channel (Mul: s = c; Div: s = 1 / c; Add: t = c; Sub: t = -c, or s = -1 and t = c;
    Neg: s = -1):
        after a linear operator   s (W x + b) + t = (s W) x + (s b + t)
        before a linear operator  W (s x + t) + b = (W s) x + (W t + b)
    Weights are folded in float64 and rounded once; a MatMul's bias is the Add behind it. One number for all
    folds through a reshape or transpose in front of the operator, too. Of two factors or addends that find no
    operator, one behind the other, one is left; an addend of 0 goes.

    Not valid, so left alone: integers; a constant that differs along another axis than the channels, or that
    would (or, shapes being unknown, could) broadcast the other operand to a larger shape; division by zero,
    and of a constant; a shift in front of a padded Conv or any ConvTranspose; constants a caller may
    override; a result between the two that others read; folded weights that overflow or lose digits.
    Holds for finite results. A shift in front moves the cancellation of x + t into the sum: exact in real
    numbers, rounded at the size of W t. Run the passes that recognise LayerNorm, HardSwish and their like
    first: folding takes their last Mul, Add or Div away. Where the opset is too low for Gelu and
    LayerNormalization, runtimes still know them by their parts, so their last constants stay.

    Attributes:
        before: fold into the operator behind the constant one too, not only into the one in front.
    """

    name: ClassVar[str] = "fold-affine"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    before: bool = True

    def run(self, model: Model, ctx: Context) -> bool:
        """Fold wherever valid; True if anything changed."""
        rules: list[Rule] = [AffineAfter(), NegAfter(), ZeroAddend(), ChainOfConstants()]
        if self.before:
            rules += [AffineBefore(), AffineBeforeOnRight(), AffineBeforeMove(), NegBefore()]
        return fold_weights(model, ctx, rules)
