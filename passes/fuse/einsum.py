# SPDX-License-Identifier: Apache-2.0
"""Einsum of two operands as a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...analysis.shapes import infer_node
from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, int_attr, is_constant, string_attr
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Op, Rule, commute, const, op, var
from .weights import fold_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16)


@dataclass(frozen=True)
class _Letters:
    """The axes of a product: `shared` by all three, `rows` of the left, `summed`, `columns` of the right.

    Rows but the last are leading axes that the right operand lacks: MatMul repeats it over them.
    """

    shared: str
    rows: str
    summed: str
    columns: str

    @property
    def left(self) -> str:
        return self.rows[:-1] + self.shared + self.rows[-1:] + self.summed

    @property
    def right(self) -> str:
        return self.shared + self.summed + self.columns

    @property
    def result(self) -> str:
        return self.rows[:-1] + self.shared + self.rows[-1:] + self.columns


class TwoOperands(Rule):
    """Einsum(A, B) = T(MatMul(T(A), T(B))), T putting axes in the order MatMul has them in.

    Letters of both operands and the result are its leading axes, those summed over its inner ones, the rest
    its rows and columns. A constant B that shares no letter with the result that A has, too, may have any
    number of summed axes and columns: they are one, and a Reshape by the constant's sizes joins A's or sets
    the result's apart.

    Not done: letters twice in an operand or summed in one alone, ellipses; sizes that are summed over and not
    known to be equal (one may be 1 there); several summed axes or columns otherwise; other types than floats.
    """

    root: ClassVar[Op] = op("Einsum", var("a"), var("b"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The product."""
        node, terms = m.root, _terms(string_attr(m.root, "equation", ""))
        if len(node.inputs) != 2 or terms is None:
            return Miss("not two operands with each letter once")
        if m["a"].dtype not in _FLOATS:
            return Miss("not a float")
        first, second, result = terms
        left, right = m["a"], m["b"]
        if _turned(first, second, result, left, right):
            first, second, left, right = second, first, right, left
        letters = _letters(first, second, result)
        if letters is None or not letters.rows or not letters.summed:
            return Miss("no product of matrices")
        sizes = (_sizes(left, first), _sizes(right, second))
        if any(sizes[0].get(x) in (None, 0) or sizes[0][x] != sizes[1].get(x) for x in letters.summed):
            return Miss("sizes summed over are not known to be equal")
        weight = None if letters.shared else constant(right)
        if weight is None and not len(letters.summed) == len(letters.columns) == 1:
            return Miss("several columns or summed axes")
        if weight is not None and weight.size == 0:
            return Miss("an empty weight")
        writer = _Writer(node, rw)
        rows = writer.turned(left, first, letters.left)
        if weight is None:
            made = writer.made("MatMul", [rows, writer.turned(right, second, letters.right)])
        else:
            made = writer.by_weight(rows, weight, second, letters, right.name or "weight")
        return writer.turned(made, letters.result, result)


