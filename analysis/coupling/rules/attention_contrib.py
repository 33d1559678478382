# SPDX-License-Identifier: Apache-2.0
"""Attention of com.microsoft, and the turning of queries and keys by their places: whole heads can go.

Queries, keys and values come apart, side by side in one tensor, or made inside from one weight; each of the
three parts loses the block of a head. Sizes of heads stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value
from ....graph_ir.ops import int_attr, ints_attr
from ..ties import AxisKey, Rule, Ties
from .attention import TOKENS, block, by_head, mask, shared_heads, together
from .common import operand, pin_axes, result, table, tie_same

_HEAD = "it is the size of a head"
_UNKNOWN = "this form of attention is not known"


def multi_head_attention(ties: Ties) -> None:
    """MultiHeadAttention: Q, K [B, S, N D], V [B, S, N Dv], a bias for all three; Y as V.

    Also Q with K and V packed, [B, S, N, 3, D], K with V packed, [B, L, N, 2, D], and K and V by head,
    [B, N, L, D]. Whole heads go, also of the bias, of the mask that is added, and of past and present
    [B, N, P, D]. Pinned: tokens, key padding masks, sizes of heads; everything in other forms.
    """
    q, k, v, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    count = int_attr(ties.node, "num_heads", 0)
    form = [0 if t is None else ties.rank(t) for t in (q, k, v)]
    known = ([5, 0, 0], [3, 5, 0], [3, 4, 4], [3, 3, 3])
    if q is None or y is None or ties.rank(y) != 3 or form not in known or len(ties.node.inputs) > 8:
        ties.pin_node(_UNKNOWN)
        return
    heads = ties.virtual(0, max(count, 1))
    sizes: list[int | None] = []
    for value in (q, k, v):
        if value is not None:
            sizes += _input(ties, value, heads, q)
    together(ties, [(y, heads)])
    tie_same(ties, (q, 0), (y, 0))
    bias = operand(ties, 3)
    if bias is not None:
        _side_by_side(ties, (bias, 0), [(size, heads) for size in sizes])
    ties.pin_value(operand(ties, 4), TOKENS)
    mask(ties, operand(ties, 5), heads, q)
    mask(ties, result(ties, 3), heads, q)
    for value in (operand(ties, 6), operand(ties, 7), result(ties, 1), result(ties, 2)):
        _cache(ties, value, heads, q)


def _input(ties: Ties, value: Value, heads: AxisKey, q: Value) -> list[int | None]:
    """Tie queries, keys or values in any form; all heads' widths, one for each that the value holds."""
    rank = ties.rank(value)
    if rank == 3:
        together(ties, [(value, heads)])
        tie_same(ties, (q, 0), (value, 0))
        return [ties.size((value, 2))]
    if rank == 4:
        _cache(ties, value, heads, q)
    else:
        tie_same(ties, (q, 0), (value, 0))
        ties.same(heads, (value, 2))
        ties.heads(heads)
        ties.pin((value, 1), TOKENS)
        pin_axes(ties, [3], "queries, keys and values are packed along it", value)
        ties.pin((value, 4), _HEAD)
    count, each = ties.size(heads), ties.size((value, (rank or 0) - 1))
    held = (ties.size((value, 3)) or 0) if rank == 5 else 1
    return [None if count is None or each is None else count * each] * held


def _cache(ties: Ties, value: Value | None, heads: AxisKey, q: Value) -> None:
    if value is None:
        return
    if ties.rank(value) != 4:
        ties.pin_node("its past states have a shape that is not known")
        return
    by_head(ties, value, heads, q)
    ties.pin((value, 3), _HEAD)


def _side_by_side(ties: Ties, axis: AxisKey, parts: Sequence[tuple[int | None, AxisKey]]) -> None:
    """An axis that holds all heads of queries, then of keys, then of values: sizes, and heads of each."""
    known = [(size, heads) for size, heads in parts if size is not None]
    if len(known) != 3 or ties.size(axis) != sum(size for size, _ in known):
        ties.pin_node("its weight or bias does not fit its heads")
        return
    start = 0
    for key, (size, heads) in enumerate(known, start=2):
        part = ties.virtual(key, size)
        ties.part(axis, part, start)
        block(ties, heads, part)
        start += size


