# SPDX-License-Identifier: Apache-2.0
"""Least squares from sums: ridge regression towards no change, its strength chosen on data held out.

For residuals r = y - (W x + b) and features f = [x, 1], the change D that minimises
``sum ||r - D f||^2 + ridge ||D_x||^2`` (the bias is free) is ``D = B (A + ridge I_x)^-1`` with
``A = sum f f'`` and ``B = sum r f'``. With a strong ridge it is a mere bias correction, with a weak one plain
least squares. The rows are dealt to two halves. For each strength, the change fitted on one half is judged on
the other by ``sum ||r||^2 - 2 <D, B> + <D A, D>``; the best strength is used on both together, or nothing is
changed when none beats leaving the layer as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...calibration.moments import are_enough

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide = NDArray[np.float64]

STRENGTHS = (1e6, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4, 1e-5)
"""Ridges that are tried, as a share of the mean of the features' squares; from the strongest."""

_ROUNDING = 1e-10  # an error that is nothing but rounding, as a share of the variance
_PATIENCE = 2  # weaker ones are tried until so many in a row did not help


@dataclass(frozen=True)
class Fit:
    """What refitting a layer brings.

    Attributes:
        change: float64 ``[groups, outputs / group, features + 1]``, the bias last.
        strength: of the ridge, one of `STRENGTHS`.
        before: error of the layer as it is, as a share of the target's variance.
        after: error with the change, on data it was not fitted on.
    """

    change: Wide
    strength: float
    before: float
    after: float


class NormalEquations:
    """Sums of one layer over rows of two halves; memory does not grow with the rows.

    Args:
        groups: independent blocks of features and outputs.
        outputs: per group.
        features: per group, without the bias.
        intercept: whether there can be a bias.
    """

    def __init__(self, groups: int, outputs: int, features: int, *, intercept: bool) -> None:
        self._intercept = intercept
        self._features = features
        wide = features + intercept
        self._grams = np.zeros((2, groups, wide, wide))
        self._crosses = np.zeros((2, groups, outputs, wide))
        self._energy = np.zeros(2)
        self._target = np.zeros((3, groups * outputs))  # count, sum, sum of squares
        self._waiting: tuple[list[tuple[Wide, Wide]], ...] = ([], [])
        self.rows = [0, 0]

    @staticmethod
    def bytes_needed(groups: int, outputs: int, features: int) -> int:
        """What one of these takes, about."""
        return 16 * groups * (features + 1) * (features + 1 + outputs)

    def add(self, half: int, features: Wide, residuals: Wide, targets: Wide) -> None:
        """Add rows to a half.

        Args:
            half: 0 or 1.
            features: ``[groups, rows, features]``.
            residuals: ``[rows, groups * outputs]``.
            targets: the same shape, for the scale of the error.
        """
        rows = len(residuals)
        if not rows:
            return
        self._waiting[half].append((features, residuals))
        self._energy[half] += float(np.square(residuals).sum())
        self._target += np.stack([np.full(targets.shape[1], rows), targets.sum(0), np.square(targets).sum(0)])
        self.rows[half] += rows
        if are_enough(sum(len(each) for _, each in self._waiting[half]), self._features):
            self._take_in(half)

    def _take_in(self, half: int) -> None:
        if not self._waiting[half]:
            return
        features = np.concatenate([each for each, _ in self._waiting[half]], axis=1)
        residuals = np.concatenate([each for _, each in self._waiting[half]])
        self._waiting[half].clear()
        groups, rows, _ = features.shape
        if self._intercept:
            features = np.concatenate([features, np.ones((groups, rows, 1))], axis=2)
        split = np.moveaxis(residuals.reshape(rows, groups, -1), 0, 2)
        self._grams[half] += np.matmul(np.moveaxis(features, 1, 2), features)
        self._crosses[half] += np.matmul(split, features)

    def solve(self) -> Fit | None:
        """The best change; None when leaving the layer as it is does best on data held out."""
        for half in (0, 1):
            self._take_in(half)
        if not all(self.rows) or not np.isfinite(self._grams).all() or not np.isfinite(self._crosses).all():
            return None
        before = float(self._energy.sum())
        if self.error() < _ROUNDING:
            return None
        scales = self._scales()
        best: tuple[float, float] | None = None
        waited = 0
        for strength in STRENGTHS:
            after = self._judged(strength, scales)
            if after < (before if best is None else best[0]):
                best, waited = (after, strength), 0
            else:
                waited += 1
                if waited > _PATIENCE:
                    break
        if best is None:
            return None
        after, strength = best
        ridge = strength * scales.mean(axis=0)
        change = self._fitted(self._grams.sum(axis=0), self._crosses.sum(axis=0), ridge)
        return Fit(self._padded(change), strength, self.error(), after / self._variance())

    def error(self) -> float:
        """Squared residuals as a share of the target's variance."""
        return float(self._energy.sum()) / self._variance()

    def _scales(self) -> Wide:
        """Mean of the squared features' sums, ``[2, groups]``; a floor for groups that see zeros."""
        diagonal = np.diagonal(self._grams, axis1=2, axis2=3)[:, :, : self._features].mean(axis=2)
        floor = diagonal.mean(axis=1, keepdims=True)
        return np.maximum(diagonal, np.where(floor > 0.0, 1e-6 * floor, 1.0))

    def _judged(self, strength: float, scales: Wide) -> float:
        """The error of both halves, each with the change fitted on the other."""
        total = 0.0
        for half in (0, 1):
            other = 1 - half
            change = self._fitted(self._grams[other], self._crosses[other], strength * scales[other])
            gained = 2.0 * (change * self._crosses[half]).sum()
            spent = ((change @ self._grams[half]) * change).sum()
            total += self._energy[half] - float(gained - spent)
        return total

    def _fitted(self, gram: Wide, cross: Wide, ridge: Wide) -> Wide:
        loaded = np.array(gram)
        index = np.arange(self._features)
        loaded[:, index, index] += ridge[:, None]
        try:
            solved: Wide = np.asarray(np.linalg.solve(loaded, np.moveaxis(cross, 1, 2)), np.float64)
        except np.linalg.LinAlgError:  # only for a ridge that rounding swallows
            return np.zeros_like(cross)
        return np.moveaxis(solved, 2, 1)

    def _padded(self, change: Wide) -> Wide:
        return change if self._intercept else np.pad(change, [(0, 0), (0, 0), (0, 1)])

    def _variance(self) -> float:
        count, total, squares = self._target
        return float((squares - total * total / np.maximum(count, 1)).sum()) or 1.0
