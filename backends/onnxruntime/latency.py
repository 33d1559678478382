# SPDX-License-Identifier: Apache-2.0
"""Latency of several candidates side by side, on a machine that may be busy with other things.

Candidates take turns (A B C, A B C, ...), so that a slow minute of the machine hits all of them; a
candidate's value in a round is the median of its runs in that turn, and two candidates are compared by the
ratios of their values round by round. The median ratio has the interval of the sign test: the order
statistics between which the true median lies with the wanted confidence, whatever the distribution
(Conover, Practical Nonparametric Statistics, 3.2). Nothing is drawn at random, so there is no seed.

Of several feeds each round has the next one, the same for all candidates, so that a ratio is of one feed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import numpy as np

from ...graph_ir.errors import DataError
from ..base import Feed
from .config import SessionConfig
from .session import OrtSession
from .source import ModelSource

Runner: TypeAlias = Callable[[int], object]
"""One inference in the round of that number."""

_MAX_REPEATS = 2000


@dataclass(frozen=True)
class Latency:
    """Time of one run of a model.

    Attributes:
        name: of the model.
        turns_ms: milliseconds of one run, a value for each round, in their order.
        min_ms: of the fastest run.
        repeats: runs in a round, of which its value is the median.
    """

    name: str
    turns_ms: tuple[float, ...]
    min_ms: float
    repeats: int

    @property
    def rounds(self) -> int:
        """How many rounds were measured."""
        return len(self.turns_ms)

    @property
    def median_ms(self) -> float:
        """Median over the rounds."""
        return median(self.turns_ms)

    @property
    def p10_ms(self) -> float:
        """Tenth percentile over the rounds."""
        return float(np.quantile(self.turns_ms, 0.1))

    @property
    def p90_ms(self) -> float:
        """Ninetieth percentile over the rounds."""
        return float(np.quantile(self.turns_ms, 0.9))

    def joined(self, more: Latency) -> Latency:
        """With the rounds of another measurement behind its own."""
        least = min(self.min_ms, more.min_ms)
        return Latency(self.name, self.turns_ms + more.turns_ms, least, self.repeats)


@dataclass(frozen=True)
class Ratio:
    """Time of `a` over time of `b`: `median` of the rounds' ratios, the true one between `low` and `high`.

    With too few rounds for the confidence (under 6 for 95 %) the interval is (0, inf): nothing is decided.
    """

    a: str
    b: str
    median: float
    low: float
    high: float
    rounds: int
    confidence: float

    @property
    def decided(self) -> bool:
        """Whether one of the two is faster beyond doubt."""
        return self.high < 1.0 or self.low > 1.0


def measure(
    candidates: Mapping[str, Runner],
    *,
    rounds: int = 25,
    min_time: float = 0.02,
    budget_s: float = 60.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Latency]:
    """Time the candidates turn by turn.

    Args:
        candidates: what to run, by name; the first is the one that others are compared with.
        rounds: turns of each candidate.
        min_time: seconds that a turn should fill; short runs are repeated within it.
        budget_s: no round begins that would end after so many seconds; the first round always runs.
        clock: seconds, never going back.

    Each candidate runs twice before anything counts, and once more at the start of each turn that repeats
    runs, so that caches hold its own data again.

    Raises:
        DataError: when there is no candidate, or rounds is below 1.
    """
    if not candidates or rounds < 1:
        raise DataError("latency needs at least one candidate and one round")
    begin = clock()
    repeats = {name: _repeats(run, min_time, clock) for name, run in candidates.items()}
    turns: dict[str, list[float]] = {name: [] for name in candidates}
    least = dict.fromkeys(candidates, math.inf)
    longest = 0.0
    for done in range(rounds):
        start = clock()
        if done and start - begin + longest > budget_s:
            break
        for name, run in candidates.items():
            times = _turn(run, done, repeats[name], clock)
            turns[name].append(median(times))
            least[name] = min(least[name], *times)
        longest = max(longest, clock() - start)
    return {
        name: Latency(name, tuple(1e3 * t for t in turns[name]), 1e3 * least[name], repeats[name])
        for name in candidates
    }


def compare(a: Latency, b: Latency, *, confidence: float = 0.95) -> Ratio:
    """Time of `a` over time of `b` from their paired rounds.

    Raises:
        DataError: when the two were not measured in the same rounds.
    """
    if a.rounds != b.rounds:
        raise DataError(f"{a.name!r} and {b.name!r} were not measured side by side")
    center, low, high = _interval(a.turns_ms, b.turns_ms, confidence)
    return Ratio(a.name, b.name, center, low, high, a.rounds, confidence)


@contextmanager
def session_runners(
    models: Mapping[str, tuple[ModelSource, SessionConfig]], feeds: Sequence[Feed], *, threads: int = 1
) -> Generator[dict[str, Runner]]:
    """Open every model and give a runner for each; all are closed after the block.

    Idle threads of these sessions do not spin (`session.intra_op.allow_spinning=0`): several sessions live
    here side by side, and the pool of one that waits would otherwise burn the cores that another one is
    measured on. With more than one thread a lone default session may therefore be somewhat faster than
    reported; all candidates bear the same.

    Args:
        models: model and config by name.
        feeds: what each of them is run on, one after the other, round by round.
        threads: intra-op threads; 0 for all cores.

    Raises:
        BackendError: a model is refused.
        DataError: a feed does not fit a model.
    """

    def runner(session: OrtSession) -> Runner:
        return lambda number: session.run_unchecked(feeds[number % len(feeds)])

    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name, (source, config) in models.items():
            session = stack.enter_context(OrtSession(source, config, threads=threads, spinning=False))
            for feed in feeds:
                session.check(feed)
            runners[name] = runner(session)
        yield runners


def _repeats(run: Runner, min_time: float, clock: Callable[[], float]) -> int:
    run(0)
    (once,) = _turn(run, 0, 1, clock)
    return _MAX_REPEATS if once <= 0 else max(1, min(_MAX_REPEATS, math.ceil(min_time / once)))


def _turn(run: Runner, number: int, repeats: int, clock: Callable[[], float]) -> list[float]:
    if repeats > 1:
        run(number)
    times: list[float] = []
    for _ in range(repeats):
        start = clock()
        run(number)
        times.append(clock() - start)
    return times


def _interval(a: Sequence[float], b: Sequence[float], confidence: float) -> tuple[float, float, float]:
    tiny = 1e-12  # a clock too coarse for the run must not divide by zero
    ratios = sorted((x + tiny) / (y + tiny) for x, y in zip(a, b, strict=True))
    skip = _sign_test_rank(len(ratios), confidence)
    if skip is None:
        return median(ratios), 0.0, math.inf
    return median(ratios), ratios[skip], ratios[-1 - skip]


def _sign_test_rank(count: int, confidence: float) -> int | None:
    """How many of the smallest (and largest) values lie outside the median's interval."""
    allowed = (1.0 - confidence) / 2.0
    tail, rank = 0.0, None
    for k in range(count // 2):
        tail += math.comb(count, k) * 0.5**count
        if tail > allowed:
            break
        rank = k
    return rank
