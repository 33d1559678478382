# SPDX-License-Identifier: Apache-2.0
"""Operators that work element by element."""

from __future__ import annotations

from ....graph_ir.ops import int_attr, is_standard
from ..ties import Rule, Ties
from .common import broadcast, numbers, operand, pin_operands, result, table, tie_all, tie_same

_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN"),
    *("LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
    *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
    *("Cast", "Clip"),
)
_BROADCASTING = (
    *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Div", "Equal", "Greater", "Less"),
    *(
        "GreaterOrEqual",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
    ),
    *("Where", "Xor"),
)
_MICROSOFT_UNARY = ("Gelu", "QuickGelu")
_MICROSOFT_BROADCASTING = ("BiasGelu", "FastGelu")


def unary(ties: Ties) -> None:
    """One input, one result of its shape: all axes tied, nothing pinned.

    Operands after the first (Clip's bounds before and after opset 11) are scalars.
    """
    tie_all(ties, operand(ties, 0), result(ties, 0))
    pin_operands(ties, 1)


def cast_like(ties: Ties) -> None:
    """CastLike: all axes of input and result tied. Of the second operand only the type is read: free."""
    tie_all(ties, operand(ties, 0), result(ties, 0))
    like = operand(ties, 1)
    if like is not None and like is not operand(ties, 0):
        ties.free(*ties.axes(like))


def dropout(ties: Ties) -> None:
    """Dropout: input, result and mask tied. Pinned: ratio and mode, both scalars; everything in training."""
    training = operand(ties, 2)
    if training is not None and numbers(training) != [0]:
        ties.pin_node("it draws at random, by position")
        return
    tie_all(ties, operand(ties, 0), result(ties, 0), result(ties, 1))
    pin_operands(ties, 1)


def broadcasting(ties: Ties) -> None:
    """Any number of operands, broadcast: axes aligned from the end are tied, those of one element are not.

    Nothing is pinned. Before opset 7, `axis` says where the second operand's axes begin.
    """
    output = result(ties, 0)
    given = [v for v in ties.node.inputs if v is not None]
    if output is None:
        return
    if max((ties.rank(v) or 0 for v in given), default=0) > (ties.rank(output) or 0):
        ties.pin_node("an operand has a higher rank than the result")
    elif ties.opset < 7 and "axis" in ties.node.attributes and len(given) == 2 and is_standard(ties.node):
        tie_all(ties, given[0], output)
        start = int_attr(ties.node, "axis", 0) % max(ties.rank(output) or 0, 1)
        for axis in range(ties.rank(given[1]) or 0):
            tie_same(ties, (given[1], axis), (output, start + axis))
    elif ties.opset < 7 and ties.node.op_type == "PRelu" and _is_channel_slope(ties):
        tie_all(ties, given[0], output)
        tie_same(ties, (given[1], 0), (output, 1))
    else:
        broadcast(ties, given, output)


def _is_channel_slope(ties: Ties) -> bool:
    """Before opset 7 a slope of rank 1 had one element for each channel."""
    return ties.rank(operand(ties, 1)) == 1 and (ties.rank(operand(ties, 0)) or 0) > 1


RULES: dict[tuple[str, str], Rule] = {
    **table(unary, *_UNARY),
    **table(unary, *_MICROSOFT_UNARY, domain="com.microsoft"),
    **table(cast_like, "CastLike"),
    **table(dropout, "Dropout"),
    **table(broadcasting, *_BROADCASTING),
    **table(broadcasting, *_MICROSOFT_BROADCASTING, domain="com.microsoft"),
}
