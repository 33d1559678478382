# SPDX-License-Identifier: Apache-2.0
"""What makes data and metric poor judges, said aloud: a build is as good as what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...analysis.fidelity import Closeness
from ...backends.base import Feed
from .result import Judgement

SEEN = "SQNR was measured on samples that calibration saw; `tersor compare` measures it on others"
FEW_SAMPLES = 16
STEADY_DB = 20.0  # an output of which so much is the same for all feeds hardly depends on them
STEADY = 1e-5  # relative; what a metric may vary by when threads add up in another order
_LEAST_VARYING = 1e-9  # one that is the same for all feeds has nothing to tell apart


def doubts(
    feeds: Sequence[Feed], whole: bool, reference: float | None, outputs: Sequence[str] = ()
) -> list[str]:
    """Notes on feeds that are few, all the same, or without content, and on a metric of 0.

    Args:
        feeds: those of the user that candidates are compared on.
        whole: whether that is all there are.
        reference: the metric of the original, None without one.
        outputs: what `steadiness` says, which is no news where the feeds are the same themselves.
    """
    found: list[str] = []
    samples = sum(next((a.shape[0] for a in feed.values() if a.ndim), 1) for feed in feeds)
    if feeds and whole and samples < FEW_SAMPLES:
        found.append(f"the data has {samples} sample{'s' * (samples != 1)}; ranges of int8 want 50 to 500")
    for name in feeds[0] if feeds else ():
        arrays: list[NDArray[Any]] = [feed[name] for feed in feeds if name in feed]
        if arrays[0].dtype.kind != "f":
            continue  # masks and lengths may well be the same every time
        if all(a.size > 1 and bool(a.min() == a.max()) for a in arrays):
            found.append(f"input {name!r} is constant in the data: ranges and closeness hold for it alone")
        elif len(arrays) > 1 and all(np.array_equal(a, arrays[0]) for a in arrays[1:]):
            found.append(f"input {name!r} is the same in all samples of the data: ranges hold for it alone")
    if feeds and not any(note.startswith("input ") for note in found):
        found += outputs
    if reference == 0:
        found.append("the metric is 0 for the original; what is lost of it cannot be told")
    return found


def metric_doubts(
    reference: float | None, scores: Mapping[str, float | None], blank: Callable[[], float | None]
) -> list[str]:
    """Notes on a metric that says something else each time it is asked, or the same of every model.

    Args:
        reference: the metric of the original, None without one.
        scores: that of each candidate, None where it failed; the first is the original's, asked once more.
        blank: asks for that of outputs of zeros, which costs a metric's time; None where it fails.
    """
    again = next(iter(scores.values()), None)
    if reference is None or again is None:
        return []
    if abs(again - reference) > STEADY * abs(reference):
        both = f"{reference:.6g} and {again:.6g} for the original"
        return [f"the metric is not the same each time ({both}): what it says of candidates is partly chance"]
    if all(score in (None, reference) for score in scores.values()) and blank() == reference:
        return [
            f"the metric is {reference:.6g} for outputs of zeros, too: does it look at what run(feed) gives?"
        ]
    return []


def failing(metric: str | None, judgements: Sequence[Judgement]) -> str:
    """What a metric says where it fails on every candidate; empty where it does not, or there is none.

    Args:
        metric: its name.
        judgements: of all candidates but the original.
    """
    reasons = [judgement.reason for judgement in judgements if judgement.failed]
    mine = [reason for reason in reasons if metric is not None and reason.startswith(f"metric {metric!r}")]
    return f"no candidate can be scored: {mine[0]}" if mine and len(mine) == len(judgements) else ""


def constant_db(answers: Sequence[object]) -> float:
    """Power of an output over the power of what differs between feeds, in dB; 0 where that cannot be told.

    Args:
        answers: the output for each feed; all of one shape, or there is nothing to tell.
    """
    arrays: list[NDArray[np.float64]] = [a.astype(np.float64) for a in _floats(answers)]
    if len(arrays) < 2 or len(arrays) != len(answers) or any(a.shape != arrays[0].shape for a in arrays):
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values make it infinite, or NaN
        mean = sum(arrays, np.zeros(arrays[0].shape)) / len(arrays)
        power = sum(float(np.square(a).sum()) for a in arrays)
        varying = power - len(arrays) * float(np.square(mean).sum())
    if not math.isfinite(power) or varying <= power * _LEAST_VARYING:
        return 0.0
    return 10 * math.log10(power / varying)


def steadiness(answers: Mapping[str, Sequence[object]], constant: Mapping[str, float]) -> list[str]:
    """Notes on outputs that hardly depend on the feeds, or not at all.

    Args:
        answers: by output, for each feed.
        constant: `constant_db` of each.
    """
    found: list[str] = []
    hardly = sorted(
        (name for name in answers if constant[name] >= STEADY_DB), key=lambda name: -constant[name]
    )
    if hardly:
        part = 100 * 10 ** (-constant[hardly[0]] / 10)
        found.append(
            f"{_listed(hardly)} hardly depends on the input ({part:.1g}% of its power varies); candidates "
            "are compared by what varies"
        )
    same = [name for name, given in answers.items() if not constant[name] and _all_equal(given)]
    if same:
        found.append(f"{_listed(same)} is the same for all samples: how close it is says little")
    return found


def voids(closeness: Mapping[str, Closeness]) -> list[str]:
    """Notes on outputs of the original that are no finite numbers, by how close it is to itself."""
    return [
        f"output {name!r} is NaN or infinite in {found.void} of {found.count} values; the rest is compared"
        for name, found in closeness.items()
        if found.void
    ]


def _floats(answers: Sequence[object]) -> list[NDArray[Any]]:
    given = [cast("NDArray[Any]", each) for each in answers if isinstance(each, np.ndarray)]
    return [array for array in given if array.dtype.kind == "f"]


def _listed(names: Sequence[str]) -> str:
    return f"output {names[0]!r}" + (f" (like {len(names) - 1} more)" if len(names) > 1 else "")


def _all_equal(answers: Sequence[object]) -> bool:
    if len(answers) < 2 or not isinstance(answers[0], np.ndarray):
        return False
    return all(np.array_equal(cast("Any", each), cast("Any", answers[0])) for each in answers[1:])
