# SPDX-License-Identifier: Apache-2.0
"""MatMul and the Add of its bias as one Gemm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import dims, is_constant
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, commute, op, var

_DTYPES = (DataType.FLOAT16, DataType.FLOAT, DataType.DOUBLE)

_SUM = Miss("the bias is not constant")

Dims = tuple[int | str | None, ...]


class MatMulAdd(Rule):
    """Two matrices: A B + C = Gemm(A, B, C) with alpha = beta = 1."""

    product: ClassVar = op("MatMul", var("a"), var("b"))
    root: ClassVar = commute("Add", product, var("c"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Gemm."""
        a, b, c = dims(m["a"]), dims(m["b"]), dims(m["c"])
        reason = _declined(m, rw, b, c)
        if reason is not None:
            return reason
        if a is None or b is None or c is None or len(a) != 2:
            return Miss("the left operand is not known to be a matrix")
        if not _broadcasts(c, (a[0], b[1])):
            return Miss("bias may enlarge the result")
        if not is_constant(m["c"]):
            return _SUM
        name = m.node(self.product).name or "gemm"
        return rw.node("Gemm", [m["a"], m["b"], m["c"]], before=m.root, name=name).outputs[0]


class FlattenedMatMulAdd(Rule):
    """A batch of rows by one matrix: x W + c = Reshape(Gemm(Reshape(x, [-1, K]), W, c), result's shape)."""

    product: ClassVar = MatMulAdd.product
    root: ClassVar = MatMulAdd.root

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Gemm between two Reshapes."""
        a, b, c = dims(m["a"]), dims(m["b"]), dims(m["c"])
        reason = _declined(m, rw, b, c)
        if reason is not None:
            return reason
        if a is None or b is None or c is None or len(a) < 3:
            return Miss("the left operand is not known to be a batch of matrices")
        if len(c) != 1 or not _broadcasts(c, (None, b[1])):
            return Miss("bias is not one value a column")
        if not is_constant(m["c"]):
            return _SUM
        inner, outer = b[0], b[1]
        # -1 stands for one size only, and for none when another is zero.
        shape = [d if isinstance(d, int) else -1 for d in (*a[:-1], outer)]
        if not isinstance(inner, int) or shape.count(-1) > 1 or 0 in (*shape, inner):
            return Miss("more than one size is unknown")
        node, name = m.root, m.node(self.product).name or "gemm"
        rows = self._reshape(m["a"], [-1, inner], rw, node, f"{name}_rows")
        gemm = rw.node("Gemm", [rows, m["b"], m["c"]], before=node, name=name).outputs[0]
        return self._reshape(gemm, shape, rw, node, f"{name}_shape")

    @staticmethod
    def _reshape(value: Value, shape: list[int], rw: Rewriter, node: Node, name: str) -> Value:
        target = rw.constant(np.array(shape, dtype=np.int64), name, node)
        return rw.node("Reshape", [value, target], before=node, name=f"{name}d").outputs[0]


def _declined(m: Match, rw: Rewriter, b: Dims | None, c: Dims | None) -> Miss | None:
    if rw.opset(m.root) < 7:
        return Miss("opset below 7")
    dtype = next((m[v].dtype for v in ("a", "b", "c") if m[v].dtype is not None), None)
    if dtype not in _DTYPES:
        return Miss("not known to be floats Gemm takes")
    if b is None or len(b) != 2:
        return Miss("the right operand is not known to be a matrix")
    if c is None:
        return Miss("rank of the bias is unknown")
    return None


def _broadcasts(c: Dims, result: Dims) -> bool:
    """Whether c provably broadcasts to the result without enlarging it."""
    if len(c) > len(result):
        return False
    pairs = zip(c, result[len(result) - len(c) :], strict=True)
    return all(d == 1 or (d is not None and d == r) for d, r in pairs)


@dataclass(frozen=True)
class MatMulAddToGemm(Pass):
    """Turn MatMul and Add of a bias into one Gemm.

    A B + C = Gemm(A, B, C), for matrices A [M, K] and B [K, N] and a C that broadcasts to [M, N].

    Not valid, so left alone: operands not known to be of rank 2; a bias that would, or by what is known
    could, enlarge the result; other types than float16, float and double; a product that others read or that
    is an output; opset below 7. Ranks are known after `infer-shapes`. Not done: a sum that is no bias but
    another activation, as a Gemm of it has no int8 form, and MatMul and Add have.

    What it costs: nothing at run time in float (one pass over the result is saved), but a Gemm with a float
    bias and no quantized output is not run in int8 by onnxruntime, where a MatMul would be; a quantizer must
    give the bias as int32 with the exact scale. With `flatten`, two Reshapes, which copy nothing in
    onnxruntime but hide the batch axes from later passes.

    Attributes:
        flatten: also rewrite products of a higher-rank left operand by a matrix, between two Reshapes, where
            at most one size of the result is unknown.
    """

    name: ClassVar[str] = "matmul-add-to-gemm"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    flatten: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        rules: list[Rule] = [MatMulAdd()]
        if self.flatten:
            rules.append(FlattenedMatMulAdd())
        return apply_rules(model, ctx, rules)
