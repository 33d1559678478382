# SPDX-License-Identifier: Apache-2.0
"""What makes data and metric poor judges, said aloud: a build is as good as what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Feed

FEW_SAMPLES = 16
STEADY_DB = 20.0  # an output of which so much is the same for all feeds hardly depends on them
_LEAST_VARYING = 1e-9  # one that is the same for all feeds has nothing to tell apart


def doubts(
    feeds: Sequence[Feed], whole: bool, reference: float | None, outputs: Sequence[str] = ()
) -> list[str]:
    """Notes on feeds that are few, all the same, or without content, and on a metric of 0 or none.

    Args:
        feeds: those of the user that candidates are compared on.
        whole: whether that is all there are.
        reference: the metric of the original, None without one.
        outputs: what `steadiness` says, which is no news where the feeds are the same themselves.
    """
    found: list[str] = []
    samples = sum(next((a.shape[0] for a in feed.values() if a.ndim), 1) for feed in feeds)
    if feeds and whole and samples < FEW_SAMPLES:
        found.append(f"--data has {samples} sample{'s' * (samples != 1)}; ranges of int8 want 50 to 500")
    for name in feeds[0] if feeds else ():
        arrays: list[NDArray[Any]] = [feed[name] for feed in feeds if name in feed]
        if arrays[0].dtype.kind != "f":
            continue  # masks and lengths may well be the same every time
        if all(a.size > 1 and bool(a.min() == a.max()) for a in arrays):
            found.append(f"input {name!r} is constant in --data: ranges and closeness hold for nothing else")
        elif len(arrays) > 1 and all(np.array_equal(a, arrays[0]) for a in arrays[1:]):
            found.append(f"input {name!r} is the same in all samples of --data: ranges hold for it alone")
    if feeds and not any(note.startswith("input ") for note in found):
        found += outputs
    if feeds and reference is None:
        found.append(
            "SQNR was measured on samples that calibration saw; `tersor compare` measures it on others"
        )
    if reference == 0:
        found.append("the metric is 0 for the original; what is lost of it cannot be told")
    return found


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
    """Notes on outputs that hardly depend on the feeds, or not at all, or are no numbers.

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
    for name, given in answers.items():
        arrays = _floats(given)
        void = sum(a.size - int(np.count_nonzero(np.isfinite(a))) for a in arrays)
        if void:
            part = f"{void} of {sum(a.size for a in arrays)}"
            found.append(f"output {name!r} is NaN or infinite in {part} values; only the rest is compared")
    same = [name for name, given in answers.items() if not constant[name] and _all_equal(given)]
    if same:
        found.append(f"{_listed(same)} is the same for all samples: how close it is says little")
    return found


def _floats(answers: Sequence[object]) -> list[NDArray[Any]]:
    given = [cast("NDArray[Any]", each) for each in answers if isinstance(each, np.ndarray)]
    return [array for array in given if array.dtype.kind == "f"]


def _listed(names: Sequence[str]) -> str:
    return f"output {names[0]!r}" + (f" (like {len(names) - 1} more)" if len(names) > 1 else "")


def _all_equal(answers: Sequence[object]) -> bool:
    if len(answers) < 2 or not isinstance(answers[0], np.ndarray):
        return False
    return all(np.array_equal(cast("Any", each), cast("Any", answers[0])) for each in answers[1:])
