# SPDX-License-Identifier: Apache-2.0
"""Quantization: values keep their places; scales and zero points go with the axis they are for."""

from __future__ import annotations

from ....graph_ir import Value
from ....graph_ir.ops import from_front, int_attr
from ..ties import Rule, Ties
from .common import equal_rank, operand, pin_axes, pin_operands, result, table, tie_all, tie_same


def quantize(ties: Ties) -> None:
    """QuantizeLinear, DequantizeLinear: x and y tied; scales and zero points for positions of `axis`, too.

    Pinned: in blocked form, the axis in blocks, whose scales belong to several positions each.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    tie_all(ties, x, y)
    for settings in (operand(ties, 1), operand(ties, 2)):
        if settings is not None and any(ties.size(axis) != 1 for axis in ties.axes(settings)):
            _settings(ties, x, settings)


def _settings(ties: Ties, x: Value, settings: Value) -> None:
    rank = ties.rank(x) or 0
    at = from_front([int_attr(ties.node, "axis", 1)], rank)
    if at is None or (ties.rank(settings) != 1 and not equal_rank(ties, x, settings)):
        ties.pin_node("its scales do not belong to one axis")
    elif ties.rank(settings) == 1 and not int_attr(ties.node, "block_size", 0):
        ties.same((x, at[0]), (settings, 0))
    elif equal_rank(ties, x, settings):
        for axis in range(rank):
            if axis == at[0]:
                pin_axes(ties, [axis], "it is quantized in blocks", x, settings)
            else:
                tie_same(ties, (x, axis), (settings, axis))


def dynamic_quantize(ties: Ties) -> None:
    """DynamicQuantizeLinear: x and y tied; scale and zero point are scalars.

    They are of the range of all elements and of zero, so a channel that holds zero does not change them.
    """
    tie_all(ties, operand(ties, 0), result(ties, 0))
    pin_operands(ties, 1)


RULES: dict[tuple[str, str], Rule] = {
    **table(quantize, "QuantizeLinear", "DequantizeLinear"),
    **table(quantize, "QuantizeLinear", "DequantizeLinear", domain="com.microsoft"),
    **table(dynamic_quantize, "DynamicQuantizeLinear"),
}
