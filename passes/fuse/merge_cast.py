# SPDX-License-Identifier: Apache-2.0
"""Two Casts become one when the first loses nothing."""

from __future__ import annotations

from ...graph_ir import DataType, Model, Rewriter, Value
from ...graph_ir.ops import int_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, op, var

_T = DataType
_BITS = {_T.INT8: 8, _T.INT16: 16, _T.INT32: 32, _T.INT64: 64}
_UNSIGNED_BITS = {_T.UINT8: 8, _T.UINT16: 16, _T.UINT32: 32, _T.UINT64: 64}
_INTEGERS = frozenset({*_BITS, *_UNSIGNED_BITS})
# Significant bits of each float type; the widest integer it holds exactly has as many.
_SIGNIFICANT = {_T.BFLOAT16: 8, _T.FLOAT16: 11, _T.FLOAT: 24, _T.DOUBLE: 53}
_EIGHT_BIT_FLOATS = frozenset({_T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ})
_WIDER_FLOATS = {
    _T.BFLOAT16: frozenset({_T.FLOAT, _T.DOUBLE}),
    _T.FLOAT16: frozenset({_T.FLOAT, _T.DOUBLE}),
    _T.FLOAT: frozenset({_T.DOUBLE}),
    **{t: frozenset({_T.BFLOAT16, _T.FLOAT16, _T.FLOAT, _T.DOUBLE}) for t in _EIGHT_BIT_FLOATS},
}


def is_lossless(source: DataType, target: DataType) -> bool:
    """Whether every value of `source` is a value of `target` (bool counting as 0 and 1)."""
    if source == target:
        return True
    if source == _T.BOOL:
        return target in _INTEGERS or target in _SIGNIFICANT
    if target in _WIDER_FLOATS.get(source, frozenset()):
        return True
    if source in _UNSIGNED_BITS:
        bits = _UNSIGNED_BITS[source]
        return (
            bits < _UNSIGNED_BITS.get(target, 0)
            or bits < _BITS.get(target, 0)
            or bits <= _SIGNIFICANT.get(target, 0)
        )
    if source in _BITS:
        # The least value is a power of two, so the sign bit asks for no significant one.
        bits = _BITS[source]
        return bits < _BITS.get(target, 0) or bits - 1 <= _SIGNIFICANT.get(target, 0)
    return False


def casts_alike(source: DataType, middle: DataType, target: DataType) -> bool:
    """Whether casting to `target` gives the same bits from `source` as from `middle`, which holds it exactly.

    Both start from the same number; what differs is what implementations do outside the target's range or in
    two rounding steps, so only pairs where neither can happen, or all agree, are named.
    """
    if target in (source, _T.BOOL):
        return True
    if source == _T.BOOL:
        return target in _INTEGERS or target in _SIGNIFICANT
    if source in _INTEGERS:
        if target in _INTEGERS:
            # Integer to integer wraps the same number; float to integer out of range is undefined.
            return middle in _INTEGERS or is_lossless(source, target)
        # A 64-bit integer may go to a 16-bit float through float: twice rounded on one way only.
        return target in (_T.FLOAT, _T.DOUBLE) or (target in _SIGNIFICANT and is_lossless(source, _T.FLOAT))
    if source in _EIGHT_BIT_FLOATS:
        return target in _SIGNIFICANT
    return source in _SIGNIFICANT and (target in _SIGNIFICANT or target in _EIGHT_BIT_FLOATS)


class MergeCast(Rule):
    """Cast(Cast(x, M), T) = Cast(x, T), or x when T is x's own type; if M holds every value of x's type.

    Then both second steps start from the same number. The second's `saturate` and `round_mode` go along. Not
    valid: a narrowing first Cast (float to float16, float to integer, int64 to int32); strings, 4-bit and
    complex types; a float to integer second step (out of range it is undefined and differs by width); int64
    through a float.
    """

    inner = op("Cast", var("x")).shared()
    root = op("Cast", inner)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """Give x, or one Cast of it."""
        x, inner = m["x"], m.node(self.inner)
        source, middle = x.dtype, DataType(int_attr(inner, "to", 0))
        target = DataType(int_attr(m.root, "to", 0))
        if source is None:
            return Miss("type not known")
        if not is_lossless(source, middle):
            return Miss("the first loses values")
        if not casts_alike(source, middle, target):
            return Miss("the second may differ by where it starts")
        if target == source:
            return x
        between = inner.outputs[0]
        if between.is_graph_output() or len(between.uses()) > 1 or inner.graph is not m.root.graph:
            return Miss("the first is read by others")
        return rw.node("Cast", [x], list(m.root.attributes.values()), before=m.root).outputs[0]


class MergeCasts(Pass):
    """Merge Cast(Cast(x)) into one Cast, or none, where the first loses nothing.

    The algebra and limits stand with the rule `MergeCast`. It needs the types of values (`infer-shapes`).
    """

    name = "merge-cast"
    exact = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [MergeCast()])
