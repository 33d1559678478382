# SPDX-License-Identifier: Apache-2.0
"""What forbids keys to queries of an attention: constants added to scores, and guards against NaN."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...graph_ir import Node, Rewriter, Value, constant
from ...graph_ir.ops import int_attr, is_op, rank
from ..pattern import Match, Miss, Op, Rule, commute, const, op, scalar, var
from .reshape_dims import known_dims

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_MOST_ELEMENTS = 2**21
_LOWEST = np.finfo(np.float32).min
_LOW = np.array(-3.4e38, np.float32)  # swallows scores as the lowest float does, up to 1e31


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


class GuardBehind(Rule):
    """MatMul(Where(IsNaN(p), 0, p), v) = Where(IsNaN(y), 0, y) with y = MatMul(p, v), p = Softmax(s).

    A row of p is NaN as a whole or not at all, and so is its product with finite values; they are fewer where
    keys are more than a head is wide. Where s is a product plus masks known to be finite, also in sum, no row
    is NaN and the guard goes. Not valid for another axis of Softmax, or a guard or Softmax that is read
    elsewhere. Holds for finite products and values.
    """

    weights: ClassVar[Op] = op("Softmax", var("scores"))
    kept: ClassVar[Op] = op("Where", op("IsNaN", weights), scalar(0), weights)
    root: ClassVar[Op] = op("MatMul", kept, var("v"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The product, with the guard behind it if need be."""
        softmax, scores = m.node(self.weights), m["scores"]
        extent = rank(scores)
        if extent is None or int_attr(softmax, "axis", -1) not in (-1, extent - 1):
            return Miss("not a softmax over keys")
        if rw.opset(m.root) < 13:
            return Miss("needs opset 13")
        zero = constant(m.node(self.kept).inputs[1])
        if zero is None:
            return Miss("the guard is not constant")
        name = m.root.name or ""
        made = rw.node("MatMul", [softmax.outputs[0], m["v"]], before=m.root, name=name).outputs[0]
        finite = zero.itemsize >= 4 and stay_finite([scores], zero.dtype)
        return made if finite else guarded(made, m.root, rw, zero.dtype)


def guarded(value: Value, near: Node, rw: Rewriter, dtype: DTypeLike = np.float32) -> Value:
    """The value with 0 for NaN."""
    bad = rw.node("IsNaN", [value], before=near, name=f"{value.name}_nan").outputs[0]
    zero = rw.constant(np.zeros((), dtype), f"{value.name}_zero", near)
    return rw.node("Where", [bad, zero, value], before=near, name=f"{value.name}_guarded").outputs[0]


def stay_finite(masks: Sequence[Value], dtype: np.dtype[Any] | type[np.floating[Any]] = np.float32) -> bool:
    """Whether a finite product plus all masks is known not to become infinite."""
    return sum(map(_reach, masks)) <= float(np.finfo(dtype).max)


def _reach(scores: Value, depth: int = 8) -> float:
    """The largest number that masks may add to a product, or take from it; infinity where it is not known.

    16-bit floats hold no sum of a product and their lowest number, others do.
    """
    if knows_lowest(scores):
        return max(_largest(value) for value in (_choice(scores) or [scores, scores])[1:])
    node = scores.producer()
    if node is None or not depth or not is_op(node, "Add", "Mul", "Div"):
        return 0.0 if is_op(node, "MatMul") else inf
    first, second = node.inputs
    if first is None or second is None:
        return inf
    if is_op(node, "Add"):
        return _reach(first, depth - 1) + _reach(second, depth - 1)
    if is_op(node, "Mul") and constant(first) is not None:
        first, second = second, first
    factor = constant(second)
    if factor is None or not np.isfinite(factor).all() or (is_op(node, "Div") and not factor.all()):
        return inf
    factors = np.abs(factor.astype(np.float64))
    with np.errstate(over="ignore"):
        most = float((factors if is_op(node, "Mul") else 1 / factors).max(initial=0))
    return _reach(first, depth - 1) * most


def _largest(value: Value) -> float:
    data = constant(value)
    found = inf if data is None else float(np.abs(data.astype(np.float64)).max(initial=0))
    return inf if np.isnan(found) else found


def _within(shape: tuple[int, ...], sizes: list[int]) -> bool:
    padded = (1,) * (len(sizes) - len(shape)) + shape
    return len(padded) == len(sizes) and all(d in (1, s) for d, s in zip(padded, sizes, strict=True))


def knows_lowest(mask: Value) -> bool:
    """Whether it can be told where a mask holds the lowest float: a constant, or a choice of two."""
    return constant(mask) is not None or _choice(mask) is not None


def without_lowest(mask: Value, near: Node, rw: Rewriter) -> Value:
    """The mask with -3.4e38 where it holds the lowest float.

    Where every key is masked by a finite number, all weigh the same; onnxruntime's Attention may take the
    lowest float for -inf and gives 0. Equal masks are made equally, for `cse` to find.
    """
    data, branches = constant(mask), _choice(mask)
    if data is not None:
        return _raised(mask, near, rw)
    if branches is None:
        lowest = rw.constant(np.array(_LOWEST, np.float32), f"{mask.name}_lowest", near)
        low = rw.constant(_LOW, f"{mask.name}_low", near)
        found = rw.node("Equal", [mask, lowest], before=near, name=f"{mask.name}_forbids").outputs[0]
        return rw.node("Where", [found, low, mask], before=near, name=f"{mask.name}_finite").outputs[0]
    raised = [_raised(value, near, rw) for value in branches[1:]]
    if raised == branches[1:]:
        return mask
    return rw.node("Where", [branches[0], *raised], before=near, name=f"{mask.name}_finite").outputs[0]


def _choice(mask: Value) -> list[Value] | None:
    node = mask.producer()
    if node is None or not is_op(node, "Where"):
        return None
    found = [value for value in node.inputs if value is not None]
    return found if len(found) == 3 and all(constant(value) is not None for value in found[1:]) else None


def _raised(value: Value, near: Node, rw: Rewriter) -> Value:
    data = constant(value)
    if data is None or not (data == _LOWEST).any():
        return value
    return rw.constant(np.where(data == _LOWEST, _LOW, data), f"{value.name}_finite", near)
