# SPDX-License-Identifier: Apache-2.0
"""What the rules for attention share: its parts as exporters write them, and what becomes of masks."""

from __future__ import annotations

import numpy as np

from ...graph_ir import Node, Rewriter, Value
from ...graph_ir.ops import dims
from ..pattern import Match, Miss, commute, const, either, op, scalar, var
from .heads import scale_of
from .masks import knows_lowest, without_lowest
from .reshape_dims import Dim, Dims

PRODUCT = op("MatMul", var("q"), var("k"))
_SCALED = either(commute("Mul", PRODUCT, const("scale")), op("Div", PRODUCT, const("scale")), PRODUCT)
_BIASED = commute("Add", commute("Add", _SCALED, var("bias")), var("mask"))
SOFTMAX = op("Softmax", either(_BIASED, commute("Add", _SCALED, var("mask")), _SCALED))
GUARDED = op("Where", op("IsNaN", SOFTMAX), scalar(0), SOFTMAX)
MIXED = op("MatMul", either(GUARDED, SOFTMAX), var("v"))


def factor_behind(m: Match, product: Value) -> float:
    """What the products are multiplied by; NaN where that is no number."""
    if m.get("scale") is None:
        return 1.0
    ((user, _),) = product.uses()
    found = scale_of(user, product)
    return float("nan") if found is None else found


def is_scale(factor: float) -> bool:
    """Whether the operator's float attribute holds a factor: positive, with all its digits."""
    holds = np.finfo(np.float32)
    return float(holds.smallest_normal) <= factor <= float(holds.max)


def masks_of(m: Match) -> tuple[Value, ...]:
    """What is added to the products, in order."""
    return tuple(mask for mask in (m.get("bias"), m.get("mask")) if mask is not None)


def fit_scores(masks: tuple[Value, ...], scores: Dims) -> bool | Miss:
    """Whether the sum of masks lacks rows for queries; a Miss where one is not known to fit the scores."""
    widen = bool(masks)
    for mask in masks:
        fits = _fits(mask, scores)
        if isinstance(fits, Miss):
            return fits
        widen = widen and fits
    return widen


def _fits(mask: Value, scores: Dims) -> bool | Miss:
    """Whether a mask has to be expanded along the queries before it fits the scores."""
    given = dims(mask)
    if given is None or not 2 <= len(given) <= 4:
        return Miss("rank of the mask is not 2 to 4")
    batch, heads, queries, keys = scores
    *outer, rows, columns = given
    wanted = (batch, heads)[2 - len(outer) :]
    if columns is None or columns != keys or any(d not in (1, w) for d, w in zip(outer, wanted, strict=True)):
        return Miss("the mask is not known to fit the products")
    if rows == queries:
        return False
    if rows != 1 or not (isinstance(queries, int) or queries == columns):
        return Miss("the mask is not known to fit the queries")
    return True


def finite_mask(masks: tuple[Value, ...], near: Node, rw: Rewriter) -> Value:
    """All masks as one, without the lowest float."""
    early = all(map(knows_lowest, masks))
    total, *rest = [without_lowest(mask, near, rw) for mask in masks] if early else masks
    for mask in rest:
        total = rw.node("Add", [total, mask], before=near, name=f"{total.name}_added").outputs[0]
    return total if early else without_lowest(total, near, rw)


def whole_mask(mask: Value, masks: tuple[Value, ...], queries: Dim, near: Node, rw: Rewriter) -> Value:
    """The mask with a row for each query; equal ones are made equally, for `cse` to find."""
    extent = max(len(dims(given) or ()) for given in masks)
    name = mask.name or "mask"
    if isinstance(queries, int):
        shape = rw.constant(np.array([1] * (extent - 2) + [queries, 1], np.int64), f"{name}_shape", near)
    else:
        ones = rw.constant(np.ones(extent - 2, np.int64), f"{name}_ones", near)
        one = rw.constant(np.ones(1, np.int64), f"{name}_one", near)
        length = rw.node("Shape", [mask], {"start": extent - 1}, before=near, name=f"{name}_keys").outputs[0]
        parts = [*([ones] if extent > 2 else []), length, one]
        shape = rw.node("Concat", parts, {"axis": 0}, before=near, name=f"{name}_shape").outputs[0]
    return rw.node("Expand", [mask, shape], before=near, name=f"{name}_rows").outputs[0]
