# SPDX-License-Identifier: Apache-2.0
"""What a metric of few samples says about data that was not seen: its error is made larger on purpose.

A metric of n samples sees no drop below 1/n, and by chance it sees one that is not there, or misses one that
is. How often an error tips an answer over grows about as the error does, so long as it is small. So the
metric is given

    y' = y + k (y_candidate - y),    k = 1, 2, 4, 8 and -1, -2, -4, -8,

y and y_candidate the outputs of the original and of the candidate, and moves by d_k. An error turned round
(k < 0) is as likely as the error itself, and tips other answers over. The slope through the origin, with
the variance of counted answers (which grows as k), is sum(|d_k|) / sum(|k|): eight measurements of which the
last ones see eight times the answers tip over. A metric that rises counts as one that falls, since both are
answers that tipped over. From the factor on under which a fifth of the metric is gone, above 2, nothing is
told of small errors, and d_k is left out. What leaves the range that the original's answers have (a
probability below zero) is brought back to its end.

A straight line is too much where little is lost until margins are used up (boxes that still overlap enough,
peaks that stay where they are): a detector of which 0, 1, 7 and 38 % were lost lost 0.1 % of unseen data. So
what is expected is a + q of a k + q k^2, neither below zero, by the same least squares.

Half an answer is added for what was too rare to be seen. A handful of answers is a poor estimate, and the
fastest of many forms has one that is small by chance; so the upper end of the estimate, one standard
deviation above, is told, too. The counts are of Poisson's kind, but an answer that tips over under one factor
does so under the larger ones: of answers whose thresholds lie evenly from 0 to 8, half are counted once, a
quarter twice and an eighth each three and four times, which makes the variance 37/15 of the mean.

A metric that answers smoothly (an error, a signal-to-noise ratio) needs no such help: there d_k follows a
power of k > 0, and d_1 says it all; counts of whole answers, which may look like that by chance, are no such
thing. Nothing is known of outputs that are not floats of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Feed
from ...calibration.data import add_feed
from ...graph_ir import DataError

Run = Callable[[Feed], list[Any]]

FORWARD = (1, 2, 4, 8)
MIRRORED = (-1, -2, -4, -8)
# Without amplified errors: how close a form must be for one sample to do; 10 dB less for each tenfold.
ONE_SAMPLE_DB = 55.0
MOST_BYTES = 256 << 20  # of answers that are remembered
_WHOLE = 1e-3  # how far from a whole number rounding takes a count of answers
_POWERS = (0.8, 2.2)  # smooth metrics grow as the error or as its square
_BROKEN = 0.2  # a drop by which a model is no longer frayed but broken
_ENOUGH = 1000  # values that tell a range
_OVERLAP = 37 / 15  # variance over mean of answers counted under several factors


def needed_db(samples: int) -> float:
    """How close outputs must be for a metric of so many samples to vouch for them as they are, in dB."""
    return ONE_SAMPLE_DB - 10 * math.log10(max(1, samples))


def expected_drop(
    forward: Sequence[float], mirrored: Sequence[float], samples: int, reference: float = 1.0
) -> tuple[float, float]:
    """The drop to be expected on other data, and the upper end of that.

    Args:
        forward: relative drops of the metric under `FORWARD` times the error; negative where it rose.
        mirrored: those under `MIRRORED` times the error.
        samples: how many the metric looks at.
        reference: the metric of the original; drops of whole answers are told by it.
    """
    counts = [abs(reference) * move * samples for move in forward]
    smooth = all(0 < count < math.inf for count in counts)  # a metric that was 0 falls infinitely
    if smooth and not all(abs(count - max(1, round(count))) < _WHOLE for count in counts):
        powers = [math.log2(b / a) for a, b in pairwise(forward)]
        if all(_POWERS[0] <= power <= _POWERS[1] for power in powers):
            return forward[0], forward[0]
    moved: list[float] = []  # both ways together
    for factor, ahead, back in zip(FORWARD, forward, mirrored, strict=True):
        if factor > FORWARD[1] and max(abs(ahead), abs(back)) > _BROKEN:
            break
        moved.append(abs(ahead) + abs(back))
    scale = 1 / max(1, samples) / (2 * sum(FORWARD[: len(moved)]))
    answers = sum(moved) * max(1, samples)
    return _at_one(moved) / 2 + 0.5 * scale, (answers + 0.5 + math.sqrt(_OVERLAP * answers)) * scale


def _at_one(moved: Sequence[float]) -> float:
    """The value at 1 of a k + q k^2 with a, q >= 0 through what moved under `FORWARD`, of variance as k."""
    first, second, third = (sum(k**power for k in FORWARD[: len(moved)]) for power in (1, 2, 3))
    total, weighted = sum(moved), sum(k * move for k, move in zip(FORWARD, moved, strict=False))
    square = weighted * first - total * second
    straight = total * third - weighted * second
    if not square > 0:  # or infinite
        return total / first
    return weighted / third if straight < 0 else (straight + square) / (first * third - second**2)


class Answers:
    """What a model answered to each feed, so long as that is not too much to remember.

    Args:
        most_bytes: of arrays that are kept; what comes after them is computed again when asked for.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._left = most_bytes
        self._known: dict[bytes, list[Any]] = {}

    def of(self, run: Run) -> Run:
        """A run that asks the model only what it was not asked before."""

        def remembered(feed: Feed) -> list[Any]:
            answers, kept = self._found(run, feed)
            return [answer.copy() for answer in answers] if kept else answers  # a metric may work in place

        return remembered

    def lent(self, run: Run) -> Run:
        """As `of`, but what is remembered is handed out itself and must not be changed."""
        return lambda feed: self._found(run, feed)[0]

    def _found(self, run: Run, feed: Feed) -> tuple[list[Any], bool]:
        key = _digest(feed)
        if key in self._known:
            return self._known[key], True
        answers = run(feed)
        size = sum(a.nbytes if isinstance(a, np.ndarray) else self._left + 1 for a in answers)
        if size > self._left:
            return answers, False
        self._left -= size
        self._known[key] = answers
        return answers, True


