# SPDX-License-Identifier: Apache-2.0
"""Shape and Size: the sizes of axes as data.

They tie nothing. A Shape or Size of a tensor that is cut is made to go on telling the sizes of before, so
what is computed from it stays: the scale of attention, indices, sizes asked for other tensors. Operands that
ask for the size of an axis that is cut are written anew where they are read.
"""

from __future__ import annotations

from ..ties import Rule, Ties
from .common import operand, result, table


def shape(ties: Ties) -> None:
    """Shape, Size: axes of x are free. Pinned: the list of sizes."""
    x = operand(ties, 0)
    if x is not None:
        ties.free(*ties.axes(x))
    ties.pin_value(result(ties, 0), "it lists sizes")


RULES: dict[tuple[str, str], Rule] = table(shape, "Shape", "Size")
