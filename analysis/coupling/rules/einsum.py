# SPDX-License-Identifier: Apache-2.0
"""Einsum: every letter is one axis."""

from __future__ import annotations

from ....graph_ir import Value
from ....graph_ir.ops import string_attr
from ..ties import AxisKey, Rule, Ties
from .common import is_weight, result, table


def einsum(ties: Ties) -> None:
    """Einsum: axes of one letter are tied; letters the result lacks are summed over.

    A letter of the result that only a weight has is made by the node; one that two activations share and the
    result has counts heads. Pinned: everything with an ellipsis, a letter twice in one operand, or axes that
    do not fit the letters.
    """
    terms = _terms(string_attr(ties.node, "equation", ""))
    output, operands = result(ties, 0), [v for v in ties.node.inputs if v is not None]
    if output is None:
        return
    values = [*operands, output]
    if terms is None or [len(t) for t in terms] != [ties.rank(v) for v in values]:
        ties.pin_node("its equation repeats a letter in an operand, or has an ellipsis")
        return
    axes: dict[str, list[AxisKey]] = {}
    for value, letters in zip(values, terms, strict=True):
        for axis, letter in enumerate(letters):
            axes.setdefault(letter, []).append((value, axis))
    readers = list(zip(operands, terms[:-1], strict=True))
    for letter, tied in axes.items():
        holders = [value for value, letters in readers if letter in letters]
        if letter not in terms[-1]:
            ties.contracts(*tied)
        elif len(holders) == 1 and len(operands) > 1 and is_weight(holders[0]):
            ties.produces(*tied[::-1])
        else:
            ties.same(*tied[::-1])
            if _activations(holders) > 1 and ties.size(tied[-1]) != 1:
                ties.heads(tied[-1])


def _activations(values: list[Value]) -> int:
    return sum(not is_weight(value) for value in values)


def _terms(equation: str) -> list[str] | None:
    """Letters of each operand, then of the result; None for what is not understood."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms)
        right = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    terms.append(right)
    plain = all(not term or term.isalpha() for term in terms)
    return terms if plain and all(len(set(term)) == len(term) for term in terms) else None


RULES: dict[tuple[str, str], Rule] = table(einsum, "Einsum")
