# SPDX-License-Identifier: Apache-2.0
"""What folds into weights share: one rounding, refusal of damage, removal of the weights left over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataType, Model, Node, Rewriter, Value, is_constant
from ...graph_ir.ops import array_of, constant_tensor
from ..base import Context
from ..driver import apply_rules
from ..pattern import Rule

Array = NDArray[Any]
Wide = NDArray[np.float64]

# (unit of rounding relative to one, smallest normal number, largest number) of the types a fold computes with
_PRECISION = {
    DataType.BFLOAT16: (2.0**-7, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
    DataType.FLOAT16: (2.0**-10, 2.0**-14, (2 - 2.0**-10) * 2.0**15),
    DataType.FLOAT: (2.0**-23, 2.0**-126, (2 - 2.0**-23) * 2.0**127),
    DataType.DOUBLE: (2.0**-52, 2.0**-1022, (2 - 2.0**-52) * 2.0**1023),
}
FLOATS = frozenset(_PRECISION)


def fold_weights(model: Model, ctx: Context, rules: Sequence[Rule]) -> bool:
    """Apply rules that replace weights by folded copies; drop the constants that lost their last reader."""
    rewriter = ctx.rewriter(model)
    if not apply_rules(model, ctx, rules, rewriter):
        return False
    for value in list(rewriter.released):
        if value.uses() or value.is_graph_output() or not is_constant(value):
            continue
        producer = value.producer()
        if producer is None:
            rewriter.drop_initializer(value)
        elif producer.graph is not None:
            rewriter.erase(producer)
    return True


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
    unit, tiny, most = _PRECISION[dtype]
    size = np.abs(rows)
    # Comparisons with NaN are false: both lead to the exact questions.
    fits, is_normal = size.max(initial=0.0) <= most, size.min(initial=tiny) >= tiny
    if fits and (is_normal or not size.any()):
        return rows.astype(like.dtype)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        result = rows.astype(like.dtype)
    if not fits and not np.isfinite(wide(result)).all():
        return None
    if is_normal:
        return result
    size = size.reshape(rows.shape[0], -1)
    largest = np.maximum(np.max(size, axis=1, initial=0.0), np.abs(beside))
    matters = size > unit * largest.reshape(-1, 1)
    if (matters & (size < tiny)).any():
        return None
    return result


def extra_outputs(node: Node) -> bool:
    """Whether the node has a named output besides its first."""
    return any(o.name for o in node.outputs[1:])


def typed(value: Value) -> Array:
    """The data of a value that was matched as a constant."""
    tensor = constant_tensor(value)
    assert tensor is not None
    return array_of(tensor)


def channels(array: Array, axis: int, count: int, least_rank: int) -> Wide | None:
    """A broadcast operand as float64 [count], or None when it is not one value a channel.

    Args:
        array: the operand, broadcast against a value of rank at least `least_rank`.
        axis: the channel axis of that value, counted from the end.
        count: its channels there.
        least_rank: an operand of higher rank could enlarge the result.
    """
    if array.ndim > least_rank:
        return None
    for i in range(-array.ndim, 0):
        if array.shape[i] != 1 and (i != axis or array.shape[i] != count):
            return None
    flat = wide(array).reshape(-1)
    return flat if flat.size == count else np.full(count, flat[0])


def store_weight(
    node: Node, index: int, data: Array, old: Value | None, rw: Rewriter, name: str = ""
) -> None:
    """Have a node read new data: in the old one's place if nothing else reads that, nor knows more of it."""
    if old is None or old.producer() is not None or old.is_graph_output() or old.metadata_props or old.meta:
        alone = False
    else:
        alone = len(old.uses()) == 1
    if alone and old is not None:
        rw.set_data(old, data)
    else:
        hint = name if old is None else old.name
        rw.set_input(node, index, rw.constant(data, hint or "weight", node))
