# SPDX-License-Identifier: Apache-2.0
"""What is measured of single channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Feed
from ..graph_ir import DataError, Model
from .visit import visit


def channel_maxima(
    model: Model,
    feeds: Iterable[Feed],
    axes: Mapping[str, int],
    *,
    threads: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Largest magnitude of each value per index of its axis, over all feeds; float64, shape ``[channels]``.

    Args:
        model: left unchanged.
        feeds: gone through once per group of values, so no iterator.
        axes: by value name, the channel axis.
        threads: feeds run side by side, 0 for one for each processor; the result is the same.

    Raises:
        DataError: as `collect`, and when a value lacks the axis or its length differs between feeds.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if not axes:
        return found

    def update(name: str, array: NDArray[Any]) -> None:
        axis = axes[name]
        if not -array.ndim <= axis < array.ndim:
            raise DataError(f"rank {array.ndim} has no axis {axis}")
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        # Two reductions need no copy of the magnitudes.
        low = rows.min(axis=1, initial=0).astype(np.float64)
        most = np.maximum(rows.max(axis=1, initial=0).astype(np.float64), -low)
        before = found.setdefault(name, most)
        if before.shape != most.shape:
            raise DataError(f"{most.size} channels, {before.size} in the feeds before")
        found[name] = np.maximum(before, most)

    visit(model, feeds, list(axes), update, threads=threads)
    return found
