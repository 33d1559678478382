# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate counts of operators that onnxruntime's own optimizer makes.

After onnxruntime's docs/ContribOperators.md. What moves, normalises or activates counts as nothing, as it
does among the standard operators. Attention counts every query with every key, masked or not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..graph_ir.ops import int_attr, ints_attr
from .cost_rules import RULES as STANDARD
from .cost_rules import Case, Uncountable


def _heads(case: Case, name: str = "num_heads") -> int:
    count = int_attr(case.node, name, 0)
    if count < 1:
        raise Uncountable(f"{case.node.op_type} without {name}")
    return count


def _past(case: Case, index: int, axis: int) -> int:
    """How many keys there are from before."""
    given = case.inputs[index] if index < len(case.inputs) else None
    if given is None:
        return 0
    if len(given) <= axis:
        raise Uncountable(f"past keys of rank {len(given)}")
    return given[axis]


def _multi_head(case: Case) -> int:
    """Scores and values of every head: batch * queries * keys * (width of queries + width of values)."""
    query = case.at(0)
    if len(query) == 5:  # queries, keys and values packed: [B, S, N, 3, D]
        batch, queries, heads, _, each = query
        return batch * queries * (queries + _past(case, 6, 2)) * 2 * heads * each
    key = case.at(1)
    if len(query) != 3 or len(key) not in (3, 4, 5):
        raise Uncountable(f"{case.node.op_type} of ranks {len(query)} and {len(key)}")
    batch, queries, wide = query
    if len(key) == 5:  # keys and values packed: [B, L, N, 2, D]
        return batch * queries * (key[1] + _past(case, 6, 2)) * 2 * wide
    value = case.at(2)
    keys = key[1] if len(key) == 3 else key[2]
    return batch * queries * (keys + _past(case, 6, 2)) * (wide + prod(value[1:]) // (keys or 1))


def projected(case: Case) -> int:
    """What `Attention` takes to make queries, keys and values: batch * tokens * elements of the weight."""
    x, weight = case.at(0), case.at(1)
    if len(x) != 3 or len(weight) != 2:
        raise Uncountable(f"Attention of ranks {len(x)} and {len(weight)}")
    return x[0] * x[1] * prod(weight)


def _attention(case: Case) -> int:
    """The projections, then batch * queries * keys * (width of queries + width of values)."""
    made = projected(case)
    batch, tokens, _ = case.at(0)
    sizes = ints_attr(case.node, "qkv_hidden_sizes")
    wide = case.at(1)[1]
    both = sizes[0] + sizes[2] if sizes and len(sizes) == 3 else 2 * (wide // 3)
    return made + batch * tokens * (tokens + _past(case, 4, 3)) * both


def _group_query(case: Case) -> int:
    """Twice batch * queries * keys * width of queries, for scores and values."""
    query = case.at(0)
    heads, pairs = _heads(case), _heads(case, "kv_num_heads")
    if len(query) != 3:
        raise Uncountable(f"GroupQueryAttention of rank {len(query)}")
    packed = len(case.inputs) < 2 or case.inputs[1] is None
    batch, queries, wide = query
    if packed:
        keys, wide = queries, wide // (heads + 2 * pairs) * heads
    else:
        keys = case.at(1)[1]
    return 2 * batch * queries * (keys + _past(case, 3, 2)) * wide


def _fused_matmul(case: Case) -> int:
    left = case.at(0)
    if len(left) < 2 or int_attr(case.node, "transBatchA", 0):
        raise Uncountable("FusedMatMul with a turned batch")
    return prod(case.outputs[0]) * left[-2 if int_attr(case.node, "transA", 0) else -1]


def _nothing(_: Case) -> int:
    return 0


RULES: dict[str, Callable[[Case], int]] = {
    "Attention": _attention,
    "DynamicQuantizeLSTM": STANDARD["LSTM"],
    "FusedConv": STANDARD["Conv"],
    "FusedGemm": STANDARD["Gemm"],
    "FusedMatMul": _fused_matmul,
    "GroupQueryAttention": _group_query,
    "MatMulIntegerToFloat": STANDARD["MatMul"],
    "MultiHeadAttention": _multi_head,
    "QLinearConv": STANDARD["QLinearConv"],
    **dict.fromkeys(
        (
            "BiasGelu",
            "EmbedLayerNormalization",
            "FastGelu",
            "Gelu",
            "QuickGelu",
            "RotaryEmbedding",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
        _nothing,
    ),
}
"""Of operators of the domain com.microsoft."""
