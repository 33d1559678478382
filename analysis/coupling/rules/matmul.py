# SPDX-License-Identifier: Apache-2.0
"""Matrix products: the inner axis is summed over, rows and columns of a weight make channels."""

from __future__ import annotations

from ....graph_ir import Value
from ....graph_ir.ops import int_attr
from ..ties import AxisKey, Ties
from .common import column, is_weight, operand, result, table, tie_same


def matmul(ties: Ties) -> None:
    """MatMul: A [..., M, K] times B [..., K, N] is [..., M, N], batch axes broadcast; vectors lose M or N.

    Tied: K of both (summed over), M of A and Y, N of B and Y, batch axes. Where one operand is a weight, its
    rows or columns make the result's; where neither is, the batch axes count heads. Pinned: nothing.
    """
    _product(ties, operand(ties, 0), operand(ties, 1), result(ties, 0))


def fused_matmul(ties: Ties) -> None:
    """FusedMatMul of com.microsoft: MatMul of operands that may be transposed in their last two axes.

    Pinned: everything when the batch axes are transposed too, or a vector is.
    """
    a, b = operand(ties, 0), operand(ties, 1)
    turns = [int_attr(ties.node, name, 0) for name in ("transA", "transB")]
    batch = [int_attr(ties.node, name, 0) for name in ("transBatchA", "transBatchB")]
    if any(batch) or any(t and ties.rank(v) == 1 for t, v in zip(turns, (a, b), strict=True)):
        ties.pin_node("its batch axes are transposed")
        return
    _product(ties, a, b, result(ties, 0), turns[0] != 0, turns[1] != 0)


def qlinear_matmul(ties: Ties) -> None:
    """QLinearMatMul: as MatMul; b's scale and zero point may have an element for each column.

    Pinned: everything when another scale or zero point is not a scalar.
    """
    _quantized(ties, operand(ties, 0), operand(ties, 3), result(ties, 0), (4, 5), (1, 2, 6, 7))


def matmul_integer(ties: Ties) -> None:
    """MatMulInteger: as MatMul; B's zero point may have an element for each column.

    Pinned: everything when A's has one for each row.
    """
    _quantized(ties, operand(ties, 0), operand(ties, 1), result(ties, 0), (3,), (2,))


def dynamic_quantize_matmul(ties: Ties) -> None:
    """DynamicQuantizeMatMul of com.microsoft: MatMulInteger of a float A, with B's scale and a bias [N]."""
    _quantized(ties, operand(ties, 0), operand(ties, 1), result(ties, 0), (2, 3, 4), ())


def _quantized(
    ties: Ties,
    a: Value | None,
    b: Value | None,
    y: Value | None,
    by_column: tuple[int, ...],
    scalars: tuple[int, ...],
) -> None:
    def long(indices: tuple[int, ...]) -> list[Value]:
        given = [v for i in indices if (v := operand(ties, i)) is not None]
        return [v for v in given if any(ties.size(axis) != 1 for axis in ties.axes(v))]

    columns = long(by_column)
    if b is None or long(scalars) or (columns and {ties.rank(v) for v in (b, *columns)} != {2, 1}):
        ties.pin_node("it has a scale or zero point for each row")
        return
    _product(ties, a, b, y)
    for vector in columns:
        ties.same((b, 1), (vector, 0))


def _product(
    ties: Ties,
    a: Value | None,
    b: Value | None,
    y: Value | None,
    turn_a: bool = False,
    turn_b: bool = False,
) -> None:
    if a is None or b is None or y is None:
        return
    ranks = [ties.rank(v) or 0 for v in (a, b, y)]
    if min(ranks[0], ranks[1]) < 1 or ranks[2] != _rank_of_product(ranks[0], ranks[1]):
        ties.pin_node("its ranks are not those of a matrix product")
        return
    k = ranks[0] - (2 if turn_a else 1), ranks[1] - (1 if turn_b or ranks[1] == 1 else 2)
    ties.contracts((a, k[0]), (b, k[1]))
    inner = 0
    if ranks[1] > 1:
        inner += 1
        _edge(ties, (b, ranks[1] - (2 if turn_b else 1)), (y, ranks[2] - 1))
    if ranks[0] > 1:
        inner += 1
        _edge(ties, (a, ranks[0] - (1 if turn_a else 2)), (y, ranks[2] - inner))
    _batches(ties, a, b, y, inner)


def _rank_of_product(a: int, b: int) -> int:
    return max(a, b) - 1 if 1 in (a, b) else max(a, b)


def _edge(ties: Ties, operand_axis: AxisKey, result_axis: AxisKey) -> None:
    """M or N: made by the node where it comes from a weight."""
    holder = operand_axis[0]
    if isinstance(holder, Value) and is_weight(holder):
        ties.produces(result_axis, operand_axis)
    else:
        ties.same(result_axis, operand_axis)


def _batches(ties: Ties, a: Value, b: Value, y: Value, inner: int) -> None:
    """Batch axes; they count heads (or samples) where both operands are activations."""
    activations = not is_weight(a) and not is_weight(b)
    # The batch axes of an operand end two before its end, whichever axes of the product a vector lacks.
    extent = (ties.rank(y) or 0) - inner
    for axis in range(extent):
        axes: list[AxisKey] = [(y, axis)]
        for value in (a, b):
            at = axis - extent + (ties.rank(value) or 0) - 2
            if at >= 0:
                axes.append((value, at))
        tie_same(ties, *axes)
        if activations and ties.size((y, axis)) != 1:
            ties.heads((y, axis))


def gemm(ties: Ties) -> None:
    """Gemm, FusedGemm: op(A) [M, K] times op(B) [K, N] plus C, broadcast to [M, N].

    Tied: K of both (summed over), M of A, Y and C, N of B, Y and C, made where they come from a weight.
    Pinned: nothing.
    """
    a, b, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if a is None or b is None or y is None:
        return
    c = operand(ties, 2)
    if any(ties.rank(v) != 2 for v in (a, b, y)) or (c is not None and (ties.rank(c) or 0) > 2):
        ties.pin_node("its ranks are not those of a matrix product")
        return
    turn_a, turn_b = int_attr(ties.node, "transA", 0) != 0, int_attr(ties.node, "transB", 0) != 0
    ties.contracts((a, 0 if turn_a else 1), (b, 1 if turn_b else 0))
    _edge(ties, (a, 1 if turn_a else 0), (y, 0))
    _edge(ties, (b, 0 if turn_b else 1), (y, 1))
    if c is not None:
        for axis in (0, 1):
            tie_same(ties, *column(ties, [c], y, axis))


RULES = {
    **table(matmul, "MatMul"),
    **table(fused_matmul, "FusedMatMul", domain="com.microsoft"),
    **table(gemm, "Gemm"),
    **table(gemm, "FusedGemm", domain="com.microsoft"),
    **table(qlinear_matmul, "QLinearMatMul"),
    **table(matmul_integer, "MatMulInteger"),
    **table(dynamic_quantize_matmul, "DynamicQuantizeMatMul", domain="com.microsoft"),
}
