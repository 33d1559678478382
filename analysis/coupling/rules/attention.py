# SPDX-License-Identifier: Apache-2.0
"""Attention as one operator: whole heads can go. Those of onnxruntime are in `attention_contrib`.

Heads are a virtual axis of the node; an axis of all heads side by side, `(heads, size of one)`, loses the
block of a head. With a head axis of its own, queries and keys may also lose dimensions they are multiplied
over, and values those the result has.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value
from ....graph_ir.ops import int_attr
from ..ties import AxisKey, Rule, Ties
from .common import operand, pin_axes, result, table, tie_same

TOKENS = "attention compares its positions"


def attention(ties: Ties) -> None:
    """Attention of ai.onnx 23: Q [B, Hq, S, D] or [B, S, Hq D], K and V alike with Hkv heads, Y as Q.

    Hq = g Hkv: a head of K and V goes with its g heads of Q, and of Y, past and present, and the mask; where
    those of K and V must stay, the same of each g heads of Q may go. With a head axis of their own, D of Q
    and K (summed over; the scale stays that of the old D) and D of V and Y may be cut, too. Pinned: tokens;
    everything when the heads do not divide.
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
    heads, pair = shared_heads(ties, *count)
    if split:
        _apart(ties, (q, y), (k, v), heads, pair)
    else:
        together(ties, [(q, heads), (k, pair), (v, pair), (y, heads)])
    cached = [operand(ties, 4), operand(ties, 5), result(ties, 1), result(ties, 2)]
    for value in cached:
        if value is not None:
            by_head(ties, value, pair, q)
            ties.pin((value, 3), "its size is fixed by the model's states")
    if any(value is not None for value in cached) and split:
        pin_axes(ties, [3], "its size is fixed by the model's states", k, v)
    for value in (operand(ties, 3), result(ties, 3)):
        mask(ties, value, heads, q)


def shared_heads(ties: Ties, queries: int, keys: int) -> tuple[AxisKey, AxisKey]:
    """Virtual axes of the heads of queries, and of those of keys and values that they share in turn."""
    heads, pair = ties.virtual(0, queries), ties.virtual(1, keys)
    if queries == keys:
        ties.same(pair, heads)
    elif keys > 1:  # a single head of K and V serves all, and stays
        ties.grouped(pair, heads, keys, None)
    return heads, pair


def _apart(
    ties: Ties, out: tuple[Value, Value], kv: tuple[Value, Value], heads: AxisKey, pair: AxisKey
) -> None:
    (q, y), (k, v) = out, kv
    for value, count in ((q, heads), (y, heads), (k, pair), (v, pair)):
        by_head(ties, value, count, q)
    ties.contracts((q, 3), (k, 3))
    tie_same(ties, (v, 3), (y, 3))
    ties.heads(heads)


def by_head(ties: Ties, value: Value, heads: AxisKey, q: Value) -> None:
    """[B, heads, tokens, size]: tie batch and heads, pin tokens."""
    tie_same(ties, (q, 0), (value, 0))
    ties.same(heads, (value, 1))
    ties.pin((value, 2), TOKENS)


def together(ties: Ties, values: Sequence[tuple[Value, AxisKey]]) -> None:
    """[B, tokens, heads x size]: tie batches, hang the last axes on the heads, pin tokens."""
    first = values[0][0]
    for value, heads in values:
        tie_same(ties, (first, 0), (value, 0))
        ties.pin((value, 1), TOKENS)
        block(ties, heads, (value, 2))
    ties.heads(values[0][1])


def block(ties: Ties, heads: AxisKey, wide: AxisKey) -> None:
    """Hang an axis of all heads side by side, `(heads, size of one)`, on the heads."""
    count, size = ties.size(heads), ties.size(wide)
    if count is None or size is None or size % count:
        ties.pin(heads, "its heads do not divide")
        ties.pin(wide, "its heads do not divide")
    elif size == count:
        ties.same(heads, wide)
    else:
        ties.spread(heads, wide, 1, size // count)


def mask(ties: Ties, value: Value | None, heads: AxisKey, q: Value) -> None:
    """A mask or scores, broadcast to [B, heads, tokens, tokens]."""
    if value is None:
        return
    rank = ties.rank(value) or 0
    if rank > 4:
        ties.pin_node("its mask has a shape that is not known")
        return
    pin_axes(ties, range(max(rank - 2, 0), rank), TOKENS, value)
    if rank >= 3 and ties.size((value, rank - 3)) != 1:
        ties.same(heads, (value, rank - 3))
    if rank == 4:
        tie_same(ties, (q, 0), (value, 0))


RULES: dict[tuple[str, str], Rule] = table(attention, "Attention")
