# SPDX-License-Identifier: Apache-2.0
"""What a metric of few samples says about data that was not seen: its error is made larger on purpose.

A metric of n samples sees no drop below 1/n, and by chance it sees one that is not there, or misses one that
is. How often an error tips an answer over grows about as the error does, so long as it is small. So the
metric is given

    y' = y + k (y_candidate - y),    k = 2, 4, 8,

y and y_candidate the outputs of the original and of the candidate, and moves by d_k. The slope through the
origin, with the variance of counted answers (which grows as k), is sum(d_k) / sum(k): four measurements of
which the last sees eight times the answers tip over. A metric that rises counts as one that falls, since
both are answers that tipped over; half an answer is added for what was too rare to be seen.

A metric that answers smoothly (an error, a signal-to-noise ratio) needs no such help: there d_k follows a
power of k, and d_1 says it all. Nothing is known of outputs that are not floats of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Feed
from ...graph_ir import DataError

Run = Callable[[Feed], list[Any]]

FACTORS = (2, 4, 8)
# Without amplified errors: how close a form must be for one sample to do; 10 dB less for each tenfold.
ONE_SAMPLE_DB = 55.0
_POWERS = (0.8, 2.2)  # smooth metrics grow as the error or as its square


def needed_db(samples: int) -> float:
    """How close outputs must be for a metric of so many samples to vouch for them as they are, in dB."""
    return ONE_SAMPLE_DB - 10 * math.log10(max(1, samples))


def expected_drop(moves: Sequence[float], samples: int) -> float:
    """The drop to be expected on other data.

    Args:
        moves: relative drops of the metric under 1 and `FACTORS` times the error; negative where it rose.
        samples: how many the metric looks at.
    """
    if all(move > 0 for move in moves):
        powers = [math.log2(b / a) for a, b in pairwise(moves)]
        if all(_POWERS[0] <= power <= _POWERS[1] for power in powers):
            return moves[0]
    return (sum(abs(move) for move in moves) + 0.5 / max(1, samples)) / sum((1, *FACTORS))


def amplified(original: Run, candidate: Run, factor: float) -> Run:
    """A run whose outputs are off by `factor` times what the candidate's are.

    The run raises DataError where an output is not of floating point, or of another shape.
    """

    def run(feed: Feed) -> list[Any]:
        return [_beyond(a, b, factor) for a, b in zip(original(feed), candidate(feed), strict=True)]

    return run


def _beyond(want: object, got: object, factor: float) -> NDArray[Any]:
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        raise DataError("an output is no tensor, and its error cannot be scaled")
    left, right = cast("NDArray[Any]", want), cast("NDArray[Any]", got)
    if left.dtype.kind != "f" or left.shape != right.shape:
        raise DataError("an output is not of floats, or of another shape, and its error cannot be scaled")
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values stay so, or become NaN
        wide = left.astype(np.float64) + factor * (right.astype(np.float64) - left)
        return np.where(left == right, left, wide).astype(left.dtype)
