# SPDX-License-Identifier: Apache-2.0
"""Attention from its parts (Vaswani and others, 2017, arXiv:1706.03762, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import int_attr, ints_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, op, var
from .activations import Fusion, float_type, fuse_all
from .attention_cache import AttentionOfCache
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
from .heads import BACK_FIRST, BY_HEAD, Heads, heads_of
from .masks import GuardBehind, MasksAsOne, guarded, stay_finite
from .reshape_dims import Dims, known_dims

_TURNED = op("Transpose", MIXED)


@dataclass(frozen=True)
class _Parts:
    """What the operator takes, and what has to be done to its mask and its result.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        factor: of their products.
        masks: what is added to them, in order.
        widen: whether that lacks rows.
        turned: whether the result is to have its tokens first.
        shape: what it is reshaped to then; () if it need not be.
    """

    q: Heads
    k: Heads
    v: Heads
    factor: float
    masks: tuple[Value, ...]
    widen: bool
    turned: bool
    shape: tuple[int, ...]


class AttentionOf(Fusion):
    """softmax(f Q K^T + mask) V for each head, the heads side by side = Attention(q, k, v, mask), scale = f.

    q, k and v are rows `[batch, tokens, heads * size]`, also thirds of one tensor; Reshape and Transpose that
    cut them into heads, and those that put the results side by side, are gone. Rows may come and go as
    `[tokens, batch, heads * size]`; those of one sample are the same elements in the same order, others are
    turned. f may be split among Q, K and the product. A mask with one row for all queries is expanded, since
    runtimes ask for a whole one. The mask may come in two sums.

    Where a mask forbids every key of a query by -inf, Softmax p alone gives NaN, Where(IsNaN(p), 0, p) 0. So
    does the operator by the standard, but NaN in older runtimes; the guard then stands behind it. Where it
    does so by the lowest float, all keys weigh the same; some versions of onnxruntime give 0 there, so that
    becomes -3.4e38.

    Valid where batch, heads and sizes are provably the same in all three, and the mask broadcasts to the
    products without enlarging them. Not valid: a factor that is no positive constant; types other than float;
    a part read elsewhere; below opset 23. Holds for finite products and values, but 0 may stand for the NaN
    of a query that all keys are forbidden to. onnxruntime's operator takes no empty batch and no empty rows.
    """

    since: ClassVar[int] = 23
    root: ClassVar[Op] = op("Reshape", _TURNED, var("shape"))

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        found = self.parts(m)
        return found if isinstance(found, Miss) else None

    def parts(self, m: Match) -> _Parts | Miss:
        """What the operator takes."""
        dtype = float_type(m["v"], m.root.outputs[0], DataType.FLOAT)
        if isinstance(dtype, Miss):
            return dtype
        perm = tuple(ints_attr(m.node(_TURNED), "perm") or ())
        if int_attr(m.node(SOFTMAX), "axis", -1) not in (-1, len(perm) - 1):
            return Miss("not a softmax over keys")
        if perm not in (BY_HEAD, *BACK_FIRST):
            return Miss("heads are not put side by side")
        q, k, v = heads_of(m["q"]), heads_of(m["k"], turned=True), heads_of(m["v"])
        if q is None or k is None or v is None:
            return Miss("not known to be rows cut into heads")
        if not q.heads == k.heads == v.heads or q.size != k.size:
            return Miss("heads differ")
        if None in (*q.outer, *k.outer) or not q.outer[0] == k.outer[0] == v.outer[0]:
            return Miss("batches are not known to be equal")
        again = _rows_again(known_dims(m.root.outputs[0]), q.outer, v.heads * v.size, perm)
        if v.factor != 1 or again is None:
            return Miss("the result is not rows again")
        product = m.node(PRODUCT).outputs[0]
        factor = q.factor * k.factor * factor_behind(m, product)
        if not is_scale(factor):
            return Miss("the factor is not a positive number")
        masks = masks_of(m)
        widen = fit_scores(masks, (q.outer[0], q.heads, q.outer[1], k.outer[1]))
        if isinstance(widen, Miss):
            return widen
        return _Parts(q, k, v, factor, masks, widen, *again)

    def fuse(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Attention."""
        found = self.parts(m)
        if isinstance(found, Miss):
            return found
        near = m.root
        chunks: dict[Value, list[Value]] = {}
        inputs: list[Value | None] = [_rows(h, near, rw, chunks) for h in (found.q, found.k, found.v)]
        if found.masks:
            mask = finite_mask(found.masks, near, rw)
            inputs.append(whole_mask(mask, found.masks, found.q.outer[1], near, rw) if found.widen else mask)
        attributes: Mapping[str, object] = {
            "q_num_heads": found.q.heads,
            "kv_num_heads": found.q.heads,
            "scale": found.factor,
        }
        name = m.node(MIXED).name or ""
        made = rw.node("Attention", inputs, attributes, before=near, name=name).outputs[0]
        if GUARDED in m.nodes and not stay_finite(found.masks):
            made = guarded(made, near, rw)
        if found.turned:
            made = _turned(made, near, rw)
        return _reshaped(made, found.shape, near, rw) if found.shape else made