def _digest(feed: Feed) -> bytes:
    found = blake2b(digest_size=16)
    add_feed(found, feed)
    return found.digest()


class Ranges:
    """The range of each output over all feeds, as a whole and for each index along an axis.

    A few values tell no range, and neither does an axis of changing length. The first axis is the batch.
    """

    def __init__(self) -> None:
        self._of: dict[int, _Range] = {}

    def of(self, run: Run) -> Run:
        """A run whose answers widen the ranges."""

        def seen(feed: Feed) -> list[Any]:
            answers = run(feed)
            for index, answer in enumerate(answers):
                if isinstance(answer, np.ndarray) and answer.dtype.kind == "f" and answer.size:
                    self._of.setdefault(index, _Range()).widen(cast("NDArray[Any]", answer))
            return answers

        return seen

    def restrict(self, index: int, array: NDArray[Any]) -> None:
        """Bring each value of an output to the nearest one that is in range, in place."""
        if index in self._of:
            self._of[index].restrict(array)


class _Range:
    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = math.inf, -math.inf
        self.axes: dict[int, tuple[NDArray[Any], NDArray[Any]]] | None = None  # None before the first array

    def widen(self, array: NDArray[Any]) -> None:
        self.count += array.size
        self.low = float(np.fmin(self.low, np.fmin.reduce(array, axis=None)))
        self.high = float(np.fmax(self.high, np.fmax.reduce(array, axis=None)))
        known, self.axes = self.axes, {}
        for axis, size in enumerate(array.shape):
            if size == 1 or axis == 0:
                continue  # the whole; places in a batch, which say nothing
            others = tuple(other for other in range(array.ndim) if other != axis)
            low, high = np.fmin.reduce(array, axis=others), np.fmax.reduce(array, axis=others)
            if known is None:
                self.axes[axis] = (low, high)
            elif axis in known and known[axis][0].size == size:
                self.axes[axis] = (np.fmin(known[axis][0], low), np.fmax(known[axis][1], high))

    def restrict(self, array: NDArray[Any]) -> None:
        if self.count < _ENOUGH or not self.low <= self.high:
            return
        within = [
            (axis, low, high)
            for axis, (low, high) in (self.axes or {}).items()
            if axis < array.ndim and array.shape[axis] == low.size and self.count >= _ENOUGH * low.size
        ]
        if not within:
            np.clip(array, self.low, self.high, out=array)
        for axis, low, high in within:  # each lies within the whole
            shape = [-1 if other == axis else 1 for other in range(array.ndim)]
            np.clip(array, low.reshape(shape), high.reshape(shape), out=array)


def amplified(original: Run, candidate: Run, factor: float, ranges: Ranges) -> Run:
    """A run whose outputs are off by `factor` times what the candidate's are, within the original's ranges.

    The run raises DataError where an output is not of floating point, or of another shape.
    """

    def run(feed: Feed) -> list[Any]:
        pairs = zip(original(feed), candidate(feed), strict=True)
        return [_beyond(a, b, factor, ranges, index) for index, (a, b) in enumerate(pairs)]

    return run


def _beyond(want: object, got: object, factor: float, ranges: Ranges, index: int) -> NDArray[Any]:
    if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray):
        raise DataError("an output is no tensor, and its error cannot be scaled")
    left, right = cast("NDArray[Any]", want), cast("NDArray[Any]", got)
    if left.dtype.kind != "f" or left.shape != right.shape:
        raise DataError("an output is not of floats, or of another shape, and its error cannot be scaled")
    moved = right.astype(np.result_type(left, np.float32))
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values stay so, or become NaN
        moved -= left
        moved *= factor
        moved += left
    if not np.isfinite(moved).all():
        moved = np.where(left == right, left, moved)
    ranges.restrict(index, moved)
    return moved.astype(left.dtype, copy=False)
