# SPDX-License-Identifier: Apache-2.0
"""The user's metric: a function that runs the model it is given and says how good the answers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Feed
from ...calibration.functions import load_function, user_code
from ...graph_ir import DataError, a_kind
from .decisions import Run


class Metric:
    """A metric by name.

    Attributes:
        samples: how many it looked at the last time: the batch axis of what it ran.

    Raises:
        UsageError, DataError: there is no such function; see `load_function`.
    """

    def __init__(self, name: str) -> None:
        self._what = f"metric {name!r}"
        self._function: Callable[[Callable[[Feed], list[Any]]], object] = load_function(name)
        self.samples = 0

    def score(self, answer: Run, check: Callable[[Feed], None]) -> float:
        """What the metric says of a model.

        Args:
            answer: runs the model.
            check: holds a feed against its signature.

        Raises:
            DataError: the metric fails, gives no finite number, or never runs the model.
        """
        samples = 0

        def run(feed: Feed) -> list[NDArray[Any]]:
            nonlocal samples
            check(feed)
            first = next(iter(feed.values()), None)
            samples += max(1, first.shape[0]) if first is not None and first.ndim else 1
            return answer(feed)

        with user_code(self._what):
            given = self._function(run)
        score = _number(self._what, given)
        if not math.isfinite(score):
            raise DataError(f"{self._what} gave {score}, not a finite number")
        if not samples:
            raise DataError(
                f"{self._what} never ran the model that it was given: call run(feed) and score its answers"
            )
        self.samples = samples
        return score


def relative_drop(reference: float, score: float) -> float:
    """Share of the reference that is lost; negative when the score is better, inf below a zero reference."""
    if score == reference:
        return 0.0
    if reference == 0:
        return math.inf if score < 0 else 0.0
    return (reference - score) / abs(reference)


def _number(what: str, given: object) -> float:
    if given is not None and not isinstance(given, (str, bytes)):
        try:
            array = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            pass
        else:
            if array.size == 1:
                return float(array.reshape(-1)[0])
    raise DataError(f"{what} returned {a_kind(given)}, not a number")
