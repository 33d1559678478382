# SPDX-License-Identifier: Apache-2.0
"""Which linear nodes are rounded by the second moments of what they read, and what that takes."""

from __future__ import annotations

from ...graph_ir import Model, Node, constant
from ...graph_ir.ops import has_reference_attribute, is_op
from ..linear.patches import Patches, patches
from ..linear.rows import RowView
from .kinds import LINEAR, refuse_linear

MOST_COLUMNS = 4096  # of rows whose second moments are measured


def patches_of(node: Node) -> Patches | None:
    """How the rows of a Conv, Gemm or MatMul are cut; None when it is not known or it is none."""
    if not is_op(node, *LINEAR) or has_reference_attribute(node) or refuse_linear(node) is not None:
        return None
    x, weights = node.inputs[0], constant(node.inputs[1])
    if x is None or not x.name or weights is None:
        return None
    return patches(RowView(node, weights.shape), x.name)


def patches_to_observe(model: Model, *, budget: int = 1 << 30) -> list[Patches]:
    """The patches of the linear nodes of the main graph, each once, in graph order.

    Rows of more than `MOST_COLUMNS` are left out.

    Args:
        model: not changed.
        budget: bytes of all second moments together; what would pass it is left out.
    """
    found: dict[Patches, None] = {}
    room = budget
    for node in model.graph:
        cut = patches_of(node)
        if cut is None or cut in found or cut.columns > MOST_COLUMNS or cut.size > room:
            continue
        found[cut] = None
        room -= cut.size
    return list(found)


def rounding_work(model: Model) -> int:
    """Multiplications of one sweep of rounding by second moments over all weights of the main graph."""
    total = 0
    for node in model.graph:
        weights = None if (cut := patches_of(node)) is None else constant(node.inputs[1])
        if cut is not None and weights is not None:
            total += int(weights.size) * cut.columns
    return total
