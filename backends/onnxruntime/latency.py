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
from dataclasses import dataclass, replace
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
        repeats: runs in a round, of which its value is a quantile, by default the median.
        numbers: of the rounds, where other candidates had more; empty where they are 0, 1, 2 and so on.
        share: processor time of the whole process over what went by on the clock meanwhile. The thread that
            calls never sleeps, so less than 1 means that other programs had the cores.
    """

    name: str
    turns_ms: tuple[float, ...]
    min_ms: float
    repeats: int
    numbers: tuple[int, ...] = ()
    share: float = 1.0

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

    @property
    def by_round(self) -> dict[int, float]:
        """Milliseconds by the round's number."""
        return dict(zip(self.numbers or range(self.rounds), self.turns_ms, strict=True))

    def joined(self, more: Latency) -> Latency:
        """With other rounds behind its own."""
        least = min(self.min_ms, more.min_ms)
        numbers = (*self.by_round, *more.by_round)
        share = (self.share * self.rounds + more.share * more.rounds) / len(numbers)
        return Latency(self.name, self.turns_ms + more.turns_ms, least, self.repeats, numbers, share)


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
    quantile: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
    run_clock: Callable[[], float] | None = None,
    work_clock: Callable[[], float] = time.process_time,
) -> dict[str, Latency]:
    """Time the candidates turn by turn.

    Args:
        candidates: what to run, by name; the first is the one that others are compared with.
        rounds: turns of each candidate.
        min_time: seconds that a turn should fill; short runs are repeated within it.
        budget_s: no round begins that would end after so many seconds; the first round always runs.
        quantile: of a turn's runs, which is its value; a low one passes over runs that were interrupted.
        clock: seconds, never going back.
        run_clock: what runs are timed by, if not by that; see `own_clock`.
        work_clock: seconds of processor time; see `Latency.share`.

    Each candidate runs twice before anything counts, and once more at the start of each turn that repeats
    runs, so that caches hold its own data again.

    Raises:
        DataError: when there is no candidate, or rounds is below 1.
    """
    if not candidates or rounds < 1:
        raise DataError("latency needs at least one candidate and one round")
    begin = clock()
    by = run_clock or clock
    repeats = {name: _repeats(run, min_time, by) for name, run in candidates.items()}
    turns: dict[str, list[float]] = {name: [] for name in candidates}
    least = dict.fromkeys(candidates, math.inf)
    worked, passed = dict.fromkeys(candidates, 0.0), dict.fromkeys(candidates, 0.0)
    longest = 0.0
    for done in range(rounds):
        start = clock()
        if done and start - begin + longest > budget_s:
            break
        for name, run in candidates.items():
            before, work = clock(), work_clock()
            times = _turn(run, done, repeats[name], by)
            worked[name] += work_clock() - work
            passed[name] += clock() - before
            turns[name].append(float(np.quantile(times, quantile)))
            least[name] = min(least[name], *times)
        longest = max(longest, clock() - start)
    return {
        name: Latency(
            name,
            tuple(1e3 * t for t in turns[name]),
            1e3 * least[name],
            repeats[name],
            share=worked[name] / passed[name] if passed[name] > 0 else 1.0,
        )
        for name in candidates
    }


def in_later_rounds(before: Mapping[str, Latency], found: Mapping[str, Latency]) -> dict[str, Latency]:
    """Two measurements as one, the rounds of the second numbered on from those of the first."""
    start = 1 + max((number for latency in before.values() for number in latency.by_round), default=-1)
    later = {
        name: replace(latency, numbers=tuple(start + number for number in latency.by_round))
        for name, latency in found.items()
    }
    return {**before, **{n: before[n].joined(more) if n in before else more for n, more in later.items()}}


def compare(a: Latency, b: Latency, *, confidence: float = 0.95) -> Ratio:
    """Time of `a` over time of `b` from the rounds that both were measured in.

    Raises:
        DataError: when there are none.
    """
    left, right = a.by_round, b.by_round
    shared = [number for number in left if number in right]
    if not shared:
        raise DataError(f"{a.name!r} and {b.name!r} were not measured side by side")
    center, low, high = _interval([left[n] for n in shared], [right[n] for n in shared], confidence)
    return Ratio(a.name, b.name, center, low, high, len(shared), confidence)


def over(measured: Mapping[str, Latency], name: str, reference: str) -> float:
    """Time of one over another's, by way of what either takes over the lead where that is a third.

    On a busy machine the caches are shared with other programs, by which models that are alike lose alike.
    So they are told apart by what they take over one that is like them, and not over the reference.

    Raises:
        DataError: they were not measured beside the lead.
    """
    lead = lead_of(measured, reference)
    if lead in (name, reference) or name == reference:
        return compare(measured[name], measured[reference]).median
    first, second = compare(measured[name], measured[lead]), compare(measured[lead], measured[reference])
    return first.median * second.median


def lead_of(measured: Mapping[str, Latency], reference: str) -> str:
    """The fastest of those that were measured in all of the reference's rounds; the reference is one."""
    every = measured[reference].by_round.keys()
    beside = [name for name, latency in measured.items() if latency.by_round.keys() >= every]
    return min(beside, key=lambda name: compare(measured[name], measured[reference]).median)


def own_clock(threads: int) -> Callable[[], float]:
    """The clock that tells most of a model's own time on a busy machine.

    A run on one thread is all in the calling thread, whose processor time other programs do not add to.
    Runs on several are timed by the ordinary clock, and so is all where processor time is told too coarsely.
    """
    exact = time.get_clock_info("thread_time").resolution <= 1e-5  # not on Windows
    return time.thread_time if threads == 1 and exact else time.perf_counter


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
