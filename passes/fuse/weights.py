# SPDX-License-Identifier: Apache-2.0
"""What folds into weights share: one rounding, refusal of damage, removal of the weights left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataType, Model, Node, Value
from ...graph_ir.ops import is_op, walk_graphs
from ..base import Context
from ..driver import apply_rules
from ..pattern import Rule

Array = NDArray[Any]
Wide = NDArray[np.float64]

# (unit of rounding relative to one, smallest normal number) of the types a fold computes with
_PRECISION = {
    DataType.BFLOAT16: (2.0**-7, 2.0**-126),
    DataType.FLOAT16: (2.0**-10, 2.0**-14),
    DataType.FLOAT: (2.0**-23, 2.0**-126),
    DataType.DOUBLE: (2.0**-52, 2.0**-1022),
}
FLOATS = frozenset(_PRECISION)


def fold_weights(model: Model, ctx: Context, rules: Sequence[Rule]) -> bool:
    """Apply rules that replace weights by folded copies; drop the constants that lost their last reader."""
    unread = set(_unread(model))
    if not apply_rules(model, ctx, rules):
        return False
    rewriter = ctx.rewriter(model)
    for value in _unread(model):
        if value in unread:
            continue
        producer = value.producer()
        if producer is not None:
            rewriter.erase(producer)
        else:
            rewriter.drop_initializer(value)
    return True


def _unread(model: Model) -> list[Value]:
    found: list[Value] = []
    for graph in walk_graphs(model):
        made = (node.outputs[0] for node in graph if is_op(node, "Constant"))
        found += [v for v in (*graph.initializers.values(), *made) if _idle(v)]
    return found


def _idle(value: Value) -> bool:
    return not (value.uses() or value.is_graph_output() or value.is_graph_input())


def wide(array: Array) -> Wide:
    """The array in float64."""
    return np.asarray(array, dtype=np.float64)


def rounded(rows: Wide, like: Array, dtype: DataType, beside: Wide) -> Array | None:
    """Folded weights rounded once to their dtype; None when rounding would do more than round.

    That is: a value overflows, or one that matters in its row (one output channel) drops below the normal
    numbers and loses digits. Beside a much larger weight or bias it does not matter: the channels that
    training has let die are of that kind.

    Args:
        rows: float64 [channels, ...].
        like: an array of the dtype to round to.
        dtype: the same, as the model names it.
        beside: float64 [channels], what is added to each row's sum.
    """
    unit, tiny = _PRECISION[dtype]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        result = rows.astype(like.dtype)
    if not np.isfinite(wide(result)).all():
        return None
    size = np.abs(rows).reshape(rows.shape[0], -1)
    largest = np.maximum(np.max(size, axis=1, initial=0.0), np.abs(beside))
    matters = size > unit * largest.reshape(-1, 1)
    if (matters & (size < tiny)).any():
        return None
    return result


def extra_outputs(node: Node) -> bool:
    """Whether the node has a named output besides its first."""
    return any(o.name for o in node.outputs[1:])
