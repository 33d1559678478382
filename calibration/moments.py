# SPDX-License-Identifier: Apache-2.0
"""Second moments of what linear nodes multiply their weights with: for rounding, sparsity and pruning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Feed
from ..graph_ir import DataError, Model
from ..passes.linear.patches import Moments, Patches
from .visit import Progress, visit

ROWS = 256  # drawn from each feed; neighbouring places of a picture tell nearly the same
_TOGETHER = 512  # rows taken in at once: for fewer, going over all products is most of the work


def second_moments(
    model: Model,
    feeds: Iterable[Feed],
    wanted: Iterable[Patches],
    *,
    rows: int | None = ROWS,
    seed: int = 0,
    apart: bool = False,
    widest: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[Patches, Moments]:
    """Sums of rows, of their squares and of their outer products over all feeds, in float64.

    Only the sums are kept, so memory does not grow with the feeds. The rows of one feed are drawn by the seed
    and the feed's number.

    Args:
        model: left unchanged.
        feeds: gone through once per group of values, so no iterator.
        wanted: see `passes.linear.patches.patches`; each is measured once.
        rows: how many are drawn from each feed at most; None for all.
        seed: of the drawing.
        apart: draw by the value's name, too: other places of one value than of another of its size.
        widest: columns of which outer products are kept at most; None for any number.
        threads: feeds run side by side, 0 for one for each processor; the result is the same.
        progress: told how many runs are done.

    Raises:
        DataError: as `collect`, and when a value does not fit or is not finite.
    """
    found = {
        patches: Moments.empty(patches, between=widest is None or patches.columns <= widest)
        for patches in wanted
    }
    by_value: dict[str, list[Patches]] = {}
    for patches in found:
        by_value.setdefault(patches.value, []).append(patches)
    seen = dict.fromkeys(by_value, 0)
    waiting: dict[Patches, list[NDArray[np.float64]]] = {patches: [] for patches in found}

    def take_in(patches: Patches) -> None:
        if waiting[patches]:
            found[patches].add(np.concatenate(waiting[patches], axis=1))
            waiting[patches].clear()

    def update(name: str, array: NDArray[Any]) -> None:
        own = (crc32(name.encode()),) if apart else ()
        rng = np.random.default_rng((seed, *own, seen[name]))
        seen[name] += 1
        for patches in by_value[name]:
            try:
                drawn = patches.rows(array, rows, rng)
            except ValueError as error:
                raise DataError(str(error)) from error
            if not np.isfinite(drawn).all():
                raise DataError("is not finite")
            waiting[patches].append(drawn)
            if are_enough(sum(each.shape[1] for each in waiting[patches]), patches.columns):
                take_in(patches)

    if by_value:
        visit(model, feeds, list(by_value), update, threads=threads, progress=progress)
    for patches in found:
        take_in(patches)
    return found


def are_enough(rows: int, columns: int) -> bool:
    """Whether rows that wait are taken into the sums of products of their columns, or more waited for."""
    return rows >= min(_TOGETHER, columns)
