# SPDX-License-Identifier: Apache-2.0
"""The choice among judged and timed candidates: never slower, never less accurate than allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...backends.onnxruntime.latency import compare
from ..amounts import beyond, within
from .accuracy import COMFORT_DB
from .form import PLAIN
from .result import Candidate, Composition, Judgement
from .timing import Times, not_slower, open_at, relative_time, surely

ALIKE_DB = 3.0  # apart, candidates' outputs are still alike in closeness
TIE = 0.02  # candidates this close in time are told apart by accuracy
PRICE_PER_DB = 0.015  # the part of the speed that a dB is worth which is lacking to be comfortable
MOST_PRICE = 0.2
PRICE_OF_DROP = 10.0  # the part of the speed that a drop likely on other data is worth, for each part lost
ROUNDING_DB = 60.0  # outputs closer than this differ by rounding only
TOLD = 2  # refused candidates that the sentence names

Judged = tuple[Candidate, Judgement]


def priced(time: float, judgement: Judgement) -> float:
    """A time with the price of what is likely to be lost on other data; see `pick`."""
    if judgement.vouched and judgement.drop is not None:
        price = PRICE_OF_DROP * (judgement.at_most or 0.0)
    else:
        price = max(0.0, PRICE_PER_DB * (COMFORT_DB - _accuracy(judgement)))
    return time * (1 + min(MOST_PRICE, price))


def contenders(
    judged: Mapping[str, Judged], most: int, guesses: Mapping[str, float] | None = None
) -> list[Candidate]:
    """The candidates worth timing: of those of equal `Candidate.composition`, the closest alone.

    Timing all of them would let noise choose among their ranges. The unquantized ones come first and are
    always in, and so is the plain int8 form, to show what the search has brought; of the others, those `most`
    that promise most.

    Args:
        judged: candidates by name.
        most: how many int8 ones.
        guesses: time over the original's by name, as the search saw it; without one, closeness alone ranks.
    """
    best: dict[Composition, Judged] = {}
    for candidate, judgement in judged.values():
        if candidate.quantized and judgement.accepted:
            key = candidate.composition
            if key not in best or judgement.closeness_db > best[key][1].closeness_db:
                best[key] = (candidate, judgement)
    known = [c for c, j in judged.values() if (not c.quantized and j.accepted) or _shown(c, j)]

    def promise(item: Judged) -> tuple[float, float]:
        candidate, judgement = item
        guess = (guesses or {}).get(candidate.name, 1.0)
        return priced(guess, judgement), -judgement.closeness_db

    ranked = [c for c, _ in sorted(best.values(), key=promise) if c not in known]
    return [*known, *ranked[:most]]


def _shown(candidate: Candidate, judgement: Judgement) -> bool:
    """Whether it is the plain form, and runs."""
    return candidate.name == PLAIN and not judgement.failed


def in_doubt(judged: Mapping[str, Judged], times: Times, original: str) -> list[int]:
    """The thread counts where what is clearly the fastest looks slower than the original, and may not be."""
    doubted: dict[str, list[int]] = {}
    sure = [1.0]
    for name, time in _running(judged, times, original).items():
        doubted[name] = open_at(times, name, original)
        sure += [] if doubted[name] else [time]
    least = min(sure) * (1 - TIE)
    return sorted(
        {
            n
            for name, counts in doubted.items()
            for n in counts
            if relative_time(times, name, original) < least
        }
    )


def rivals(judged: Mapping[str, Judged], times: Times, original: str) -> list[str]:
    """The candidates that may be the best for all that is known, if that is more than one."""
    running = _running(judged, times, original)
    if not running:
        return []
    prices = {name: priced(time, judged[name][1]) for name, time in running.items()}
    least = min(prices.values()) * (1 + TIE)
    found = [name for name, price in prices.items() if price * surely(times, name, original) <= least]
    return found if len(found) > 1 else []


def _running(judged: Mapping[str, Judged], times: Times, original: str) -> dict[str, float]:
    """The time over the original's of what is accepted, was timed and is not slower."""
    timed = {name for by_name in times.values() for name in by_name}
    return {
        name: relative_time(times, name, original)
        for name, (_, judgement) in judged.items()
        if judgement.accepted and name in timed and not_slower(times, name, original)
    }


def distrust(judged: Mapping[str, Judged], max_drop: float) -> dict[str, Judged]:
    """Refuse candidates that owe their metric to luck.

    A metric on few samples is noisy: of many candidates, some always score well by chance. Candidates whose
    outputs are as close to the original's as one's own are further draws of the same noise, so their mean
    drop tells more than the own one, and it has to keep within the limit, too. So has the mean of what is to
    be expected of them on other data, as far as that was asked (`Judgement.expected`).

    Args:
        judged: candidates by name.
        max_drop: the limit of the relative drop.
    """
    found, everyone = dict(judged), [judgement for _, judgement in judged.values()]
    for name, (candidate, judgement) in judged.items():
        if not judgement.accepted or judgement.drop is None or not candidate.quantized:
            continue
        peers = [
            other
            for peer, other in judged.values()
            if peer.quantized
            and other.drop is not None
            and _alike(other.closeness_db, judgement.closeness_db)
        ]
        mean = sum(other.drop for other in peers if other.drop is not None) / len(peers)
        expected = None if judgement.expected is None else _expected(judgement, everyone)
        if not within(mean, max_drop):
            share = beyond(mean, max_drop)
            reason = f"{len(peers)} candidates this close lose {share} of the metric on average"
        elif expected is not None and not within(expected, max_drop):
            share = beyond(expected, max_drop)
            reason = f"{share} is to be expected on other data, by the metric under larger errors"
        else:
            continue
        reason = f"{reason}, allowed {max_drop:.2%}"
        found[name] = (candidate, replace(judgement, accepted=False, reason=reason))
    return found


