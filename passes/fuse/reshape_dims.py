# SPDX-License-Identifier: Apache-2.0
"""What Reshape, Flatten, Squeeze and Unsqueeze do to dimensions, for the rules that merge them.

All four keep the elements and their order; they differ only in how the result's shape is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...graph_ir import Node, Value, constant
from ...graph_ir.ops import dims, has_reference_attribute, input_at, int_attr, ints_at, ints_attr, is_op

Dim = int | str | None
Dims = tuple[Dim, ...]

FAMILY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_DEPTH = 4  # chains are merged as they are met, so no more than a few are ever left standing


def known_dims(value: Value | None, depth: int = _DEPTH) -> Dims | None:
    """The value's dimensions as recorded, or as the reshaping node that makes it implies."""
    recorded = dims(value)
    if value is None or (recorded is not None and all(isinstance(d, int) for d in recorded)):
        return recorded
    producer = value.producer()
    if not depth or producer is None or not is_op(producer, *FAMILY):
        return recorded
    if has_reference_attribute(producer):  # its axis is each caller's own
        return recorded
    implied = result_dims(producer, known_dims(producer.inputs[0], depth - 1))
    if recorded is None or implied is None or len(recorded) != len(implied):
        return recorded if implied is None else implied
    return tuple(i if r is None or isinstance(i, int) else r for i, r in zip(implied, recorded, strict=True))


def result_dims(node: Node, given: Dims | None) -> Dims | None:
    """The dimensions a reshaping node makes of such an input; None when not even the rank is known."""
    if node.op_type == "Reshape":
        return _reshaped(node, given)
    if given is None:
        return None
    if node.op_type == "Flatten":
        axis = int_attr(node, "axis", 1)
        axis = axis + len(given) if axis < 0 else axis
        return (_product(given[:axis]), _product(given[axis:]))
    axes = axes_of(node)
    if node.op_type == "Unsqueeze":
        return None if axes is None else _unsqueezed(axes, given)
    if axes is None:
        static = [d for d in given if isinstance(d, int)]
        named = input_at(node, 1) is not None
        return tuple(d for d in static if d != 1) if not named and len(static) == len(given) else None
    gone = {a % len(given) for a in axes} if given else set[int]()
    return tuple(d for i, d in enumerate(given) if i not in gone)


def axes_of(node: Node) -> list[int] | None:
    """The axes of a Squeeze or Unsqueeze; None when left out, empty or not constant.

    What Squeeze does with an empty list is not said by the standard, so it is not taken for a list.
    """
    return ints_attr(node, "axes") or ints_at(node, 1) or None


def shape_operand(node: Node) -> list[int] | None:
    """A Reshape's constant target, as written; None when it is not constant."""
    data = constant(input_at(node, 1))
    if data is None or data.ndim != 1 or data.dtype != np.int64:
        return None
    return [int(d) for d in data]


def target_dims(node: Node, middle: Dims | None) -> list[Dim] | None:
    """What each output dimension of a reshaping node is; -1 where a Reshape says so and it is not known.

    Args:
        node: the node.
        middle: the dimensions of its input.
    """
    if node.op_type != "Reshape":
        found = result_dims(node, middle)
        return None if found is None else list(found)
    wanted = shape_operand(node)
    found = _reshaped(node, middle)
    if wanted is None or found is None:
        return None
    return [-1 if w == -1 and not isinstance(f, int) else f for w, f in zip(wanted, found, strict=True)]


def reshape_spec(given: Dims | None, target: Sequence[Dim]) -> list[int] | None:
    """The constant operand of one Reshape from `given` to `target`, None when there is none for every input.

    A dimension that is not a number is copied (0) when the input has the same symbol in the same place. One
    other may be left to be inferred (-1), but only if every copied one is known or the -1 was there before:
    -1 beside a dimension that may be 0 at run time is an error, not an answer.
    """
    spec: list[int] = []
    inferred = copied = written = 0
    for i, d in enumerate(target):
        if d == 0:
            return None
        if isinstance(d, int):
            spec.append(d)
            inferred += d == -1
            written += d == -1
        elif d is not None and given is not None and i < len(given) and given[i] == d:
            spec.append(0)
            copied += 1
        else:
            spec.append(-1)
            inferred += 1
    if inferred > 1 or (inferred and copied and not written):
        return None
    return spec


def _reshaped(node: Node, given: Dims | None) -> Dims | None:
    wanted = shape_operand(node)
    if wanted is None:
        return None
    zero_is_zero = int_attr(node, "allowzero", 0) != 0
    found: list[Dim] = []
    for i, d in enumerate(wanted):
        if d == 0 and not zero_is_zero:
            found.append(given[i] if given is not None and i < len(given) else None)
        else:
            found.append(None if d == -1 else d)
    if -1 in wanted and given is not None:
        place = wanted.index(-1)
        found[place] = _quotient(given, found[:place] + found[place + 1 :])
    return tuple(found)


def _quotient(whole: Sequence[Dim], part: Sequence[Dim]) -> Dim:
    """What times `part` (never 0: Reshape fails there) gives `whole`, if that is one number or one symbol."""
    above = prod(d for d in whole if isinstance(d, int))
    below = prod(d for d in part if isinstance(d, int))
    symbols = [d for d in whole if not isinstance(d, int)]
    for d in part:
        if isinstance(d, int):
            continue
        if d is None or d not in symbols:
            return None
        symbols.remove(d)
    if below == 0 or above == 0 or above % below:
        return None
    if not symbols:
        return above // below
    return symbols[0] if len(symbols) == 1 and above == below else None


def _product(factors: Sequence[Dim]) -> Dim:
    """The product when it is one number or one symbol."""
    if 0 in factors:
        return 0
    others = [d for d in factors if d != 1]
    static = [d for d in others if isinstance(d, int)]
    if len(static) == len(others):
        return prod(static)
    return others[0] if len(others) == 1 else None


def _unsqueezed(axes: Sequence[int], given: Dims) -> Dims | None:
    rank = len(given) + len(axes)
    places = {a % rank for a in axes}
    if len(places) != len(axes):
        return None
    rest = iter(given)
    return tuple(1 if i in places else next(rest) for i in range(rank))
