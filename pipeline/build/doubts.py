# SPDX-License-Identifier: Apache-2.0
"""What makes data and metric poor judges, said aloud: a build is as good as what it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.base import Feed

FEW_SAMPLES = 16


def doubts(feeds: Sequence[Feed], whole: bool, reference: float | None) -> list[str]:
    """Notes on feeds that are few, all the same, or without content, and on a metric of 0 or none.

    Args:
        feeds: those of the user that candidates are compared on.
        whole: whether that is all there are.
        reference: the metric of the original, None without one.
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
    if feeds and reference is None:
        found.append(
            "closeness is of samples that ranges were measured on, too; `tersor compare` tells it of others"
        )
    if reference == 0:
        found.append("the metric is 0 for the original; what is lost of it cannot be told")
    return found
