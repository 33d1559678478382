# SPDX-License-Identifier: Apache-2.0
"""Ranges by other rules for the noisiest values.

One value after the other, by what becomes of the outputs when all are quantized: what each loses by itself
misleads, since values that are clamped alike partly make up for each other. Each trial is a candidate of its
own, which the int8 kernels run: one session of floats on grids that are given with each run costs more, as
it runs at the speed of float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..tell import Tell
from .budget import OutOfBudgetError
from .form import Form

MOST_PICKED = 4  # values whose range is chosen by itself
PICKED_DB = 0.1  # what that has to bring


def pick(
    best: Form,
    values: Sequence[str],
    rules: Sequence[str],
    *,
    range_of: Callable[[Form, str], tuple[float, float]],
    closeness: Callable[[Form], float],
    known: float,
    tell: Tell,
) -> Form:
    """The form with other rules for some values, or itself; when the budget ends, what was found until then.

    Args:
        best: where to begin.
        values: by falling noise; those that have the same range by all rules are passed over.
        rules: for ranges.
        range_of: the range that a form has for a value.
        closeness: of the outputs of a form, in dB; may raise OutOfBudgetError.
        known: that of `best`.
        tell: told how far it is.
    """
    trials = [(value, forms) for value in values if (forms := _others(best, value, rules, range_of))]
    del trials[MOST_PICKED:]
    try:
        for done, (value, forms) in enumerate(trials):
            tell("choosing ranges of single values", done, len(trials))
            before = best.picked
            for rule in forms:
                form = replace(best, picked=(*before, (value, rule)))
                found = closeness(form)
                if found > known + PICKED_DB:
                    best, known = form, found
    except OutOfBudgetError:
        pass  # the next one who asks for time ends the search
    return best


def _others(
    best: Form, value: str, rules: Sequence[str], range_of: Callable[[Form, str], tuple[float, float]]
) -> list[str]:
    """The rules that give a value other ranges than the form has and than each other."""
    seen = {range_of(best, value)}
    found: list[str] = []
    for rule in rules:
        given = range_of(replace(best, picked=((value, rule),)), value)
        if given not in seen:
            seen.add(given)
            found.append(rule)
    return found