def _expected(judgement: Judgement, others: Iterable[Judgement]) -> float:
    """What a candidate is expected to lose, by itself and by others, each scaled to its error.

    Answers tip over as the error grows. One that is `ALIKE_DB` further off or closer counts half.
    """
    weight = total = 0.0
    for other in others:
        if other.expected is not None:
            apart = other.closeness_db - judgement.closeness_db
            share = 2 ** (-abs(apart) / ALIKE_DB)
            total += share * other.expected * 10 ** (apart / 20)
            weight += share
    return total / weight


def _alike(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= ALIKE_DB  # equal infinities have no difference


def pick(
    judged: Mapping[str, tuple[Candidate, Judgement]], times: Times, original: str
) -> tuple[Candidate, str]:
    """The fastest accepted candidate that is not slower than the original; ties go to the more accurate.

    A metric on a few hundred samples cannot tell one per cent. So what may be lost on other data (the upper
    end of what is expected) counts as if it took more time: one per cent as ten. Where that is not known,
    each dB that outputs lack to be comfortably close to the original's counts `PRICE_PER_DB`. The price is at
    most `MOST_PRICE`.

    Args:
        judged: candidates by name; the original is among them.
        times: latencies by thread count and name; a candidate without one is out of the running.
        original: the original's name.

    Returns:
        The winner, and one sentence on why.
    """
    running = _running(judged, times, original)
    if not running:
        return judged[original][0], "nothing accepted was at least as fast as the original"
    fastest = min(running, key=lambda name: running[name])
    prices = {name: priced(time, judged[name][1]) for name, time in running.items()}
    tied = [name for name, price in prices.items() if price <= min(prices.values()) * (1 + TIE)]
    # Equal operators take equal time, whatever was measured.
    same = {judged[name][0].composition for name in tied} - {()}
    tied += [name for name in running if name not in tied and judged[name][0].composition in same]
    # One within the noise of the original that is no faster is no better either.
    tied = [name for name in tied if running[name] <= 1] or [original]
    # What looks slower somewhere has to be clearly the fastest; among equals another is the surer one.
    equal = [name for name in tied if not open_at(times, name, original)] or tied
    # The original comes last among equals: what the passes made is no slower, and simpler.
    winner = max(equal, key=lambda name: (_accuracy(judged[name][1]), name != original, -running[name]))
    if winner == original:
        why = f"{original}: nothing that keeps within the limits is faster and as close"
    elif winner == fastest:
        why = f"{winner}: {_speed(times, winner, original)}, the fastest that keeps within the limits"
    else:
        than = f"closer than {fastest}, which is the fastest"
        if fastest in tied and fastest not in equal:
            than = f"and {fastest} may be slower"
        elif running[winner] <= running[fastest] * (1 + TIE):
            than = f"as fast as {fastest}, and closer"
        why = f"{winner}: {_speed(times, winner, original)}, {than}"
    return judged[winner][0], why + _others(judged, times, original)


def told(name: str, times: Times, original: str) -> str:
    """One sentence on what was not chosen, but is made again."""
    speed = _speed(times, name, original) if name != original and times else "as it came in"
    return f"{name}, as the lock says: {speed}"


def unasked(judged: Mapping[str, Judged], times: Times, winner: str, original: str) -> str | None:
    """The fastest candidate that has not been asked what it will lose, and is the winner or faster; or None.

    Its price may turn out lower than closeness alone says.
    """
    timed = {name for by_name in times.values() for name in by_name}
    asked = {
        name: relative_time(times, name, original)
        for name, (_, judgement) in judged.items()
        if judgement.accepted and not judgement.vouched and (name in timed or name == winner)
    }
    least = relative_time(times, winner, original)
    faster = {name: time for name, time in asked.items() if name == winner or time < least}
    return min(faster, key=lambda name: (faster[name], name), default=None)


def _speed(times: Times, name: str, original: str) -> str:
    """The speed in words; no figure where the noise allows for none."""
    found = [compare(by_name[name], by_name[original]) for by_name in times.values() if name in by_name]
    few = any(math.isinf(ratio.high) for ratio in found)
    if not few and all(ratio.low <= 1 <= ratio.high for ratio in found):
        return "as fast as the original"
    text, on = f"{1 / relative_time(times, name, original):.2f} times the original's speed", together(times)
    text += f" by {found[0].rounds} rounds, too few to be sure" if few else ""
    return text + ("," if few and on else "") + on


def together(times: Times) -> str:
    """What speeds are of, where that is more than one number of threads."""
    return "" if len(times) < 2 else f" on {' and '.join(map(str, times))} threads together"


def _accuracy(judgement: Judgement) -> float:
    """Closeness in dB, as far as it matters: beyond rounding, one is as good as the other."""
    return min(judgement.closeness_db, ROUNDING_DB)


def _others(judged: Mapping[str, Judged], times: Times, original: str) -> str:
    refused = sorted(
        (
            (name, judgement)
            for name, (candidate, judgement) in judged.items()
            if not judgement.accepted and not _shown(candidate, judgement)
        ),
        key=lambda item: -item[1].closeness_db,
    )
    slower = [
        name
        for name, (_, judgement) in judged.items()
        if judgement.accepted and name != original and not not_slower(times, name, original)
    ]
    text = ""
    if refused:
        shown = [f"{name} ({judgement.reason})" for name, judgement in refused[:TOLD]]
        more = len(refused) - len(shown)
        text += f"; refused: {', '.join(shown)}" + (f" and {more} less close" if more else "")
    if slower:
        on = f" on {' or '.join(map(str, times))} threads" if len(times) > 1 else ""
        text += f"; slower than the original{on}: {', '.join(slower)}"
    return text
