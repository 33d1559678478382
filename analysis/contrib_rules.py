# SPDX-License-Identifier: Apache-2.0
"""Result dims of operators that onnxruntime's own optimizer makes, for which onnx has no schemas.

After onnxruntime's docs/ContribOperators.md. Results have the element type of the first input, or of the one
named in `TYPED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph_ir import Attr, DataType, Node
from . import expr
from .expr import Dim
from .node_view import NodeView
from .shape_rules import Rule
from .value_types import TypeTable, ValueType
from .window_rules import conv

MICROSOFT = "com.microsoft"


def outputs(
    node: Node, version: int, types: Sequence[ValueType], attrs: Mapping[str, Attr], table: TypeTable
) -> list[ValueType | None]:
    """The types of a node's outputs, None for those no rule tells.

    Args:
        node: of an operator without a schema.
        version: of its domain.
        types: of its inputs.
        attrs: its attributes, references resolved.
        table: makes the types.
    """
    count = len(node.outputs)
    rule = RULES.get((node.domain, node.op_type))
    typed = TYPED.get((node.domain, node.op_type), 0)
    if rule is None or typed >= len(types) or not types[typed].elem:
        return [None] * count
    view = NodeView(node.op_type, version, types, [None] * len(types), attrs, node.inputs, count)
    elems = OF_INT32.get((node.domain, node.op_type), ())
    found = [
        None if dims is None else table.tensor(DataType.INT32 if at in elems else types[typed].elem, dims)
        for at, dims in enumerate(rule(view))
    ]
    return [*found, *[None] * count][:count]


def _like_first(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    return [view.dims(0)]


def _skip_norm(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """The norm of the sum, mean and deviation (not told), the sum."""
    return [view.dims(0), None, None, view.dims(0)]


def _embeddings_norm(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """`[batch, tokens, width]`, the length of each row, and the sum of the embeddings."""
    tokens, words = view.dims(0), view.dims(2)
    if tokens is None or words is None or len(tokens) != 2 or len(words) != 2:
        return [None]
    whole = (*tokens, words[1])
    return [whole, (tokens[0],), whole]


def _matmul(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """FusedMatMul and its like: products of matrices, of stacks of them by one, and of equal stacks."""
    a, b = view.dims(0), view.dims(1)
    if a is None or b is None or min(len(a), len(b)) < 2 or view.int("transBatchA", 0):
        return [None]
    if view.int("transBatchB", 0) or not (len(b) == 2 or a[:-2] == b[:-2]):
        return [None]
    return [(*a[:-2], a[-1 if view.int("transA", 0) else -2], b[-2 if view.int("transB", 0) else -1])]


def _pixels_last(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """QLinearConv with channels first or last; the latter only of one pixel's width."""
    if not view.int("channels_last", 0):
        return conv(view)
    data, weight = view.dims(0), view.dims(3)
    moved = (view.ints("pads"), 0), (view.ints("strides"), 1)
    if data is None or weight is None or any(d != 1 for d in weight[2:]):
        return [None]
    if view.string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return [None]
    if any(v != least for values, least in moved for v in values or ()):
        return [None]
    return [(*data[:-1], weight[0])]


def _multi_head(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """`[batch, tokens of the queries, width of the values]`, and the keys and values of now and before.

    Queries are `[B, S, N D]`, keys and values alike or `[B, N, L, D]`, or packed: all three in the first
    input, `[B, S, N, 3, D]`, or keys and values in the second, `[B, L, N, 2, D]`.
    """
    query, key, value = view.dims(0), view.dims(1), view.dims(2)
    heads = view.int("num_heads", 0)
    if query is not None and len(query) == 5:
        return [(query[0], query[1], expr.mul(query[2], query[4]))]
    if query is None or key is None or len(query) != 3 or heads < 1:
        return [None]
    if len(key) == 5:
        return [query]
    if value is None or len(value) not in (3, 4):
        return [None]
    each = value[3] if len(value) == 4 else expr.div(value[2], heads)
    states = [(query[0], heads, None, size) for size in (expr.div(query[2], heads), each)]
    return [(query[0], query[1], value[2] if len(value) == 3 else expr.mul(heads, each)), *states]


def _group_query(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """`[B, S, Hq D]`, and the keys and values of now and before; all three may be in the first input."""
    query = view.dims(0)
    heads, pairs = view.int("num_heads", 0), view.int("kv_num_heads", 0)
    if query is None or len(query) != 3 or min(heads, pairs) < 1:
        return [None]
    each = expr.div(query[2], heads if view.has(1) else heads + 2 * pairs)
    state = (query[0], pairs, None, each)
    return [(query[0], query[1], expr.mul(heads, each)), state, state]


def _attention(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """The weight makes queries, keys and values: a third each, unless an attribute says otherwise."""
    data, weight, sizes = view.dims(0), view.dims(1), view.ints("qkv_hidden_sizes")
    if data is None or weight is None or len(data) != 3 or len(weight) != 2:
        return [None]
    wide = weight[1]
    if sizes is not None and len(sizes) == 3:
        return [(data[0], data[1], sizes[2])]
    return [(data[0], data[1], wide // 3)] if isinstance(wide, int) and wide % 3 == 0 else [None]


def _lstm(view: NodeView) -> Sequence[tuple[Dim, ...] | None]:
    """All states `[T, D, N, H]`, the last one and the last cell; the weights are `[D, I, 4H]`."""
    data, weight = view.dims(0), view.dims(1)
    if data is None or weight is None or len(data) != 3 or len(weight) != 3:
        return [None] * 3
    last = (weight[0], data[1], view.int("hidden_size", 0) or expr.div(weight[2], 4))
    return [(data[0], weight[0], *last[1:]), last, last]


RULES: dict[tuple[str, str], Rule] = {
    ("", "SimplifiedLayerNormalization"): _like_first,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "BiasGelu"): _like_first,
    (MICROSOFT, "DynamicQuantizeLSTM"): _lstm,
    (MICROSOFT, "EmbedLayerNormalization"): _embeddings_norm,
    (MICROSOFT, "FastGelu"): _like_first,
    (MICROSOFT, "FusedConv"): conv,
    (MICROSOFT, "FusedGemm"): _matmul,
    (MICROSOFT, "FusedMatMul"): _matmul,
    (MICROSOFT, "Gelu"): _like_first,
    (MICROSOFT, "GroupQueryAttention"): _group_query,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul,
    (MICROSOFT, "MultiHeadAttention"): _multi_head,
    (MICROSOFT, "QLinearConv"): _pixels_last,
    (MICROSOFT, "QuickGelu"): _like_first,
    (MICROSOFT, "RotaryEmbedding"): _like_first,
    (MICROSOFT, "SkipLayerNormalization"): _skip_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_norm,
}

TYPED: dict[tuple[str, str], int] = {
    (MICROSOFT, "EmbedLayerNormalization"): 2,
    (MICROSOFT, "MatMulIntegerToFloat"): 2,
}
"""The input that has the element type of the results, where it is not the first: a table, a scale."""

OF_INT32: dict[tuple[str, str], tuple[int, ...]] = {(MICROSOFT, "EmbedLayerNormalization"): (1,)}
"""Results that are int32 whatever the inputs are: lengths."""
