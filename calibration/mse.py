# SPDX-License-Identifier: Apache-2.0
"""Least mean squared error ranges, from a histogram.

With step ``s`` and codes in ``[first, last]`` a value x is restored as ``s * n``, where
``n = clip(rint(x / s), first, last)``. Taking the values of a cell as spread evenly, the squared
error over a cell ``[a, b)`` is ``G(b) - G(a)`` with

    G(x) = s**3 * (n / 12 + (x / s - n)**3 / 3)

which is exact for rounding (a full period adds 1/12) and for clipping (n stays at the end) alike, so no error
comes from where the cells happen to fall on the grid. Exact zeros are left out (always on the grid), and a
cell of no width (all values equal to the minimum or the maximum) counts as a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram, without_zeros
from .scheme import Scheme

_Vector = NDArray[np.float64]

_SWEEP = 32  # ranges tried in the first sweep, geometrically spaced down to _DEEPEST of the full one
_DEEPEST = 1 / 128
_FINE = 9  # ranges tried in each refining sweep
_ROUNDS = 3
_BLOCK = 8  # ranges judged at once: the temporaries stay in the cache


@dataclass(frozen=True)
class Spread:
    """The distribution: an even density per cell, and points."""

    edges: _Vector
    weights: _Vector  # of G at each edge: density left of it less density right of it
    points: _Vector
    masses: _Vector
    total: float

    @classmethod
    def of(cls, histogram: Histogram) -> Spread:
        """The distribution of what a histogram has seen, exact zeros left out."""
        edges, counts = histogram.edges(), without_zeros(histogram)
        width = np.diff(edges)
        flat = width <= 0
        density = np.divide(counts, width, out=np.zeros_like(counts), where=~flat)
        weights = np.zeros_like(edges)
        weights[1:] += density
        weights[:-1] -= density
        return cls(edges, weights, edges[:-1][flat], counts[flat], float(histogram.count))

    def errors(self, low: _Vector, high: _Vector, scheme: Scheme) -> _Vector:
        """Mean squared error of each range ``[low[i], high[i]]``, shape ``[len(low)]``."""
        blocks = [slice(start, start + _BLOCK) for start in range(0, low.size, _BLOCK)]
        return np.concatenate([self._errors(low[block], high[block], scheme) for block in blocks])

    def _errors(self, low: _Vector, high: _Vector, scheme: Scheme) -> _Vector:
        step, first, last = grid(low, high, scheme)
        code, away = _restored(self.edges, step, first, last)
        spread = code @ self.weights / 12
        cube = away * away
        cube *= away
        spread += cube @ self.weights / 3
        _, away = _restored(self.points, step, first, last)
        return (step**3 * spread + step**2 * ((away * away) @ self.masses)) / self.total


def _restored(values: _Vector, step: _Vector, first: _Vector, last: _Vector) -> tuple[_Vector, _Vector]:
    """Code of each value and its distance from the code in steps, shape ``[ranges, values]``."""
    away = values / step[:, None]
    code = np.rint(away)
    np.maximum(code, first[:, None], out=code)
    np.minimum(code, last[:, None], out=code)
    away -= code
    return code, away


def grid(low: _Vector, high: _Vector, scheme: Scheme) -> tuple[_Vector, _Vector, _Vector]:
    """Step, first and last code (relative to the code of zero) of ranges that hold zero and are not empty."""
    if scheme.symmetric:
        bound = np.maximum(-low, high)
        last = np.full_like(bound, scheme.levels // 2)
        return bound / last, -last, last
    step = (high - low) / scheme.levels
    first = np.rint(low / step)
    return step, first, first + scheme.levels


def best_range(histogram: Histogram, scheme: Scheme) -> tuple[float, float]:
    """The range of least estimated error; the full range wins ties, so clipping always pays for itself."""
    low, high = min(histogram.minimum, 0.0), max(histogram.maximum, 0.0)
    if low == high:
        return low, high
    spread = Spread.of(histogram)
    if not spread.weights.any() and not spread.masses.any():
        return low, high
    if scheme.symmetric:
        bound = max(-low, high)
        low, high = -bound, bound
    shares = np.geomspace(1.0, _DEEPEST, _SWEEP)
    best = _Best(low, high, spread.errors(np.array([low]), np.array([high]), scheme)[0])
    best = _try(spread, scheme, best, low * shares, high * shares)
    ratio = shares[0] / shares[1]
    two_sided = low < 0 < high and not scheme.symmetric
    if two_sided:  # one end may deserve clipping and the other not
        best = _try(spread, scheme, best, low * shares, np.full_like(shares, best.high))
        best = _try(spread, scheme, best, np.full_like(shares, best.low), high * shares)
    for _ in range(_ROUNDS):
        near = ratio ** np.linspace(-1.0, 1.0, _FINE)
        lows, highs = np.maximum(best.low * near, low), np.minimum(best.high * near, high)
        if two_sided:
            best = _try(spread, scheme, best, lows, np.full_like(near, best.high))
            best = _try(
                spread, scheme, best, np.full_like(near, best.low), np.minimum(best.high * near, high)
            )
        else:
            best = _try(spread, scheme, best, lows, highs)
        ratio = ratio ** (2 / (_FINE - 1))
    return best.low, best.high


@dataclass(frozen=True)
class _Best:
    low: float
    high: float
    error: float


def _try(spread: Spread, scheme: Scheme, best: _Best, lows: _Vector, highs: _Vector) -> _Best:
    errors = spread.errors(lows, highs, scheme)
    winner = int(np.argmin(errors))
    if errors[winner] < best.error:
        return _Best(float(lows[winner]), float(highs[winner]), float(errors[winner]))
    return best