def fused_attention(ties: Ties) -> None:
    """Attention: x [B, S, I] times W [I, 3 N D] plus a bias, then attention; Y [B, S, N Dv].

    Tied: I of x and W (summed over). Whole heads go: of queries, keys and values in W and the bias, of the
    result, of past and present [2, B, N, P, D]. Pinned: tokens, masks and sizes of heads; everything with
    sizes that do not fit.
    """
    x, w, b, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    count, hidden = int_attr(ties.node, "num_heads", 0), ties.size((y, 2)) if y is not None else None
    if x is None or w is None or y is None or hidden is None or count < 1 or ties.rank(x) != 3:
        ties.pin_node(_UNKNOWN)
        return
    sizes = ints_attr(ties.node, "qkv_hidden_sizes") or [hidden] * 3
    if ties.rank(w) != 2 or len(sizes) != 3 or sizes[2] != hidden or ties.size((w, 1)) != sum(sizes):
        ties.pin_node("its weight does not fit its heads")
        return
    heads = ties.virtual(0, count)
    ties.contracts((x, 2), (w, 0))
    _side_by_side(ties, (w, 1), [(size, heads) for size in sizes])
    if b is not None:
        ties.same((w, 1), (b, 0))
    tie_same(ties, (x, 0), (y, 0))
    pin_axes(ties, [1], TOKENS, x, y)
    block(ties, heads, (y, 2))
    ties.produces((y, 2))
    ties.pin_value(operand(ties, 3), TOKENS)
    ties.pin_value(operand(ties, 6), TOKENS)
    mask(ties, operand(ties, 5), heads, x)
    ties.heads(heads)
    for value in (operand(ties, 4), result(ties, 1)):
        if value is None:
            continue
        if ties.rank(value) != 5:
            ties.pin_node("its past states have a shape that is not known")
            return
        tie_same(ties, (x, 0), (value, 1))
        ties.same(heads, (value, 2))
        pin_axes(ties, [0, 3, 4], "its size is fixed by the model's states", value)


def group_query_attention(ties: Ties) -> None:
    """GroupQueryAttention: Q [B, S, Hq D], K and V [B, S, Hkv D], or all three side by side in Q; Y as Q.

    Hq = g Hkv: a head of K and V goes with its g heads of Q, of Y, of the bias on the scores, the sinks, and
    of past and present [B, Hkv, P, D]; where those of K and V must stay (states that are inputs of the
    model), the same of each g heads of Q may go. Pinned: tokens, sizes of heads, tables of angles;
    everything with quantized states.
    """
    q, k, v, y = (*(operand(ties, i) for i in range(3)), result(ties, 0))
    queries, keys = (int_attr(ties.node, name, 0) for name in ("num_heads", "kv_num_heads"))
    apart = k is not None and v is not None
    quantized = operand(ties, 12) is not None or operand(ties, 13) is not None
    ranks = {ties.rank(t) for t in (q, k, v, y) if t is not None}
    if q is None or y is None or apart is (k is None) or ranks != {3} or quantized or min(queries, keys) < 1:
        ties.pin_node(_UNKNOWN)
        return
    if queries % keys:
        ties.pin_node("its heads do not divide")
        return
    heads, pair = shared_heads(ties, queries, keys)
    if k is not None and v is not None:
        together(ties, [(q, heads), (k, pair), (v, pair), (y, heads)])
    else:
        wide, parts = ties.size((q, 2)), queries + 2 * keys
        each = None if wide is None or wide % parts else wide // parts
        sizes = [None if each is None else each * n for n in (queries, keys, keys)]
        together(ties, [(y, heads)])
        tie_same(ties, (q, 0), (y, 0))
        ties.pin((q, 1), TOKENS)
        _side_by_side(ties, (q, 2), list(zip(sizes, (heads, pair, pair), strict=True)))
    for index in (5, 6, 7, 8, 9):
        ties.pin_value(operand(ties, index), "attention reads lengths, places or angles from it")
    for index in (14, 15):
        ties.pin_value(operand(ties, index), _HEAD)
    mask(ties, operand(ties, 10), heads, q)
    sinks = operand(ties, 11)
    if sinks is not None:
        ties.same(heads, (sinks, 0))
    mask(ties, result(ties, 3), heads, q)
    for value in (operand(ties, 3), operand(ties, 4), result(ties, 1), result(ties, 2)):
        _cache(ties, value, pair, q)


def rotary_embedding(ties: Ties) -> None:
    """RotaryEmbedding, also of ai.onnx 23: x [B, N, S, D] or [B, S, N D], each head turned alike; Y as x.

    Whole heads go. Pinned: tokens, sizes of heads, tables of angles; everything in rank 3 when the number of
    heads is not told.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    for value in ties.node.inputs[1:]:
        ties.pin_value(value, "angles and places are read from it")
    heads = ties.virtual(0, max(int_attr(ties.node, "num_heads", 0), 1))
    if ties.rank(x) == 4:
        tie_same(ties, (x, 0), (y, 0))
        tie_same(ties, (x, 1), (y, 1))
        pin_axes(ties, [2, 3], _HEAD, x, y)
    elif ties.rank(x) == 3 and int_attr(ties.node, "num_heads", 0) > 0:
        together(ties, [(x, heads), (y, heads)])
    else:
        ties.pin_node("the number of its heads is not known")


RULES: dict[tuple[str, str], Rule] = {
    **table(multi_head_attention, "MultiHeadAttention", domain="com.microsoft"),
    **table(fused_attention, "Attention", domain="com.microsoft"),
    **table(group_query_attention, "GroupQueryAttention", domain="com.microsoft"),
    **table(rotary_embedding, "RotaryEmbedding"),
    **table(rotary_embedding, "RotaryEmbedding", domain="com.microsoft"),
}
