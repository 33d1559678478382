# SPDX-License-Identifier: Apache-2.0
"""Removal of operators whose attributes and constants make them copies of their input."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import (
    dims,
    input_at,
    int_attr,
    ints_attr,
    is_op,
    is_read,
    may_enlarge,
    rank,
    static_shape,
)
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, Var, commute, const, maybe, op, var

_SLICE_END = 2**31 - 1


class _Copy(Rule):
    """y = f(x)  ->  x, when `is_copy` proves f the identity on its first input.

    Never fires where a graph output would need an Identity in its place: nothing would be won.
    """

    operand = "x"

    def is_copy(self, node: Node, opset: int) -> bool:
        """Whether the node is provably the identity for every input."""
        raise NotImplementedError

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        node, source = m.root, m.root.inputs[0]
        if source is None:
            return Miss("no input")
        if any(map(is_read, node.outputs[1:])):
            return Miss("a second output is used")
        if not self.is_copy(node, rw.opset(node)):
            return Miss("not a copy")
        if node.outputs[0].is_graph_output() and not rw.can_take_output(node.outputs[0], source):
            return Miss("names a graph output")
        return source


def _pattern(*op_types: str, operands: int = 1) -> Op:
    rest = tuple(maybe(var(f"rest{i}")) for i in range(operands - 1))
    return Op(op_types, (Var("x"), *rest))


class _Dropout(_Copy):
    """Dropout(x) -> x in inference: opset 7 on, training_mode absent or constant false, mask unused.

    Before opset 7 only with is_test=1: the default there is training.
    """

    root = _pattern("Dropout", operands=3)

    def is_copy(self, node: Node, opset: int) -> bool:
        if opset < 7:
            return int_attr(node, "is_test", 0) == 1
        training = input_at(node, 2)
        if training is None:
            return True
        data = constant(training)
        return data is not None and not bool(data.reshape(()))


class _Cast(_Copy):
    """Cast(x, to) -> x when x already has that type."""

    root = _pattern("Cast")

    def is_copy(self, node: Node, opset: int) -> bool:
        source = node.inputs[0]
        return (
            source is not None and source.dtype is not None and int(source.dtype) == int_attr(node, "to", 0)
        )


class _CastLike(_Copy):
    """CastLike(x, t) -> x when both have one known type."""

    root = _pattern("CastLike", operands=2)

    def is_copy(self, node: Node, opset: int) -> bool:
        source, like = node.inputs[0], input_at(node, 1)
        return (
            source is not None
            and like is not None
            and source.dtype is not None
            and source.dtype == like.dtype
        )


class _Transpose(_Copy):
    """Transpose with the identity permutation."""

    root = _pattern("Transpose")

    def is_copy(self, node: Node, opset: int) -> bool:
        perm = ints_attr(node, "perm")
        if perm is None:
            return rank(node.inputs[0]) in (0, 1)
        return perm == list(range(len(perm)))


class _Pad(_Copy):
    """Pad by nothing, in any mode."""

    root = _pattern("Pad", operands=4)

    def is_copy(self, node: Node, opset: int) -> bool:
        if opset < 11:
            pads = ints_attr(node, "pads") or ints_attr(node, "paddings")
            return pads is not None and not any(pads)
        amounts = constant(input_at(node, 1))
        return amounts is not None and not amounts.any()


class _Slice(_Copy):
    """Slice of everything: starts 0, steps 1, ends at or past every end (known, or past 2^31 - 2)."""

    root = _pattern("Slice", operands=5)

    def is_copy(self, node: Node, opset: int) -> bool:
        shape = dims(node.inputs[0])
        if opset < 10:
            starts, ends, axes = ints_attr(node, "starts"), ints_attr(node, "ends"), ints_attr(node, "axes")
            steps: list[int] | None = None
        else:
            arrays = [None if v is None else constant(v) for v in (input_at(node, i) for i in range(1, 5))]
            if any(a is None and input_at(node, i + 1) is not None for i, a in enumerate(arrays)):
                return False
            if any(a is not None and a.ndim != 1 for a in arrays):
                return False  # against the standard: some runtimes take a scalar
            starts, ends, axes, steps = (None if a is None else [int(i) for i in a] for a in arrays)
        if (
            starts is None
            or ends is None
            or any(starts)
            or (steps is not None and any(s != 1 for s in steps))
            or (axes is not None and len(axes) != len(ends))  # against the standard
        ):
            return False
        for axis, end in zip(axes if axes is not None else range(len(ends)), ends, strict=True):
            extent = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
            if end < _SLICE_END and not (isinstance(extent, int) and end >= extent):
                return False
        return True


class _OneOperand(_Copy):
    """Concat, Sum, Max, Min and Mean of a single input."""

    root = _pattern("Concat", "Sum", "Max", "Min", "Mean")

    def is_copy(self, node: Node, opset: int) -> bool:
        return len(node.inputs) == 1


class _ClipOfNothing(_Copy):
    """Clip of integers without bounds (inputs from opset 11 on). Floats stop at the greatest finite one."""

    root = _pattern("Clip", operands=3)

    def is_copy(self, node: Node, opset: int) -> bool:
        source = node.inputs[0]
        if source is None or source.dtype is None or not source.dtype.is_integer():
            return False
        return opset >= 11 and input_at(node, 1) is None and input_at(node, 2) is None


class _Grow(_Copy):
    """Expand to a shape x already has, and Tile by ones.

    Expand needs the constant target to be all ones (of no higher rank), or x's known static shape.
    """

    root = _pattern("Expand", "Tile", operands=2)

    def is_copy(self, node: Node, opset: int) -> bool:
        target = constant(input_at(node, 1))
        x_rank = rank(node.inputs[0])
        if target is None or target.ndim != 1:
            return False
        if is_op(node, "Tile"):
            return bool((target == 1).all())
        if x_rank is None or len(target) > x_rank:
            return False
        if bool((target == 1).all()):
            return True
        shape = static_shape(node.inputs[0])
        return shape is not None and all(t in (1, d) for t, d in zip(target[::-1], shape[::-1], strict=False))


class _Neutral(_Copy):
    """x * 1, x / 1, x - 0, x ^ 1 and (integers) x + 0, with a constant that does not broadcast x to more.

    x + 0.0 is left alone: it turns -0.0 into 0.0. Either operand may be the constant where the operator
    commutes.
    """

    root = commute(("Add", "Mul"), var("x"), const("neutral"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        node = m.root
        result = node.outputs[0]
        for index in (0, 1) if is_op(node, "Add", "Mul") else (0,):
            source, other = node.inputs[index], node.inputs[1 - index]
            if source is None or other is None or not _is_neutral(node.op_type, source, other):
                continue
            if result.is_graph_output() and not rw.can_take_output(result, source):
                return Miss("names a graph output")
            return source
        return Miss("not a copy")


class _NeutralOnRight(_Neutral):
    """The same for the operators that do not commute."""

    root = op(("Sub", "Div", "Pow"), var("x"), const("neutral"))


def _is_neutral(op_type: str, source: Value, other: Value) -> bool:
    data = constant(other)
    if data is None or data.dtype.kind not in "fiu" or source.dtype is None or source.dtype != other.dtype:
        return False
    if op_type == "Add" and data.dtype.kind == "f":
        return False
    wanted = 0 if op_type in ("Add", "Sub") else 1
    if data.size == 0 or data.item(0) != wanted or not bool(np.all(data == wanted)):
        return False
    if op_type == "Sub" and data.dtype.kind == "f" and bool(np.signbit(data).any()):
        return False
    return not may_enlarge(source, data.shape)


class EliminateNoOps(Pass):
    """Remove operators that provably copy their input (inference Dropout, Cast to the same type, x * 1)."""

    name: ClassVar[str] = "eliminate-no-ops"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rules = [
            _Dropout(), _Cast(), _CastLike(), _Transpose(), _Pad(), _Slice(), _OneOperand(),
            _ClipOfNothing(), _Grow(), _Neutral(), _NeutralOnRight(),
        ]  # fmt: skip
        return apply_rules(model, ctx, rules)
