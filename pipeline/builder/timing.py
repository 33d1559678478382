# SPDX-License-Identifier: Apache-2.0
"""How long candidates take: one after the other in the search, side by side at its end.

Sessions hold a model's weights, once more in the form that kernels want. So large models are measured in
batches, each beside the original and the lead, which is the one that the search found the fastest.

How much faster than the original an int8 form is changes with what else the machine does: less fits into
the caches, and it has more to lose. Forms that are alike suffer alike. So two forms are told apart by what
they take over the lead, in the same rounds, and one number says what the lead takes over the original.

Measured again and again with four other programs on each core, what a form takes on one thread over another
one varied by 4 to 22 % as medians of wall time beside the original. By processor time, the lower quartile
of a turn, beside the lead, it varies by 1 to 4 %, by wall time so by 1 to 11 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from ...analysis.cores import usable_cores
from ...backends.base import Feed
from ...backends.onnxruntime.latency import (
    Latency,
    Ratio,
    compare,
    in_later_rounds,
    lead_of,
    measure,
    over,
    own_clock,
    session_runners,
)
from .files import written_files
from .result import Candidate
from .settings import BuildSettings

NOISE = 0.01  # how much slower than the original a candidate may look and still count as not slower
OPEN_BYTES = 2**28  # of models measured at a time, beyond the original, the lead and one more
CLOSING_S = 10.0  # of measuring, for each number of threads; of those that may be the best once more
UNDISTURBED = 0.25  # quantile of a turn's runs that is its value: on a busy machine others are interrupted
LEAST_SHARE = 0.9  # of the time that a process has to have a processor for, for times by the clock to count
TRIAL_ROUNDS, TRIAL_S = 9, 2.0  # of a candidate's first timing, which guides the search

Times = Mapping[int, Mapping[str, Latency]]


class Stopwatch:
    """Times one candidate at a time, briefly, on one thread.

    The first is measured beside the original, and the others beside the first.

    Args:
        original: the original.
        feeds: what they are run on.
    """

    def __init__(self, original: Candidate, feeds: Sequence[Feed]) -> None:
        self._beside, self._feeds, self._time = original, feeds, 1.0
        self._first = True

    def __call__(self, candidate: Candidate) -> float:
        """Time of a candidate over that of the original."""
        models = {c.name: (c.path, c.config) for c in (self._beside, candidate)}
        with session_runners(models, self._feeds, threads=1) as runners:
            found = measure(
                runners,
                rounds=TRIAL_ROUNDS,
                min_time=0.01,
                budget_s=TRIAL_S,
                quantile=UNDISTURBED,
                run_clock=own_clock(1),
            )
        time = self._time * compare(found[candidate.name], found[self._beside.name]).median
        if self._first:
            self._beside, self._time, self._first = candidate, time, False
        return time


def side_by_side(
    candidates: Sequence[Candidate], lead: str, feeds: Sequence[Feed], settings: BuildSettings, threads: int
) -> dict[str, Latency]:
    """Latency of candidates with a number of threads.

    Args:
        candidates: the first is the original.
        lead: by name, which other ones are measured beside, too; may be the original.
        feeds: what they are run on.
        settings: how many rounds, and who is told.
        threads: of a run.
    """
    settings.progress(f"timing on {threads} thread" + "s" * (threads != 1), 0, None)
    found: dict[str, Latency] = {}
    batches = list(_batches(candidates, lead))
    for batch in batches:
        models = {c.name: (c.path, c.config) for c in batch}
        with session_runners(models, feeds, threads=threads) as runners:
            more = measure(
                runners,
                rounds=settings.rounds,
                budget_s=settings.at_most(CLOSING_S) / len(batches),
                quantile=UNDISTURBED,
                run_clock=own_clock(threads),
            )
        found = in_later_rounds(found, more)
    return found


def _batches(candidates: Sequence[Candidate], lead: str) -> Iterator[list[Candidate]]:
    """The candidates, so many at a time as may be open, each time with those that all are measured beside."""
    always = [c for c in candidates if c is candidates[0] or c.name == lead]
    batch, size = always[:], 0
    for candidate in candidates:
        if candidate in always:
            continue
        more = sum(file.stat().st_size for file in written_files(candidate.path))
        if len(batch) > len(always) and size + more > OPEN_BYTES:
            yield batch
            batch, size = always[:], 0
        batch.append(candidate)
        size += more
    yield batch


def thread_counts() -> list[int]:
    """What is timed: one thread and all."""
    return sorted({1, usable_cores()})


def undisturbed(times: Times) -> Times:
    """The times that can be chosen by: not those of several threads where other programs had the cores.

    They are of the ordinary clock, and the more parts a model has that threads wait for each other in, the
    more it loses then: an int8 form loses more than the original. Those of one thread are of processor time.
    """
    return {
        threads: by_name
        for threads, by_name in times.items()
        if threads == 1 or share(by_name.values()) >= LEAST_SHARE
    }


def share(measured: Iterable[Latency]) -> float:
    """The part of the time that the process had a processor for, in the middle of what was measured."""
    return median(latency.share for latency in measured)


def disturbances(times: Times) -> list[str]:
    """Notes on the times that nothing was chosen by."""
    chosen = undisturbed(times)
    return [
        f"other programs had the cores for {1 - share(by_name.values()):.0%} of the time on {threads} "
        "threads, so these times had no say; on an idle machine they would"
        for threads, by_name in times.items()
        if threads not in chosen
    ]


def relative_time(times: Times, name: str, reference: str) -> float:
    """A candidate's time over the reference's: geometric mean over the thread counts, of paired medians."""
    logs = [
        math.log(over(by_name, name, reference))
        for by_name in times.values()
        if name in by_name and reference in by_name
    ]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def surely(times: Times, name: str, reference: str) -> float:
    """The part of a relative time that is beyond doubt, by the interval of what it takes over the lead."""
    logs: list[float] = []
    for by_name in times.values():
        if name in by_name and reference in by_name:
            ratio = compare(by_name[name], by_name[lead_of(by_name, reference)])
            logs.append(math.log(ratio.low / ratio.median) if ratio.low > 0 else -math.inf)
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def ratios(times: Times, name: str, reference: str) -> dict[int, Ratio]:
    """A candidate's time over the reference's in the same rounds, by number of threads."""
    return {
        threads: compare(by_name[name], by_name[reference])
        for threads, by_name in times.items()
        if name in by_name and reference in by_name
    }


def not_slower(times: Times, name: str, reference: str) -> bool:
    """Whether a candidate is no slower than the reference at any thread count, so far as can be told.

    Within the noise the median tells. Beyond it one is slower where the whole interval of the median says so,
    or where there were too few rounds for an interval.
    """
    found = ratios(times, name, reference).values()
    return all(ratio.median <= 1 + NOISE or is_open(ratio) for ratio in found)


def is_open(ratio: Ratio) -> bool:
    """Whether a candidate that looks slower may still be as fast."""
    return ratio.median > 1 + NOISE and ratio.low <= 1 and math.isfinite(ratio.high)


def open_at(times: Times, name: str, original: str) -> list[int]:
    """The thread counts where a candidate looks slower and may not be."""
    return [threads for threads, ratio in ratios(times, name, original).items() if is_open(ratio)]
