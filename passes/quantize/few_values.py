# SPDX-License-Identifier: Apache-2.0
"""What passes that leave each output channel two or three different weights share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import Model, Node, Value, constant
from ...graph_ir.ops import is_op
from ...graph_ir.origins import goes_by
from ..base import Context
from ..linear.rows import RowView
from .facts import forget
from .kinds import LINEAR, refuse_linear
from .values import drop_orphans, used_initializers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rule = Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """New rows from the float64 rows [output channels, weights of each]."""


def replace_rows(
    model: Model, ctx: Context, name: str, rule: Rule, *, keep_ends: bool, exclude: Collection[str]
) -> bool:
    """Replace the weights of the linear nodes of the main graph; True if any were. Drops what was measured.

    Args:
        model: edited in place.
        ctx: of the run.
        name: of the pass.
        rule: what each output channel's weights become.
        keep_ends: leave the nodes that no linear node comes before or behind.
        exclude: labels or origins of nodes that are left alone.
    """
    rewriter, used = ctx.rewriter(model), used_initializers(model)
    inner = _inner(model)
    for node in list(model.graph):
        if not is_op(node, *LINEAR):
            continue
        reason = refuse_linear(node)
        if goes_by(node, exclude):
            reason = "`exclude` names it"
        elif reason is None and keep_ends and node not in inner:
            reason = "it is a first or last layer"
        if reason is not None:
            ctx.misses[name, reason] += 1
            continue
        source = node.inputs[1]
        weights = constant(source)
        assert source is not None
        assert weights is not None
        if not rewriter.allowed(name, node):
            continue
        read = RowView(node, weights.shape)
        rows = rule(read.rows(weights).reshape(read.outputs, -1).astype(np.float64))
        ready = np.ascontiguousarray(read.back(rows.astype(np.float32)))
        if not np.array_equal(ready, weights):
            rewriter.set_input(node, 1, rewriter.constant(ready, source.name or "weight", node))
            ctx.counters[name] += 1
    drop_orphans(rewriter, used)
    if rewriter.edits:
        forget(ctx)
    return rewriter.edits > 0


def _inner(model: Model) -> set[Node]:
    """The linear nodes with other linear nodes before and behind them."""
    nodes = list(model.graph)
    made: set[Value] = set()  # values that depend on a linear node
    behind: set[Node] = set()
    for node in nodes:
        depends = any(v in made for v in node.inputs if v is not None)
        if depends:
            behind.add(node)
        if depends or is_op(node, *LINEAR):
            made.update(node.outputs)
    before: set[Node] = set()
    for node in reversed(nodes):
        users = [user for out in node.outputs for user, _ in out.uses()]
        if any(is_op(user, *LINEAR) or user in before for user in users):
            before.add(node)
    return {node for node in behind & before if is_op(node, *LINEAR)}