def _rows_again(
    made: Dims | None, outer: Dims, width: int, perm: tuple[int, ...]
) -> tuple[bool, tuple[int, ...]] | None:
    """Whether rows `[batch, tokens, width]` are turned, and then reshaped to what; None for other results."""
    batch, tokens = outer
    if made == (batch, tokens, width) and (perm == BY_HEAD or batch == 1):
        return False, ()
    if made is None or made not in ((tokens, batch, width), (made[0], width)):
        return None
    if batch == 1:
        return False, tuple(d if isinstance(d, int) else -1 for d in made)
    if perm == BY_HEAD and len(made) == 2:
        return False, (-1, width)
    return None if perm != BACK_FIRST[1] else (True, () if len(made) == 3 else (-1, width))


def _turned(value: Value, near: Node, rw: Rewriter) -> Value:
    name = f"{value.name}_turned"
    return rw.node("Transpose", [value], {"perm": (1, 0, 2)}, before=near, name=name).outputs[0]


def _reshaped(value: Value, shape: tuple[int, ...], near: Node, rw: Rewriter) -> Value:
    given = rw.constant(np.array(shape, np.int64), f"{value.name}_shape", near)
    return rw.node("Reshape", [value, given], before=near, name=f"{value.name}_reshaped").outputs[0]


def _rows(heads: Heads, near: Node, rw: Rewriter, chunks: dict[Value, list[Value]]) -> Value:
    """The rows themselves, or the part of them that holds these heads, batch first."""
    if heads.tokens_first:
        part = _rows(replace(heads, tokens_first=False), near, rw, chunks)
        if heads.outer[0] != 1:
            return _turned(part, near, rw)
        return _reshaped(part, (1, -1, heads.heads * heads.size), near, rw)
    if heads.parts == 1:
        return heads.rows
    if heads.rows not in chunks:
        sizes = np.full(heads.parts, heads.heads * heads.size, np.int64)
        given = rw.constant(sizes, f"{heads.rows.name}_sizes", near)
        name = f"{heads.rows.name}_parts"
        made = rw.node("Split", [heads.rows, given], {"axis": 2}, before=near, name=name, outputs=heads.parts)
        chunks[heads.rows] = list(made.outputs)
    return chunks[heads.rows][heads.part]


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuse attention over rows cut into heads into the operator Attention, from opset 23 on.

    The algebra and limits stand with the rules `AttentionOf`, for decoders `AttentionOfCache` and, for masks,
    `MasksAsOne`. A guard against NaN that is left moves behind the product or goes (`GuardBehind`). It needs
    shapes (`infer-shapes`).

    On onnxruntime's CPU the part between the linear layers takes 0.7 to 0.9 of the time, most where tokens
    are few: the transposes are gone; with a cache 0.75 to 0.85, with shared heads 0.5 to 0.8. With operands
    that are cut into heads already and neither it gains little, so those are left alone; without the guard
    they take 0.7 to 0.9 of the time.

    Attributes:
        raise_opset: raise the opset to 23, if that is safe (`raise-opset`).
    """

    name: ClassVar[str] = "fuse-attention"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until they fire no more."""
        merged = apply_rules(model, ctx, [MasksAsOne()])
        fused = fuse_all(model, ctx, [AttentionOf()], raising=self.raise_opset)
        cached = fuse_all(model, ctx, [AttentionOfCache()], raising=self.raise_opset)
        moved = apply_rules(model, ctx, [GuardBehind()])
        return merged or fused or cached or moved
