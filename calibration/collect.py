# SPDX-License-Identifier: Apache-2.0
"""Run a model over data and measure values inside it.

Values are marked as outputs in groups whose size for one feed stays within a budget; each group takes one
pass over the data. Only counters are kept, so memory does not grow with the number of feeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import Evaluator, Feed
from ..graph_ir import DataError, Model, Value, fingerprint
from .data import Feeds
from .histogram import Histogram
from .observers import Observer, observer
from .ranges import Ranges, TensorRange
from .scheme import U8, Scheme

BUDGET = 256 << 20  # bytes of values kept at once
_PROBE = 64  # values of unknown size that are measured in one run
_SENTINEL = 1e9  # magnitude that masks use instead of infinity; a step of 8 bits would swallow all else

Progress = Callable[[int, "int | None"], None]


class UnobservableError(DataError):
    """A value inside the model cannot be measured (NaN, say), though the feed itself is fine."""


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
        threads: threads used inside operators.
        progress: called after each run with (runs done, runs in all or None when not known).

    Raises:
        DataError: a feed does not fit the model, a value is NaN or no tensor, or there are no feeds. Names
            the sample and the value.
    """
    histograms = {name: Histogram(bins) for name in dict.fromkeys(names)}

    def update(name: str, array: NDArray[Any]) -> None:
        histograms[name].update(array)

    samples = visit(model, feeds, names, update, budget=budget, threads=threads, progress=progress)
    source = feeds.source if isinstance(feeds, Feeds) else ""
    return Histograms(fingerprint(model), histograms, samples, source)


def choose(
    histograms: Histograms,
    rule: Observer | str = "entropy",
    scheme: Scheme = U8,
    *,
    schemes: Mapping[str, Scheme] | None = None,
) -> Ranges:
    """Ranges for all values by one rule; the same histograms serve any number of rules.

    Args:
        histograms: from `collect`.
        rule: an observer, or its name as `observers.observer` takes it.
        scheme: the grid to quantise to.
        schemes: grids of single values that differ.
    """
    chosen = observer(rule) if isinstance(rule, str) else rule
    values = {
        name: _range(histogram, chosen, (schemes or {}).get(name, scheme))
        for name, histogram in histograms.values.items()
    }
    return Ranges(histograms.fingerprint, values, str(scheme), histograms.samples, histograms.data)


def channel_means(
    model: Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    axis: int = 1,
    *,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Mean of each value per index of `axis`, over all feeds and other axes; float64, shape ``[channels]``.

    Raises:
        DataError: as `collect`, and when a value lacks the axis or its length differs between feeds.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys(names, 0)

    def update(name: str, array: NDArray[Any]) -> None:
        if not -array.ndim <= axis < array.ndim:
            raise DataError(f"rank {array.ndim} has no axis {axis}")
        rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        total: NDArray[np.float64] = rows.sum(axis=1, dtype=np.float64)
        if name in sums and sums[name].shape != total.shape:
            raise DataError(f"{total.size} channels, {sums[name].size} in the feeds before")
        sums[name] = sums.get(name, 0.0) + total
        counts[name] += rows.shape[1]

    visit(model, feeds, names, update, budget=budget, threads=threads, progress=progress)
    return {name: sums[name] / max(counts[name], 1) for name in sums}


def visit(
    model: Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    action: Callable[[str, NDArray[Any]], None],
    *,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> int:
    """Call ``action(name, array)`` for each value and feed, group by group; the number of feeds.

    Raises DataError as `collect` does; what `action` raises as DataError is told with sample and value.
    """
    if isinstance(feeds, Iterator):
        raise DataError("the feeds are an iterator, spent after one pass; give a list or open_feeds")
    first = next(iter(feeds), None)
    if first is None:
        raise DataError("there are no feeds to run the model on")
    parts = groups(model, list(dict.fromkeys(names)), first, budget, threads)
    number = _number(feeds)
    samples: int | None = None
    for done, group in enumerate(parts):
        evaluator = Evaluator(model, outputs=group, threads=threads)
        index = -1
        for index, feed in enumerate(feeds):
            found = evaluator.run(feed, index=index, check=not isinstance(feeds, Feeds))
            for name in group:
                try:
                    action(name, _tensor(found.pop(name)))
                except DataError as error:
                    raise UnobservableError(f"sample {index}, value {name!r}: {error}") from error
            if progress is not None:
                seen = (number or samples or 0) * done + index + 1
                progress(seen, None if number is None else number * len(parts))
        if samples is not None and samples != index + 1:
            raise DataError(f"the data gave {samples} feeds in one pass and {index + 1} in the next")
        samples = index + 1
    return samples or 0


def _number(feeds: Iterable[Feed]) -> int | None:
    if isinstance(feeds, Feeds):
        return feeds.count
    return len(feeds) if isinstance(feeds, (list, tuple)) else None  # pyright: ignore[reportUnknownArgumentType]


def _tensor(found: object) -> NDArray[Any]:
    if not isinstance(found, np.ndarray):
        raise DataError("is no tensor; only tensors can be measured")
    return found  # pyright: ignore[reportUnknownVariableType]


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


def groups(model: Model, names: list[str], feed: Feed, budget: int, threads: int) -> list[list[str]]:
    """Names in order, cut where the bytes of one feed would pass the budget."""
    sizes = _sizes(model, names, feed, threads)
    parts: list[list[str]] = []
    room = 0
    for name in names:
        if not parts or sizes[name] > room:
            parts.append([])
            room = budget
        parts[-1].append(name)
        room -= sizes[name]
    return parts


def _sizes(model: Model, names: list[str], feed: Feed, threads: int) -> dict[str, int]:
    """Bytes of each value for one feed: from its shape where that is known, else measured."""
    symbols: dict[str, int] = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if value.shape is not None and name in feed:
            for dim, size in zip(value.shape, np.shape(feed[name]), strict=False):
                if not isinstance(dim, int) and dim.value is not None:
                    symbols[dim.value] = size
    values = {output.name: output for node in model.graph for output in node.outputs}
    sizes: dict[str, int] = {}
    unknown: list[str] = []
    for name in names:
        size = np.asarray(feed[name]).nbytes if name in feed else _static_size(values.get(name), symbols)
        if size is None:
            unknown.append(name)
        else:
            sizes[name] = size
    for start in range(0, len(unknown), _PROBE):
        found = Evaluator(model, outputs=unknown[start : start + _PROBE], threads=threads).run(feed, index=0)
        sizes.update((name, np.asarray(array).nbytes) for name, array in found.items())
    return sizes


def _static_size(value: Value | None, symbols: Mapping[str, int]) -> int | None:
    if value is None or value.shape is None or value.dtype is None:
        return None
    extent: list[int] = []
    for dim in value.shape:
        size = dim if isinstance(dim, int) else symbols.get(dim.value or "")
        if size is None:
            return None
        extent.append(size)
    return int(prod(extent) * value.dtype.itemsize)
