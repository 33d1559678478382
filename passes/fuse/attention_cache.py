# SPDX-License-Identifier: Apache-2.0
"""Attention of decoders: behind a cache of keys and values, or with heads that share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...analysis.shapes import refined_shape
from ...graph_ir import INFERRED, DataType, Node, Rewriter, Value
from ...graph_ir.ops import int_attr, ints_attr, is_op
from ..pattern import Match, Miss, Op
from .activations import Fusion, float_type
from .attention_parts import (
    GUARDED,
    MIXED,
    PRODUCT,
    SOFTMAX,
    factor_behind,
    finite_mask,
    fit_scores,
    is_scale,
    masks_of,
    whole_mask,
)
from .heads import unscaled
from .masks import guarded, stay_finite
from .reshape_dims import Dims, axes_of

_TURNED = (0, 1, 3, 2)


@dataclass(frozen=True)
class _Operand:
    """Keys or values `[batch, heads, tokens, size]`.

    Attributes:
        value: them, each head once.
        heads: as queries see them.
        repeats: how many queries share a head.
        shape: of what queries see.
    """

    value: Value
    heads: int
    repeats: int
    shape: Dims

    @property
    def joined(self) -> tuple[Node, Value, Value] | None:
        """The Concat of past and new tokens, and the two; None for others."""
        node = self.value.producer()
        if node is None or not is_op(node, "Concat") or len(node.inputs) != 2:
            return None
        past, new = node.inputs
        return (
            None
            if past is None or new is None or int_attr(node, "axis", 0) not in (2, -2)
            else (node, past, new)
        )


@dataclass(frozen=True)
class _Parts:
    """What the operator takes.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        factor: of their products.
        masks: what is added to them, in order.
        widen: whether that lacks rows.
        cached: whether the operator is to join past and new tokens.
    """

    q: Value
    k: _Operand
    v: _Operand
    factor: float
    masks: tuple[Value, ...]
    widen: bool
    cached: bool


class AttentionOfCache(Fusion):
    """softmax(f Q K^T + mask) V = Attention(Q, K, V, mask), scale = f, over heads that are cut already.

    All are `[batch, heads, tokens, size]`. Where K and V are Concats of past and new tokens, the operator
    takes the two and gives what they make, for the outputs of the graph; other readers keep the Concats.
    Where several heads of Q share one of K and V, repeated by Unsqueeze, Expand and Reshape, the operator
    takes each once. f may be split among Q, K and the product. Masks and the guard against NaN are as for
    `AttentionOf`.

    Valid where batch, heads and sizes are provably the same in all three, new keys as many as new values, and
    the mask broadcasts to the products without enlarging them; all keys are as many as all values wherever
    there is a product. Not valid: a factor that is no positive constant; types other than float; a part read
    elsewhere; below opset 23. Left alone: attention with neither a cache nor shared heads, where it brings
    nothing. Holds as `AttentionOf` does.
    """

    since: ClassVar[int] = 23
    root: ClassVar[Op] = MIXED

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The fused value, or why not; None where it is another attention."""
        return super().rewrite(m, rw) if _of_decoder(m) else None

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        found = self.parts(m)
        return found if isinstance(found, Miss) else None

    def parts(self, m: Match) -> _Parts | Miss:
        """What the operator takes."""
        dtype = float_type(m["v"], m.root.outputs[0], DataType.FLOAT)
        if isinstance(dtype, Miss):
            return dtype
        if int_attr(m.node(SOFTMAX), "axis", -1) not in (-1, 3):
            return Miss("not a softmax over keys")
        q, q_factor = unscaled(m["q"])
        k, k_factor = _turned(m["k"])
        outer, keys, values = _dims(q), None if k is None else _operand(k), _operand(m["v"])
        if outer is None or keys is None or values is None or len(outer) != 4:
            return Miss("not known to be heads")
        if keys.repeats != values.repeats:
            return Miss("keys and values are not shared alike")
        batch, heads, tokens, size = outer
        if None in (*outer, *keys.shape):
            return Miss("sizes are not known")
        if keys.shape != (batch, heads, keys.shape[2], size) or values.shape[:2] != keys.shape[:2]:
            return Miss("heads or batches are not known to be equal")
        cached = _alike(keys.joined, values.joined)
        if not cached and keys.repeats == 1:
            return Miss("neither a cache nor shared heads")
        factor = q_factor * k_factor * factor_behind(m, m.node(PRODUCT).outputs[0])
        if not is_scale(factor):
            return Miss("the factor is not a positive number")
        masks = masks_of(m)
        widen = fit_scores(masks, (batch, heads, tokens, keys.shape[2]))
        return widen if isinstance(widen, Miss) else _Parts(q, keys, values, factor, masks, widen, cached)

    def fuse(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Attention, and the joined keys and values for the graph's outputs."""
        found = self.parts(m)
        if isinstance(found, Miss):
            return found
        near = m.root
        mask = finite_mask(found.masks, near, rw) if found.masks else None
        if mask is not None and found.widen:
            mask = whole_mask(mask, found.masks, (_dims(found.q) or (None,) * 4)[2], near, rw)
        joined = (found.k.joined, found.v.joined) if found.cached else ()
        inputs: list[Value | None] = [found.q, found.k.value, found.v.value, mask]
        if joined:
            (_, past_k, new_k), (_, past_v, new_v) = (pair for pair in joined if pair is not None)
            inputs = [found.q, new_k, new_v, mask, past_k, past_v]
        while inputs[-1] is None:
            inputs.pop()
        outputs = 3 if joined else 1
        made = rw.node("Attention", inputs, {"scale": found.factor}, before=near, outputs=outputs)
        for pair, present in zip(joined, made.outputs[1:], strict=True):
            if pair is not None and pair[0].outputs[0].is_graph_output():
                _hand_over(pair[0].outputs[0], present, rw)
        result = made.outputs[0]
        if GUARDED in m.nodes and not stay_finite(found.masks):
            result = guarded(result, near, rw)
        return result


def _of_decoder(m: Match) -> bool:
    """Whether there is a cache, or heads are shared."""
    k, _ = _turned(m["k"])
    keys, values = None if k is None else _operand(k), _operand(m["v"])
    if keys is None or values is None:
        return False
    return keys.repeats * values.repeats > 1 or (keys.joined is not None and values.joined is not None)


def _hand_over(output: Value, present: Value, rw: Rewriter) -> None:
    """Give an output of the graph from the operator; who reads the Concat may stand before that."""
    readers = list(output.uses())
    rw.replace(output, present)
    output.meta[INFERRED] = True  # what the file declares is the output
    for reader, index in readers:
        rw.set_input(reader, index, output)


def _dims(value: Value | None) -> Dims | None:
    """Dimensions as inferred, also where an output declares them by another name."""
    shape = None if value is None else refined_shape(value)
    return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)