def _terms(equation: str) -> list[str] | None:
    """Letters of both operands and the result; None for what is not understood."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if not arrow:
        letters = given.replace(",", "")
        result = "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    terms.append(result)
    plain = all(term.isalpha() and len(set(term)) == len(term) for term in terms)
    return terms if len(terms) == 3 and plain and set(result) <= set("".join(terms[:2])) else None


def _turned(first: str, second: str, result: str, left: Value, right: Value) -> bool:
    """Whether the first is the right operand: a constant is, else what the last axis of the result is of."""
    if is_constant(left) != is_constant(right):
        return is_constant(left)
    return result[-1] in first and result[-1] not in second


def _letters(first: str, second: str, result: str) -> _Letters | None:
    shared = "".join(x for x in result if x in first and x in second)
    rows = "".join(x for x in result if x in first and x not in second)
    columns = "".join(x for x in result if x in second and x not in first)
    summed = "".join(x for x in first if x in second and x not in result)
    found = _Letters(shared, rows, summed, columns)
    whole = set(found.left) == set(first) and set(found.right) == set(second)
    return found if whole else None


def _sizes(value: Value, letters: str) -> dict[str, int | str | None]:
    found = dims(value)
    return {} if found is None or len(found) != len(letters) else dict(zip(letters, found, strict=True))


@dataclass(frozen=True)
class _Writer:
    """Writes nodes before one Einsum."""

    node: Node
    rw: Rewriter

    def by_weight(
        self, rows: Value, weight: NDArray[Any], second: str, letters: _Letters, name: str
    ) -> Value:
        """The product of rows, whose last axes are the summed ones, and a constant of axes `second`."""
        size = dict(zip(second, weight.shape, strict=True))
        summed, columns = [size[x] for x in letters.summed], [size[x] for x in letters.columns]
        same = [0] * len(letters.rows)  # Reshape: as it was
        ordered = np.asarray(weight.transpose([second.index(x) for x in letters.right]), weight.dtype)
        flat = np.array(ordered.reshape(prod(summed), prod(columns)), order="C")
        if len(summed) > 1:
            rows = self._shaped(rows, [*same, prod(summed)], "joined")
        made = self.made("MatMul", [rows, self.rw.constant(flat, name, self.node)])
        return made if len(columns) == 1 else self._shaped(made, [*same, *columns], "apart")

    def turned(self, value: Value, have: str, want: str) -> Value:
        """Axes in another order."""
        if have == want:
            return value
        return self.made("Transpose", [value], "turned", {"perm": [have.index(x) for x in want]})

    def _shaped(self, value: Value, target: list[int], hint: str) -> Value:
        shape = self.rw.constant(np.array(target, np.int64), f"{self._name}_{hint}_shape", self.node)
        return self.made("Reshape", [value, shape], hint)

    def made(
        self, op_type: str, inputs: list[Value], hint: str = "", how: dict[str, list[int]] | None = None
    ) -> Value:
        """What a new node makes."""
        name = f"{self._name}_{hint}" if hint else self._name
        node = self.rw.node(op_type, inputs, how or {}, before=self.node, name=name)
        infer_node(node)
        return node.outputs[0]

    @property
    def _name(self) -> str:
        return self.node.name or "Einsum"


class BiasBehindReshape(Rule):
    """Reshape(x) + c = Reshape(x + c'), where the last axis of x is set apart and c has those axes alone.

    So a bias comes to stand behind its product. Not valid below opset 7, where Add aligns c otherwise, and
    for c of a higher rank. Not done: other Reshapes, and constants with other axes.
    """

    reshape: ClassVar[Op] = op("Reshape", var("x"), const("shape"))
    root: ClassVar[Op] = commute("Add", reshape, const("c"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The same Reshape behind the Add."""
        sizes, target, addend = dims(m["x"]), m.array("shape").reshape(-1).tolist(), m.array("c")
        if sizes is None or not sizes:
            return Miss("rank is not known")
        if rw.opset(m.root) < 7 or int_attr(m.node(self.reshape), "allowzero", 0):
            return Miss("opset below 7, or zeros for sizes")
        kept = len(sizes) - 1
        apart = tuple(target[kept:])
        if any(target[:kept]) or len(apart) < 2 or min(apart) < 1 or sizes[-1] != prod(apart):
            return Miss("not the last axis set apart")
        if addend.shape[-len(apart) :] != apart or addend.size != prod(apart) or addend.ndim > len(target):
            return Miss("a constant of other axes")
        name = m.root.name or "Add"
        flat = rw.constant(addend.reshape(-1), m["c"].name or "bias", m.root)
        summed = rw.node("Add", [m["x"], flat], before=m.root, name=name).outputs[0]
        return rw.node("Reshape", [summed, m["shape"]], before=m.root, name=f"{name}_apart").outputs[0]


class EinsumToMatMul(Pass):
    """Write Einsum of two operands as MatMul, with Transpose and Reshape where it needs them.

    The algebra and limits stand with the rules `TwoOperands` and `BiasBehindReshape`. It needs shapes
    (`infer-shapes`). Attention, int8 and fusions of runtimes are found by MatMul; Einsum has none of them.
    """

    name: ClassVar[str] = "einsum-to-matmul"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return fold_weights(model, ctx, [TwoOperands(), BiasBehindReshape()])
