# SPDX-License-Identifier: Apache-2.0
"""Histograms and means of values inside a model, over data.

Only counters are kept, so memory does not grow with the number of feeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Feed
from ..graph_ir import DataError, Model, fingerprint
from .data import Feeds
from .histogram import Histogram
from .observers import Observer, observer
from .ranges import Ranges, TensorRange
from .scheme import U8, Scheme
from .visit import BUDGET, Progress, visit

_SENTINEL = 1e9  # magnitude that masks use instead of infinity; a step of 8 bits would swallow all else


@dataclass(frozen=True)
class Histograms:
    """One histogram per value, all from the same feeds.

    Attributes:
        fingerprint: of the model.
        values: value name to histogram.
        samples: number of feeds.
        data: what the feeds were.
    """

    fingerprint: str
    values: Mapping[str, Histogram]
    samples: int
    data: str = ""

    def merge(self, other: Histograms) -> Histograms:
        """Of the feeds of both. Raises DataError when they are of other models or values."""
        if self.fingerprint != other.fingerprint:
            raise DataError(
                f"histograms of models {self.fingerprint} and {other.fingerprint} cannot be merged"
            )
        if self.values.keys() != other.values.keys():
            raise DataError("histograms of different values cannot be merged")
        merged = {name: histogram.merge(other.values[name]) for name, histogram in self.values.items()}
        data = " + ".join(part for part in (self.data, other.data) if part)
        return Histograms(self.fingerprint, merged, self.samples + other.samples, data)


def collect(
    model: Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    *,
    bins: int = 2048,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> Histograms:
    """Histograms of values of the main graph over all feeds.

    Args:
        model: left unchanged.
        feeds: gone through once per group of values (once in all when one feed's values fit in `budget`),
            so it must not be an iterator.
        names: values to measure: inputs and outputs of nodes, graph inputs.
        bins: least number of cells across each range.
        budget: bytes of values kept at once; one value that is larger is still measured, alone.
        threads: feeds run side by side, 0 for one for each processor; the result is the same.
        progress: called after each run with (runs done, runs in all or None when not known).

    Raises:
        DataError: a feed does not fit the model, a value is NaN or no tensor, or there are no feeds. Names
            the sample and the value.
    """
    found, _ = survey(model, feeds, names, {}, bins=bins, budget=budget, threads=threads, progress=progress)
    return found


def survey(
    model: Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    means: Mapping[str, int],
    *,
    bins: int = 2048,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[Histograms, dict[str, NDArray[np.float64]]]:
    """What `collect` finds of `names`, and the means of others by channel, in one pass.

    `means` is by value name the axis of its channels; the other arguments are those of `collect`.

    Returns:
        Histograms, and by name the mean per index of the axis, over all feeds and other axes; float64, shape
        ``[channels]``.

    Raises:
        DataError: as `collect`, and when a value lacks its axis or its length differs between feeds.
    """
    histograms = {name: Histogram(bins) for name in dict.fromkeys(names)}
    sums = _Means(means)

    def update(name: str, array: NDArray[Any]) -> None:
        if name in histograms:
            histograms[name].update(array)
        sums.update(name, array)

    samples = visit(model, feeds, [*names, *means], update, budget=budget, threads=threads, progress=progress)
    source = feeds.source if isinstance(feeds, Feeds) else ""
    return Histograms(fingerprint(model), histograms, samples, source), sums.result()


def choose(histograms: Histograms, rule: Observer | str = "entropy", scheme: Scheme = U8) -> Ranges:
    """Ranges for all values by one rule; the same histograms serve any number of rules.

    Args:
        histograms: from `collect`.
        rule: an observer, or its name as `observers.observer` takes it.
        scheme: the grid to quantise to.
    """
    chosen = observer(rule) if isinstance(rule, str) else rule
    values = {name: _range(seen, chosen, scheme) for name, seen in histograms.values.items()}
    return Ranges(histograms.fingerprint, values, str(scheme), histograms.samples, histograms.data)


class _Means:
    def __init__(self, axes: Mapping[str, int]) -> None:
        self._axes = axes
        self._counts = dict.fromkeys(axes, 0)
        self._sums: dict[str, NDArray[np.float64]] = {}

    def update(self, name: str, array: NDArray[Any]) -> None:
        if name not in self._counts:
            return
        axis = self._axes[name]
        if not -array.ndim <= axis < array.ndim:
            raise DataError(f"rank {array.ndim} has no axis {axis}")
        total: NDArray[np.float64]
        if axis == -1:
            total = array.reshape(-1, array.shape[-1]).sum(axis=0, dtype=np.float64)
        else:
            rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            total = rows.sum(axis=1, dtype=np.float64)
        if name in self._sums and self._sums[name].shape != total.shape:
            raise DataError(f"{total.size} channels, {self._sums[name].size} in the feeds before")
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._counts[name] += array.size // max(1, total.size)

    def result(self) -> dict[str, NDArray[np.float64]]:
        return {name: total / max(self._counts[name], 1) for name, total in self._sums.items()}


def _range(histogram: Histogram, rule: Observer, scheme: Scheme) -> TensorRange:
    if not histogram.count:
        reason = "only infinite values" if histogram.infinite else "no values"
        return TensorRange(0.0, 0.0, 0.0, 0.0, 0, rule.name, unsafe=reason)
    low, high = rule.result(histogram, scheme)
    mean, deviation = histogram.moments()
    smallest, largest = histogram.minimum, histogram.maximum
    unsafe = ""
    if histogram.infinite:
        unsafe = f"{histogram.infinite} infinite values"
    elif max(-smallest, largest) >= _SENTINEL:
        unsafe = f"values from {smallest:.3g} to {largest:.3g}, which stand for infinity"
    return TensorRange(low, high, smallest, largest, histogram.count, rule.name, mean, deviation, unsafe)
