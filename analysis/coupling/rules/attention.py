# SPDX-License-Identifier: Apache-2.0
"""Attention as one operator: whole heads can go.

Heads are a virtual axis of the node; an axis of all heads side by side, `(heads, size of one)`, loses the
block of a head. With a head axis of its own, queries and keys may also lose dimensions they are multiplied
over, and values those the result has.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value
from ....graph_ir.ops import int_attr, ints_attr
from ..ties import AxisKey, Rule, Ties
from .common import operand, pin_axes, result, table, tie_same

_TOKENS = "attention compares its positions"


def attention(ties: Ties) -> None:
    """Attention of ai.onnx 23: Q [B, Hq, S, D] or [B, S, Hq D], K and V alike with Hkv heads, Y as Q.

    Hq = g Hkv: a head of K and V goes with its g heads of Q, and of Y, past and present, and the mask. With
    a head axis of their own, D of Q and K (summed over; the scale stays that of the old D) and D of V and Y
    may be cut, too. Pinned: tokens; everything when the heads do not divide.
    """
    q, k, v, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    if q is None or k is None or v is None or y is None or operand(ties, 6) is not None:
        ties.pin_node("this form of attention is not known")
        return
    split = ties.rank(q) == 4
    count = [int_attr(ties.node, name, 0) for name in ("q_num_heads", "kv_num_heads")]
    if split:
        count = [ties.size((q, 1)) or 0, ties.size((k, 1)) or 0]
    if any(ties.rank(t) != ties.rank(q) for t in (k, v, y)) or min(count) < 1 or count[0] % count[1]:
        ties.pin_node("its heads do not divide")
        return
    pair = ties.virtual(1, count[1])  # of K and V
    heads = ties.virtual(0, count[0])
    if count[0] == count[1]:
        ties.same(pair, heads)
    elif count[1] > 1:  # a single head of K and V serves all, and stays
        ties.spread(pair, heads, 1, count[0] // count[1])
    if split:
        _apart(ties, (q, y), (k, v), heads, pair)
    else:
        _together(ties, [(q, heads), (k, pair), (v, pair), (y, heads)])
    cached = [operand(ties, 4), operand(ties, 5), result(ties, 1), result(ties, 2)]
    for value in cached:
        if value is not None:
            _by_head(ties, value, pair, q)
            ties.pin((value, 3), "its size is fixed by the model's states")
    if any(value is not None for value in cached) and split:
        pin_axes(ties, [3], "its size is fixed by the model's states", k, v)
    for value in (operand(ties, 3), result(ties, 3)):
        _mask(ties, value, heads, q)


def _apart(
    ties: Ties, out: tuple[Value, Value], kv: tuple[Value, Value], heads: AxisKey, pair: AxisKey
) -> None:
    (q, y), (k, v) = out, kv
    for value, count in ((q, heads), (y, heads), (k, pair), (v, pair)):
        _by_head(ties, value, count, q)
    ties.contracts((q, 3), (k, 3))
    tie_same(ties, (v, 3), (y, 3))
    ties.heads(heads)


def _by_head(ties: Ties, value: Value, heads: AxisKey, q: Value) -> None:
    """[B, heads, tokens, size]: tie batch and heads, pin tokens."""
    tie_same(ties, (q, 0), (value, 0))
    ties.same(heads, (value, 1))
    ties.pin((value, 2), _TOKENS)


def _together(ties: Ties, values: Sequence[tuple[Value, AxisKey]]) -> None:
    """[B, tokens, heads x size]: tie batches, hang the last axes on the heads, pin tokens."""
    first = values[0][0]
    for value, heads in values:
        tie_same(ties, (first, 0), (value, 0))
        ties.pin((value, 1), _TOKENS)
        _block(ties, heads, (value, 2))
    ties.heads(values[0][1])


def _block(ties: Ties, heads: AxisKey, wide: AxisKey) -> None:
    count, size = ties.size(heads), ties.size(wide)
    if count is None or size is None or size % count:
        ties.pin(heads, "its heads do not divide")
        ties.pin(wide, "its heads do not divide")
    elif size == count:
        ties.same(heads, wide)
    else:
        ties.spread(heads, wide, 1, size // count)


def _mask(ties: Ties, value: Value | None, heads: AxisKey, q: Value) -> None:
    """A mask or scores, broadcast to [B, heads, tokens, tokens]."""
    if value is None:
        return
    rank = ties.rank(value) or 0
    if rank > 4:
        ties.pin_node("its mask has a shape that is not known")
        return
    pin_axes(ties, range(max(rank - 2, 0), rank), _TOKENS, value)
    if rank >= 3 and ties.size((value, rank - 3)) != 1:
        ties.same(heads, (value, rank - 3))
    if rank == 4:
        tie_same(ties, (q, 0), (value, 0))


def multi_head_attention(ties: Ties) -> None:
    """MultiHeadAttention of com.microsoft: Q, K [B, S, N D], V [B, S, N Dv], a bias for all three.

    Whole heads go, also of the bias, of the mask that is added, and of past and present [B, N, P, D].
    Pinned: tokens, key padding masks, sizes of heads; everything when queries, keys and values are packed.
    """
    q, k, v, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    count = int_attr(ties.node, "num_heads", 0)
    plain = all(t is not None and ties.rank(t) == 3 for t in (q, k, v, y)) and len(ties.node.inputs) <= 8
    if q is None or k is None or v is None or y is None or not plain or count < 1:
        ties.pin_node("its queries, keys and values are packed")
        return
    heads = ties.virtual(0, count)
    _together(ties, [(value, heads) for value in (q, k, v, y)])
    _packed(ties, operand(ties, 3), 0, [ties.size((value, 2)) for value in (q, k, v)], heads)
    ties.pin_value(operand(ties, 4), _TOKENS)
    _mask(ties, operand(ties, 5), heads, q)
    for value in (operand(ties, 6), operand(ties, 7), *(result(ties, i) for i in (1, 2, 3))):
        if value is not None:
            _cache(ties, value, heads, q)


def _cache(ties: Ties, value: Value, heads: AxisKey, q: Value) -> None:
    if ties.rank(value) != 4:
        ties.pin_node("its past states have a shape that is not known")
        return
    _by_head(ties, value, heads, q)
    ties.pin((value, 3), "it is the size of a head")


def _packed(ties: Ties, value: Value | None, axis: int, sizes: Sequence[int | None], heads: AxisKey) -> None:
    """An axis that holds all heads of queries, then of keys, then of values."""
    if value is None:
        return
    known = [size for size in sizes if size is not None]
    if len(known) < 3 or ties.size((value, axis)) != sum(known):
        ties.pin_node("its bias does not fit its heads")
        return
    start = 0
    for key, size in enumerate(known, start=1):
        part = ties.virtual(key, size)
        ties.part((value, axis), part, start)
        _block(ties, heads, part)
        start += size


def fused_attention(ties: Ties) -> None:
    """Attention of com.microsoft: x [B, S, I] times W [I, 3 N D] plus a bias, then attention.

    Tied: I of x and W (summed over). Whole heads go: of queries, keys and values in W and the bias, of the
    result. Pinned: tokens, masks and sizes of heads; everything with states of the past or sizes that do not
    fit.
    """
    x, w, b, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    count, hidden = int_attr(ties.node, "num_heads", 0), ties.size((y, 2)) if y is not None else None
    past = any(operand(ties, i) is not None for i in (4, 6)) or result(ties, 1) is not None
    if x is None or w is None or y is None or hidden is None or past or count < 1 or ties.rank(x) != 3:
        ties.pin_node("this form of attention is not known")
        return
    sizes = ints_attr(ties.node, "qkv_hidden_sizes") or [hidden] * 3
    if ties.rank(w) != 2 or len(sizes) != 3 or sizes[2] != hidden or ties.size((w, 1)) != sum(sizes):
        ties.pin_node("its weight does not fit its heads")
        return
    heads = ties.virtual(0, count)
    ties.contracts((x, 2), (w, 0))
    _packed(ties, w, 1, sizes, heads)
    if b is not None:
        ties.same((w, 1), (b, 0))
    tie_same(ties, (x, 0), (y, 0))
    pin_axes(ties, [1], _TOKENS, x, y)
    _block(ties, heads, (y, 2))
    ties.produces((y, 2))
    ties.pin_value(operand(ties, 3), _TOKENS)
    _mask(ties, operand(ties, 5), heads, x)
    ties.heads(heads)


RULES: dict[tuple[str, str], Rule] = {
    **table(attention, "Attention"),
    **table(multi_head_attention, "MultiHeadAttention", domain="com.microsoft"),
    **table(fused_attention, "Attention", domain="com.microsoft"),
}
