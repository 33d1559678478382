# SPDX-License-Identifier: Apache-2.0
"""One streaming histogram that every observer reads.

A histogram is a commutative monoid over the multiset of values it has seen. Its cells are
``[k * 2**e, (k + 1) * 2**e)`` for integers ``k``, so a wider range only ever needs ``e`` to grow, and a
cell of the coarser grid is exactly the union of two of the finer (``k >> 1``). The exponent is a function
of the smallest and largest value alone, hence the final state depends on neither order nor splitting:
``merge(a, merge(b, c)) == merge(merge(a, b), c) == histogram of everything``, cell by cell.
Memory is at most ``2 * bins`` counters whatever the number of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph_ir.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 16  # elements handled at once: the temporaries stay in the cache
_LANES = 4  # neighbours are counted apart: equal ones (zeros behind a Relu) would wait for each other
_SMALLEST = -1074  # exponent of the smallest float64
_PRECISION = 23  # cells no finer than this many bits below the largest magnitude: exact in float32


def _cell(value: float, exponent: int) -> int:
    """Index of the cell of width ``2**exponent`` that holds `value`."""
    index = math.floor(math.ldexp(value, -exponent))
    return -1 if value < 0 and index == 0 else index  # ldexp may underflow to -0.0


def _exponent(low: float, high: float, cells: int) -> int:
    """Smallest exponent whose grid covers ``[low, high]`` in at most `cells` cells."""
    # It never falls when the interval grows, which is why order does not matter.
    largest = max(abs(low), abs(high))
    if largest == 0:
        return _SMALLEST
    exponent = max(math.frexp(largest)[1] - _PRECISION, _SMALLEST)
    while _cell(high, exponent) - _cell(low, exponent) >= cells:
        exponent += 1
    return exponent


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(eq=False)
class Histogram:
    """Counts of finite values on a power-of-two grid, with the exact minimum, maximum and number of zeros.

    `bins` is the least number of cells across ``[minimum, maximum]`` (at most twice as many are kept), as
    long as float32 can tell them apart. Infinities are counted apart and never enter the range.
    """

    bins: int = 2048
    exponent: int = _SMALLEST
    base: int = 0
    counts: NDArray[np.int64] = field(default_factory=_no_counts)
    minimum: float = math.inf
    maximum: float = -math.inf
    zeros: int = 0
    infinite: int = 0

    @property
    def count(self) -> int:
        """Number of finite values seen."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """Width of one cell."""
        return math.ldexp(1.0, self.exponent)

    def update(self, array: NDArray[Any]) -> None:
        """Count the elements of `array` (any shape; float, integer or bool).

        Raises DataError when it holds a NaN or is not numeric.
        """
        flat = _as_float(array)
        if not flat.size:
            return
        low, high = float(np.min(flat)), float(np.max(flat))
        if math.isnan(low) or math.isnan(high):
            raise DataError("NaN among the values to calibrate on; the model or its data is broken")
        if math.isinf(low) or math.isinf(high):
            finite = np.isfinite(flat)
            self.infinite += flat.size - int(np.count_nonzero(finite))
            flat = _as_float(np.extract(finite, flat))
            if not flat.size:
                return
            low, high = float(np.min(flat)), float(np.max(flat))
        self._cover(low, high)
        self.zeros += int(np.count_nonzero(flat == 0))
        if low == high:
            self.counts[_cell(low, self.exponent) - self.base] += flat.size
            return
        size, lanes = self.counts.size, _LANES if flat.size >= _CHUNK else 1
        lane = np.tile(np.arange(lanes, dtype=np.int32) * np.int32(size), min(flat.size, _CHUNK) // lanes)
        for start in range(0, flat.size, _CHUNK):
            index = self._index(flat[start : start + _CHUNK])
            index += lane[: index.size]
            found = np.bincount(index, minlength=lanes * size)
            self.counts += found.reshape(lanes, size).sum(axis=0)

    def merge(self, other: Histogram) -> Histogram:
        """Histogram of the values of both; neither is changed. Raises DataError when `bins` differ."""
        if self.bins != other.bins:
            raise DataError(
                f"cannot merge histograms of {self.bins} and {other.bins} bins; collect both with one setting"
            )
        total = Histogram(self.bins)
        for part in (self, other):
            if part.counts.size:
                total._cover(part.minimum, part.maximum)
        for part in (self, other):
            total._add(part)
            total.zeros += part.zeros
            total.infinite += part.infinite
        return total

    def edges(self) -> NDArray[np.float64]:
        """Borders of the cells, shape ``[len(counts) + 1]``; the outer two are the exact extremes."""
        borders = np.ldexp(
            np.arange(self.base, self.base + self.counts.size + 1, dtype=np.float64), self.exponent
        )
        if borders.size > 1:
            borders[0], borders[-1] = self.minimum, self.maximum
        return borders

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation, each to within half a cell (zeros are exact); NaN when empty."""
        total = self.count
        if not total:
            return math.nan, math.nan
        borders = self.edges()
        weight: NDArray[np.float64] = without_zeros(self) / total
        width = borders[1:] - borders[:-1]
        middle = borders[:-1] + width / 2
        mean = float(weight @ middle)
        square = float(weight @ (middle * middle + width * width / 12))
        return mean, math.sqrt(max(square - mean * mean, 0.0))

    def _cover(self, low: float, high: float) -> None:
        """Grow the grid so that it holds ``[low, high]``."""
        if self.counts.size and low >= self.minimum and high <= self.maximum:
            return
        old = Histogram(self.bins, self.exponent, self.base, self.counts)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.exponent = _exponent(self.minimum, self.maximum, 2 * self.bins)
        self.base = _cell(self.minimum, self.exponent)
        self.counts = np.zeros(_cell(self.maximum, self.exponent) - self.base + 1, np.int64)
        self._add(old)

    def _add(self, other: Histogram) -> None:
        """Add the counts of `other`, whose grid is no coarser and lies within this one."""
        if other.counts.size:
            shift = min(self.exponent - other.exponent, 62)
            cells = np.arange(other.base, other.base + other.counts.size, dtype=np.int64) >> shift
            np.add.at(self.counts, cells - self.base, other.counts)

    def _index(self, part: NDArray[Any]) -> NDArray[np.int32]:
        """Position in `counts` of each value of `part`; exact, so that coarsening equals counting anew."""
        if part.dtype == np.float32 and -126 <= self.exponent <= 0:
            scaled = part * np.float32(
                self.width**-1
            )  # a power of two of at least one: no rounding, no underflow
            np.floor(scaled, out=scaled)
            scaled -= np.float32(self.base)  # integers below 2**24: exact
            return scaled.astype(np.int32)
        wide = part.astype(np.float64)
        cells = np.floor(np.ldexp(wide, -self.exponent)).astype(np.intp)
        cells[(wide < 0) & (cells == 0)] = -1
        return (cells - self.base).astype(np.int32)


def without_zeros(histogram: Histogram) -> NDArray[np.float64]:
    """Counts as float64 without the exact zeros: zero is on every quantisation grid, so it errs in none."""
    counts = histogram.counts.astype(np.float64)
    if histogram.zeros:
        counts[-histogram.base] -= histogram.zeros
    return counts


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    """`array` flat, as float32 or float64; a view where it already is one of these."""
    kind = array.dtype
    if kind in (np.dtype(np.float32), np.dtype(np.float64)):
        return array.ravel()
    if kind.kind in "iub":
        return array.ravel().astype(np.float64)
    if kind == np.float16 or kind.name == "bfloat16" or kind.name.startswith("float8"):
        return array.ravel().astype(np.float32)
    raise DataError(f"cannot calibrate on values of type {kind}; only numbers have a range")
