# SPDX-License-Identifier: Apache-2.0
"""Sums over data of what layers read: per channel, or between channels; memory does not grow with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ....calibration.collect import visit
from ....graph_ir import DataError, Model
from .base import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CHANNELS = 4096  # for which the moments between channels are kept: 128 MiB
_ROWS = 1024  # of one feed that go into moments between channels


@dataclass
class Moments:
    """Sums over rows ``[channels]`` of an activation.

    Attributes:
        count: rows.
        total: float64 ``[channels]``.
        squares: float64 ``[channels]``.
        products: float64 ``[channels, channels]``; None where only squares are kept.
    """

    count: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    products: NDArray[np.float64] | None = None

    def rms(self) -> NDArray[np.float64]:
        """Root of the mean square per channel."""
        return np.sqrt(self.squares / max(self.count, 1))

    def covariance(self) -> NDArray[np.float64] | None:
        """``E[x x'] - E[x] E[x]'``; None where products are not kept."""
        if self.products is None:
            return None
        mean = self.total / max(self.count, 1)
        return self.products / max(self.count, 1) - np.outer(mean, mean)

    def variance(self) -> NDArray[np.float64]:
        """Per channel."""
        mean = self.total / max(self.count, 1)
        return np.maximum(self.squares / max(self.count, 1) - mean * mean, 0.0)


def measure(
    model: Model, data: Samples, axes: Mapping[str, int], *, between: bool, seed: int
) -> dict[str, Moments]:
    """Moments of activations by name.

    Args:
        model: left unchanged.
        data: gone through as `calibration.collect.visit` does.
        axes: the channels' axis of each activation.
        between: keep products of channels, of up to a fixed number of rows per feed (drawn by `seed`) and for
            activations of up to `MOST_CHANNELS` channels; the other sums are then over the same rows.
        seed: of that draw.

    Raises:
        DataError: a feed does not fit the model, or an activation is not finite.
    """
    found = {name: Moments() for name in axes}
    if not axes:
        return found
    seen = dict.fromkeys(axes, 0)

    def update(name: str, array: NDArray[Any]) -> None:
        rows = np.moveaxis(array, axes[name], -1).reshape(-1, array.shape[axes[name]])
        if between and len(rows) > _ROWS:
            rng = np.random.default_rng([seed, crc32(name.encode()), seen[name]])
            rows = rows[np.sort(rng.choice(len(rows), _ROWS, replace=False))]
        seen[name] += 1
        _add(found[name], rows.astype(np.float64), between=between)

    visit(model, data, list(axes), update)
    return found


def _add(moments: Moments, rows: NDArray[np.float64], *, between: bool) -> None:
    if not np.isfinite(rows).all():
        raise DataError("holds NaN or infinite values")
    channels = rows.shape[1]
    if not moments.count:
        moments.total, moments.squares = np.zeros(channels), np.zeros(channels)
        if between and channels <= MOST_CHANNELS:
            moments.products = np.zeros((channels, channels))
    moments.count += len(rows)
    moments.total += rows.sum(axis=0)
    moments.squares += np.einsum("nc,nc->c", rows, rows)
    if moments.products is not None:
        moments.products += rows.T @ rows
