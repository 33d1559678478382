# SPDX-License-Identifier: Apache-2.0
"""Kullback-Leibler thresholds, from a histogram.

For a window of cells the reference distribution P is the counts in it, with all that lies outside added to
the outer cells (that is what clipping does); the candidate Q spreads the count of each of the L quantisation
levels evenly over its non-empty cells. The threshold kept is the one of least KL(P || Q). S. Migacz, "8-bit
Inference with TensorRT", GTC 2017. What differs here:

- Exact zeros are left out: they are on every grid, and ReLU makes so many that the rest would drown.
- A two-sided tensor on an asymmetric grid is swept over windows ``[-T, T]`` cut to what was observed, all
  levels shared by both signs.
- A window holds at least nine tenths of the non-zero values, or a few stray ones next to zero would pass
  for the whole (KL is 0 when all is clipped into one cell).
- An outer cell that only clipping fills counts half a value in Q; otherwise KL is infinite and no gap before
  an outlier could ever be cut.
- All thresholds, at most `_THRESHOLDS` of them, are computed at once from running sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram, without_zeros
from .scheme import Scheme

_Counts = NDArray[np.float64]
_Cells = NDArray[np.int64]

_THRESHOLDS = 256
_LEAST_HELD = 0.9  # share of the non-zero values that no window may clip away
_HALF = 0.5  # count given to a level that only clipped values fall into


def best_threshold(histogram: Histogram, scheme: Scheme) -> float:
    """Magnitude T to clip at; the largest observed magnitude when clipping gains nothing."""
    largest = max(abs(histogram.minimum), abs(histogram.maximum))
    counts = without_zeros(histogram)
    first = histogram.base  # index of the first cell, relative to zero
    levels = 2**scheme.bits
    if scheme.symmetric:
        counts, first, levels = _folded(counts, first), 0, levels // 2
    last = first + counts.size
    reach = max(-first, last)  # cells from zero to the far end
    nearest = max(first, -last, 0) if first >= 0 or last <= 0 else 0  # cells between zero and the data
    reaches = np.unique(np.linspace(nearest + 1, reach, min(_THRESHOLDS, reach - nearest)).astype(np.int64))
    starts, ends = np.maximum(-reaches, min(first, 0)), np.minimum(reaches, max(last, 0))
    low, high = min(first, 0), max(last, 0)
    padded = np.zeros(high - low)
    padded[first - low : last - low] = counts
    running = np.concatenate([[0.0], np.cumsum(padded)])
    held = running[ends - low] - running[starts - low]
    sound = (ends - starts >= levels) & (held >= _LEAST_HELD * running[-1])
    if not sound[:-1].any() or not running[-1]:
        return largest
    costs = divergences(padded, starts[sound] - low, ends[sound] - low, levels)
    winner = int(reaches[sound][costs.size - 1 - int(np.argmin(costs[::-1]))])
    return largest if winner >= reach else winner * histogram.width


def divergences(counts: _Counts, starts: _Cells, ends: _Cells, levels: int) -> _Counts:
    """KL(P || Q) in nats of each window ``counts[starts[i]:ends[i]]``; inf where a window holds nothing.

    Windows hold at least `levels` cells. Time and memory are windows by levels, whatever the number of cells.
    """
    total = counts.sum()
    running = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0.0], np.cumsum(counts > 0)])
    entropy = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])

    below, above = running[starts], total - running[ends]
    inner = running[ends] - running[starts]
    first, last = counts[starts], counts[ends - 1]
    reference = entropy[ends] - entropy[starts]
    reference += _x_log_x(first + below) - _x_log_x(first) + _x_log_x(last + above) - _x_log_x(last)

    borders = starts[:, None] + (np.arange(levels + 1) * (ends - starts)[:, None]) // levels
    mass = np.diff(running[borders], axis=1)
    cells = np.diff(filled[borders], axis=1)
    cells[:, 0] += (first == 0) & (below > 0)  # clipping fills an outer cell that was empty
    cells[:, -1] += (last == 0) & (above > 0)
    weight = np.array(mass)
    weight[:, 0] += below
    weight[:, -1] += above
    missed = (mass == 0) & (weight > 0)
    mass[missed] = _HALF
    share = np.divide(mass, cells, out=np.ones_like(mass), where=cells > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    cross = (weight * logs).sum(axis=1)
    with np.errstate(divide="ignore"):
        result = (reference - cross) / total + np.log((inner + _HALF * missed.sum(axis=1)) / total)
    return np.where(inner > 0, result, np.inf)


def _x_log_x(x: _Counts) -> _Counts:
    return x * np.log(x, out=np.zeros_like(x), where=x > 0)


def _folded(counts: _Counts, first: int) -> _Counts:
    """Counts of the magnitudes: cell ``-1 - k`` is added to cell ``k``."""
    last = first + counts.size
    folded = np.zeros(max(-first, last))
    if last > 0:
        folded[max(first, 0) : last] += counts[max(-first, 0) :]
    if first < 0:
        negative = counts[: min(-first, counts.size)][::-1]  # nearest to zero first
        begin = max(-last, 0)
        folded[begin : begin + negative.size] += negative
    return folded
