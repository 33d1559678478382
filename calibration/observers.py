# SPDX-License-Identifier: Apache-2.0
"""Rules that turn a histogram into the range ``(lo, hi)`` to quantise.

Every rule reads the one streaming `Histogram`, so a single pass over the data serves all of them, and each
inherits its merging. A range always holds zero; with a symmetric scheme ``lo == -hi``; a tensor with one sign
gets a one-sided range on an asymmetric grid. All-zero (or unseen) tensors give ``(0.0, 0.0)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..graph_ir.errors import UsageError
from .entropy import best_threshold
from .histogram import Histogram
from .mse import best_range
from .scheme import U8, Scheme

_Vector = NDArray[np.float64]


class Observer(Protocol):
    """A rule with a name; `result` gives ``(lo, hi)`` for the values counted in a histogram."""

    name: ClassVar[str]

    def result(self, histogram: Histogram, scheme: Scheme = U8) -> tuple[float, float]:
        """The range of the values counted, for the grid of `scheme`."""
        ...


@dataclass(frozen=True)
class MinMax:
    """Every finite value that was seen: nothing is clipped."""

    name: ClassVar[str] = "minmax"

    def result(self, histogram: Histogram, scheme: Scheme = U8) -> tuple[float, float]:
        """``(lo, hi)`` as the exact smallest and largest value, widened to hold zero."""
        return _finish(histogram, histogram.minimum, histogram.maximum, scheme)


@dataclass(frozen=True)
class Percentile:
    """The middle `percent` of all values, zeros included.

    What is cut is shared by both ends when both signs occur, else it is all at the far end; with a symmetric
    scheme it is the percentile of the magnitudes. Exact to one cell of the histogram.
    """

    percent: float = 99.99
    name: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise UsageError(f"percentile {self.percent} is not in (0, 100]")

    def result(self, histogram: Histogram, scheme: Scheme = U8) -> tuple[float, float]:
        """``(lo, hi)`` with linear interpolation inside the cell where the count is reached."""
        if not histogram.count:
            return 0.0, 0.0
        edges = histogram.edges()
        counts = histogram.counts.astype(np.float64)
        keep, cut = self.percent / 100, 1 - self.percent / 100
        if scheme.symmetric:
            bound = _magnitude_quantile(edges, counts, keep)
            return _finish(histogram, -bound, bound, scheme)
        if histogram.minimum >= 0:
            return _finish(histogram, 0.0, _quantile(edges, counts, keep), scheme)
        if histogram.maximum <= 0:
            return _finish(histogram, _quantile(edges, counts, cut), 0.0, scheme)
        low, high = _quantile(edges, counts, cut / 2), _quantile(edges, counts, 1 - cut / 2)
        return _finish(histogram, low, high, scheme)


@dataclass(frozen=True)
class Entropy:
    """The clipping that keeps the quantised distribution closest to the true one.

    Smallest Kullback-Leibler divergence over a sweep of thresholds, as in S. Migacz, "8-bit Inference with
    TensorRT" (GTC 2017); see `entropy.best_threshold` for the differences.
    """

    name: ClassVar[str] = "entropy"

    def result(self, histogram: Histogram, scheme: Scheme = U8) -> tuple[float, float]:
        """``(lo, hi)``: the observed range clipped to ``[-T, T]`` at the best threshold T."""
        if not histogram.count:
            return 0.0, 0.0
        bound = best_threshold(histogram, scheme)
        return _finish(histogram, max(histogram.minimum, -bound), min(histogram.maximum, bound), scheme)


@dataclass(frozen=True)
class Mse:
    """The range whose quantisation grid has the least mean squared error, clipping included."""

    name: ClassVar[str] = "mse"

    def result(self, histogram: Histogram, scheme: Scheme = U8) -> tuple[float, float]:
        """``(lo, hi)``; both ends are searched when both signs occur and the scheme is asymmetric."""
        if not histogram.count:
            return 0.0, 0.0
        low, high = best_range(histogram, scheme)
        return _finish(histogram, low, high, scheme)


def observer(text: str) -> Observer:
    """The observer called `text`: ``minmax``, ``percentile``, ``percentile:99.9``, ``entropy`` or ``mse``.

    Raises UsageError for any other text.
    """
    name, _, option = text.partition(":")
    if name == "percentile" and option:
        try:
            return Percentile(float(option))
        except ValueError:
            raise UsageError(f"{text!r}: {option!r} is not a number; write percentile:99.99") from None
    table: dict[str, Observer] = {
        "minmax": MinMax(),
        "percentile": Percentile(),
        "entropy": Entropy(),
        "mse": Mse(),
    }
    if option or name not in table:
        raise UsageError(f"no observer is called {text!r}; choose minmax, percentile[:P], entropy or mse")
    return table[name]


def _finish(histogram: Histogram, low: float, high: float, scheme: Scheme) -> tuple[float, float]:
    """Widen to hold zero, and mirror for a symmetric scheme."""
    if not histogram.counts.size:
        return 0.0, 0.0
    low, high = min(low, 0.0) + 0.0, max(high, 0.0)
    if scheme.symmetric:
        bound = max(-low, high)
        return -bound + 0.0, bound
    return low, high


def _quantile(edges: _Vector, counts: _Vector, share: float) -> float:
    """Value below which `share` of the counts lie."""
    if edges[0] == edges[-1]:
        return float(edges[0])
    total: _Vector = np.concatenate([[0.0], np.cumsum(counts)])
    return float(np.interp(share * float(total[-1]), total, edges))


def _magnitude_quantile(edges: _Vector, counts: _Vector, share: float) -> float:
    """Magnitude below which `share` of the counts lie: bisection over the distribution of both signs."""
    if edges[0] == edges[-1]:
        return float(abs(edges[0]))
    total: _Vector = np.concatenate([[0.0], np.cumsum(counts)])
    bounds = np.unique(np.abs(np.concatenate([edges, [0.0]])))
    below: _Vector = np.interp(bounds, edges, total)
    beyond: _Vector = np.interp(-bounds, edges, total)
    inside = np.subtract(below, beyond)
    return float(np.interp(share * float(total[-1]), inside, bounds))
