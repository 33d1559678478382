# SPDX-License-Identifier: Apache-2.0
"""Second moments of what linear nodes multiply their weights with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Feed
from ..graph_ir import DataError, Model
from ..passes.quantize.patches import Moments, Patches
from .collect import BUDGET, Progress, visit

ROWS = 256  # drawn from each feed; neighbouring places of a picture tell nearly the same


def second_moments(
    model: Model,
    feeds: Iterable[Feed],
    wanted: Iterable[Patches],
    *,
    rows: int = ROWS,
    seed: int = 0,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[Patches, Moments]:
    """Sums of rows and of their outer products over all feeds, in float64.

    Only the sums are kept, so memory does not grow with the feeds. The rows of one feed are drawn by the seed
    and the feed's number alone.

    Args:
        model: left unchanged.
        feeds: gone through once per group of values, so no iterator.
        wanted: see `passes.quantize.patches.patches_to_observe`.
        rows: how many are drawn from each feed at most.
        seed: of the drawing.
        budget: bytes of values kept at once.
        threads: threads used inside operators.
        progress: see `collect.visit`.

    Raises:
        DataError: as `collect`, and when a value does not fit or is not finite.
    """
    by_value: dict[str, list[Patches]] = {}
    for patches in wanted:
        by_value.setdefault(patches.value, []).append(patches)
    found = {patches: Moments.empty(patches) for many in by_value.values() for patches in many}
    seen = dict.fromkeys(by_value, 0)

    def update(name: str, array: NDArray[Any]) -> None:
        rng = np.random.default_rng((seed, seen[name]))
        seen[name] += 1
        for patches in by_value[name]:
            try:
                drawn = patches.rows(array, rows, rng)
            except ValueError as error:
                raise DataError(str(error)) from error
            if not np.isfinite(drawn).all():
                raise DataError("is not finite")
            found[patches].add(drawn)

    if by_value:
        visit(model, feeds, list(by_value), update, budget=budget, threads=threads, progress=progress)
    return found