def _turned(value: Value) -> tuple[Value | None, float]:
    """What a value is the transpose of, without its factors; None for others."""
    value, before = unscaled(value)
    node = value.producer()
    if node is None or not is_op(node, "Transpose") or tuple(ints_attr(node, "perm") or ()) != _TURNED:
        return None, 1.0
    source = node.inputs[0]
    if source is None:
        return None, 1.0
    source, behind = unscaled(source)
    return source, before * behind


def _operand(value: Value) -> _Operand | None:
    """Keys or values, each head once; None where they are not known to be such."""
    shape = _dims(value)
    if shape is None or len(shape) != 4 or not isinstance(shape[1], int):
        return None
    alone = _Operand(value, shape[1], 1, shape)
    merge = value.producer()
    grow = None if merge is None or not is_op(merge, "Reshape") else merge.inputs[0]
    expand = None if grow is None else grow.producer()
    apart = None if expand is None or not is_op(expand, "Expand") else expand.inputs[0]
    lone = None if apart is None else apart.producer()
    if lone is None or not is_op(lone, "Unsqueeze") or axes_of(lone) != [2]:
        return alone
    source, before, after = lone.inputs[0], _dims(apart), _dims(grow)
    if source is None or before is None or after is None or len(before) != 5 or None in before:
        return alone
    batch, heads, one, tokens, size = before
    repeats = after[2]
    if not isinstance(repeats, int) or not isinstance(heads, int) or one != 1:
        return alone
    if after != (batch, heads, repeats, tokens, size) or shape != (batch, heads * repeats, tokens, size):
        return alone
    return _Operand(source, shape[1], repeats, shape)


def _alike(keys: tuple[Node, Value, Value] | None, values: tuple[Node, Value, Value] | None) -> bool:
    """Whether both are past and new tokens, as many new ones each: so are past ones, or no product is."""
    if keys is None or values is None:
        return False
    first, second = _dims(keys[2]), _dims(values[2])
    if first is None or second is None or len(first) != 4 or len(second) != 4:
        return False
    return first[2] is not None and first[2] == second[2]
