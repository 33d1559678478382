# SPDX-License-Identifier: Apache-2.0
"""How close two versions of a tensor are, accumulated in float64 over any number of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..graph_ir import DataError

Floats = NDArray[np.float64]

_CHUNK = 1 << 13  # elements handled at once: they stay in the cache, and BLAS on this one thread


@dataclass(frozen=True)
class Closeness:
    """What `Fidelity` measured.

    Attributes:
        sqnr_db: power of the reference over power of the difference, in decibels; inf when identical,
            -inf when an all-zero reference is missed, NaN when there was nothing to compare.
        cosine: of the angle between the two, all samples as one vector; 1 when both are zero, 0 when one is.
        max_abs: the largest difference.
        count: number of elements that were compared.
        broken: elements where one is NaN or infinite and the other not the same; they make `sqnr_db` -inf.
        void: elements that are NaN or the same infinity in both, which no other figure is of.
    """

    sqnr_db: float
    cosine: float
    max_abs: float
    count: int
    broken: int
    void: int = 0


@dataclass
class Fidelity:
    """Running sums over pairs of arrays; merging two equals having seen both parts."""

    count: int = 0
    broken: int = 0
    void: int = 0
    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    largest: float = 0.0

    def update(self, reference: ArrayLike, got: ArrayLike) -> None:
        """Add one pair of equal shape; integers and booleans are compared as numbers.

        Elements that are NaN in both, or the same infinity in both, agree and enter no sum.

        Raises:
            DataError: when the shapes differ.
        """
        left, right = np.asarray(reference), np.asarray(got)
        if left.shape != right.shape:
            raise DataError(f"cannot compare shape {list(left.shape)} with {list(right.shape)}")
        left, right = left.ravel(), right.ravel()
        for start in range(0, max(1, left.size), _CHUNK):
            self._add(_wide(left[start : start + _CHUNK]), _wide(right[start : start + _CHUNK]))

    def _add(self, left: Floats, right: Floats) -> None:
        self.count += left.size
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values, which are looked for below
            difference = right - left
            sums = [float(a @ b) for a, b in ((left, left), (right, right), (left, right))]
        if not all(map(math.isfinite, sums)):
            finite = np.isfinite(left) & np.isfinite(right)
            same = (left == right) | (np.isnan(left) & np.isnan(right))
            self.broken += int(np.count_nonzero(~finite & ~same))
            self.void += int(np.count_nonzero(~finite & same))
            left, right, difference = left[finite], right[finite], difference[finite]
            sums = [float(a @ b) for a, b in ((left, left), (right, right), (left, right))]
        self.signal += sums[0]
        self.other += sums[1]
        self.product += sums[2]
        self.noise += float(difference @ difference)
        if difference.size:
            self.largest = max(self.largest, float(difference.max()), -float(difference.min()))

    def merge(self, other: Fidelity) -> Fidelity:
        """The sums of both; neither is changed."""
        return Fidelity(
            self.count + other.count,
            self.broken + other.broken,
            self.void + other.void,
            self.signal + other.signal,
            self.other + other.other,
            self.product + other.product,
            self.noise + other.noise,
            max(self.largest, other.largest),
        )

    def result(self) -> Closeness:
        """The figures for everything seen so far."""
        if self.count == 0:
            return Closeness(math.nan, math.nan, math.nan, 0, 0)
        largest = math.inf if self.broken else self.largest
        return Closeness(self._sqnr(), self._cosine(), largest, self.count, self.broken, self.void)

    def _sqnr(self) -> float:
        if self.broken:
            return -math.inf
        if self.noise == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))

    def _cosine(self) -> float:
        if self.noise == 0 and not self.broken:
            return 1.0
        if self.signal == 0 or self.other == 0:
            return 0.0
        return max(-1.0, min(1.0, self.product / (math.sqrt(self.signal) * math.sqrt(self.other))))


def sqnr_db(reference: ArrayLike, got: ArrayLike) -> float:
    """Signal to quantisation noise in decibels of one pair; see `Closeness`."""
    return _one(reference, got).sqnr_db


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between two arrays taken as vectors; see `Closeness`."""
    return _one(a, b).cosine


def json_figure(value: float) -> float | str:
    """A figure for JSON, which has no infinity and no NaN: six decimals, or one of these as a word."""
    return round(value, 6) if math.isfinite(value) else str(value)


def _one(reference: ArrayLike, got: ArrayLike) -> Closeness:
    total = Fidelity()
    total.update(reference, got)
    return total.result()


def _wide(array: NDArray[Any]) -> Floats:
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot compare values of type {array.dtype} as numbers") from error
