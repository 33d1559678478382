# SPDX-License-Identifier: Apache-2.0
"""What the rules share: operands as numbers, which values are weights, and broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....graph_ir import Node, Value, is_constant
from ....graph_ir.ops import input_at, ints_attr, is_op, is_read, label
from ...shapes import symbolic_data
from ..ties import AxisKey, Rule, Ties

WEIGHT_STEPS = 6  # a weight is quantized, cast, transposed, reshaped... by few nodes

_WEIGHT_OPS = (
    *("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Mul", "Div"),
    *("DequantizeLinear", "QuantizeLinear", "Add", "Sub"),
)


def shaped(rule: Rule) -> Rule:
    """The rule, which pins the node instead when the rank of an operand or of a result in use is unknown."""

    def guarded(ties: Ties) -> None:
        missing = next((v for v in present(ties.node) if ties.rank(v) is None), None)
        if missing is None:
            rule(ties)
        else:
            ties.pin_node(f"the rank of {missing.name!r} at {label(ties.node)!r} is not known")

    guarded.__doc__ = rule.__doc__
    return guarded


def present(node: Node) -> list[Value]:
    """The inputs that are given and the outputs that are read."""
    return [*(v for v in node.inputs if v is not None), *(v for v in node.outputs if is_read(v))]


def operand(ties: Ties, index: int) -> Value | None:
    """An input of the node, None when absent."""
    return input_at(ties.node, index)


def result(ties: Ties, index: int) -> Value | None:
    """An output of the node, None when absent or read by nothing."""
    outputs = ties.node.outputs
    return outputs[index] if index < len(outputs) and is_read(outputs[index]) else None


def pin_operands(ties: Ties, first: int, last: int | None = None) -> None:
    """Pin the operands from `first` on (up to `last`, excluded): they hold sizes, axes or indices."""
    for value in ties.node.inputs[first:last]:
        ties.pin_value(value, f"{ties.node.op_type} reads sizes, axes or settings from it")


def numbers(value: Value | None) -> list[int | None] | None:
    """Elements of a small integer operand, None for those not known; None when nothing is known."""
    found = None if value is None else symbolic_data(value)
    return None if found is None else [item if isinstance(item, int) else None for item in found]


def integers(value: Value | None) -> list[int] | None:
    """Elements of a small integer operand when all of them are known numbers."""
    found = numbers(value)
    known = [item for item in found or () if item is not None]
    return known if found is not None and len(known) == len(found) else None


def is_weight(value: Value | None, steps: int = WEIGHT_STEPS) -> bool:
    """Whether a value is a constant, or computed from constants alone by a few simple nodes."""
    if value is None or is_constant(value):
        return value is not None
    producer = value.producer()
    if producer is None or steps == 0 or not is_op(producer, *_WEIGHT_OPS):
        return False
    return all(is_weight(v, steps - 1) for v in producer.inputs[:2] if v is not None)


def tie_same(ties: Ties, *axes: AxisKey) -> None:
    """Tie axes that are the same but for those of one element, which are repeated along the others."""
    many = [axis for axis in axes if ties.size(axis) != 1]
    if many:
        ties.same(*many)


def broadcast(ties: Ties, inputs: Sequence[Value], output: Value) -> None:
    """Tie the axes of operands to those of the result, aligned from the end."""
    for axis in range(ties.rank(output) or 0):
        tie_same(ties, *column(ties, inputs, output, axis))


def column(ties: Ties, inputs: Sequence[Value], output: Value, axis: int) -> list[AxisKey]:
    """An axis of the result and the axes of the operands that are aligned with it from the end."""
    extent = ties.rank(output) or 0
    found: list[AxisKey] = [(output, axis)]
    for value in inputs:
        at = axis - extent + (ties.rank(value) or 0)
        if at >= 0:
            found.append((value, at))
    return found


def tie_all(ties: Ties, *values: Value | None) -> None:
    """Tie all axes of values of one shape."""
    tie_except(ties, (), *values)


def tie_except(ties: Ties, left_out: Sequence[int], *values: Value | None) -> None:
    """Tie the axes of values of equal rank, but for some."""
    given = [v for v in values if v is not None]
    for axis in range(ties.rank(given[0]) or 0) if given else ():
        if axis not in left_out:
            tie_same(ties, *((v, axis) for v in given))


def pin_axes(ties: Ties, axes: Sequence[int], reason: str, *values: Value | None) -> None:
    """Pin the same axes of several values."""
    for value in values:
        if value is not None:
            for axis in axes:
                ties.pin((value, axis), reason)


def pointwise(ties: Ties, window: Sequence[int | None], x: Value, y: Value) -> list[int]:
    """Axes of a convolution or pooling along which position i of y is made of position i of x alone."""
    rank = len(window) + 2
    strides = ints_attr(ties.node, "strides") or [1] * len(window)
    pads = ints_attr(ties.node, "pads") or [0] * (2 * len(window))
    return [
        axis
        for axis in range(2, rank)
        if window[axis - 2] == strides[axis - 2] == 1
        and pads[axis - 2] == pads[axis + rank - 4] == 0
        and (size := ties.size((x, axis))) is not None
        and size == ties.size((y, axis)) != 1
    ]


def equal_rank(ties: Ties, *values: Value | None) -> bool:
    """Whether the values that are given have one rank."""
    return len({ties.rank(v) for v in values if v is not None}) <= 1


def table(rule: Callable[[Ties], None], *names: str, domain: str = "") -> dict[tuple[str, str], Rule]:
    """Entries of the rule table: one rule for several operators."""
    return {(domain, name): shaped(rule) for name in names}
