# SPDX-License-Identifier: Apache-2.0
"""Reaching a measured time: choose by what is foreseen, measure the whole model, correct, and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .budget import corrected
from .choice import Chosen, Left, OutOfReachError

if TYPE_CHECKING:
    from .steps import Made

ATTEMPTS = 5  # measurements of the whole model
_ENOUGH = 3  # of them, where a model that is fast enough is not far faster
_ABOUT = 0.1
NEAR = 0.03  # a time this close to what is wanted is on it


def to_time(
    choose: Callable[[float], list[Chosen]],
    make: Callable[[list[Chosen]], Made | None],
    left: Left,
    measured: Callable[[Made, int, int], float],
    *,
    start: float,
    wanted: float,
) -> Made | None:
    """The slowest of the models tried that is fast enough, or the fastest where none is.

    Where the time is foreseen to be out of reach, the least widths are timed before that is believed.

    Args:
        choose: says what stays for a share of the time that is to be foreseen.
        make: cuts the model; None where nothing is cut.
        left: foresees the share of the original's time.
        measured: times a model, given the number of the attempt and how many there are at most.
        start: the share of the original's time that is left now.
        wanted: the share that is to be left.

    Raises:
        OutOfReachError: neither by what is foreseen nor by what the least widths take.
    """
    tried: dict[tuple[int, ...], Made] = {}
    tries: list[tuple[float, float]] = []
    goal, beyond = wanted, False
    for attempt in range(ATTEMPTS):
        try:
            chosen = choose(goal)
        except OutOfReachError as error:
            if tries:
                goal = (goal + tries[-1][0]) / 2  # the correction asks for more than there is
            elif beyond or error.least is None:
                raise
            else:
                goal, beyond = error.least, True
            continue
        widths = tuple(c.after for c in chosen)
        if widths in tried:
            break
        made = make(chosen)
        if made is None:
            return None
        made.left = measured(made, attempt, ATTEMPTS)
        tried[widths] = made
        if abs(made.left / wanted - 1) <= NEAR:
            break
        tries.append((left(np.array([len(c.kept) for c in chosen])), made.left))
        if attempt + 1 >= _ENOUGH and any(wanted * (1 - _ABOUT) <= t[1] <= wanted for t in tries):
            break
        goal = _next(start, tries, wanted)
    on_time = [m for m in tried.values() if m.left <= wanted * (1 + NEAR)]
    if on_time:
        return max(on_time, key=lambda m: m.left)
    fastest = min(tried.values(), key=lambda m: m.left)
    if beyond:
        raise OutOfReachError(
            f"{wanted:.1%} of the latency cannot be reached: timed with every group at its least width, "
            f"{fastest.left:.1%} is left; lower --min-keep or --align, exclude less, or ask for less",
            fastest.left,
        )
    return fastest


def _next(start: float, tries: list[tuple[float, float]], wanted: float) -> float:
    """What to foresee, after tries of (foreseen, measured): between the nearest on both sides of `wanted`.

    Where none was fast enough yet, as `corrected` has it from the last.
    """
    slow = min((t for t in tries if t[1] > wanted), key=lambda t: t[1], default=(start, start))
    fast = max((t for t in tries if t[1] <= wanted), key=lambda t: t[1], default=None)
    if fast is None or fast[0] >= slow[0]:
        return corrected(start, *tries[-1], wanted)
    return fast[0] + (slow[0] - fast[0]) * (wanted - fast[1]) / (slow[1] - fast[1])
