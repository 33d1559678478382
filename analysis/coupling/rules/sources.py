# SPDX-License-Identifier: Apache-2.0
"""Operators that make tensors from sizes or from nothing."""

from __future__ import annotations

from ....graph_ir.ops import RANDOM_OPS
from ..ties import Rule, Ties
from .common import pin_operands, result, table


def constant(ties: Ties) -> None:
    """Constant: free, as an initializer is; the pass that cuts slices it."""
    value = result(ties, 0)
    if value is not None:
        ties.free(*ties.axes(value))


def constant_of_shape(ties: Ties) -> None:
    """ConstantOfShape: free, for all positions are alike and the sizes are rewritten. Pinned: the sizes."""
    pin_operands(ties, 0)
    value = result(ties, 0)
    if value is not None:
        ties.free(*ties.axes(value))


def counted(ties: Ties) -> None:
    """Range, EyeLike, NonZero and what draws at random: pinned.

    What stands at a position depends on its number; with a seed, so do draws.
    """
    ties.pin_node(f"{ties.node.op_type} makes its positions by number")


RULES: dict[tuple[str, str], Rule] = {
    **table(constant, "Constant"),
    **table(constant_of_shape, "ConstantOfShape"),
    **table(counted, "Range", "EyeLike", "NonZero", *RANDOM_OPS),
}
