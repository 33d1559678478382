# SPDX-License-Identifier: Apache-2.0
"""Codes of weights that keep a layer's output close, by its second moments.

What rounding W to Q does to the output of a layer is, over the data, E[((Q - W) x)^2] = sum over rows e of
Q - W of e H e', with H = E[x x'], the layer's Hessian up to a factor. All here minimise that. The groups of a
convolution have a Hessian each and go side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..linear.feedback import BLOCK, damped, diagonal, feed_back, inverse_root
from .row_grid import RowGrid, pinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide: TypeAlias = "NDArray[np.float64]"
    Codes: TypeAlias = "NDArray[np.int64]"

_TRIES = 6


@dataclass(frozen=True)
class Layer:
    """The weights of a layer, by group.

    Attributes:
        rows: float64 [groups, rows of a group, columns].
        hessian: float64 [groups, columns, columns].
        grid: of all rows.
    """

    rows: Wide
    hessian: Wide
    grid: RowGrid

    def nearest(self) -> Codes:
        """The nearest code of each weight: [groups, rows of a group, columns]."""
        flat = self.rows.reshape(-1, self.rows.shape[2])
        return self.grid.quantize(flat).reshape(self.rows.shape)

    def pinned(self) -> NDArray[np.bool_]:
        """The weights that fix the grid: [groups, rows of a group, columns]."""
        return pinned(self.rows.reshape(-1, self.rows.shape[2]), self.grid).reshape(self.rows.shape)

    def steps(self) -> tuple[Wide, Codes]:
        """Scale and zero point of each weight: [groups, rows of a group, columns]."""
        scale, zero = self.grid.spread(self.rows.shape[2])
        return scale.astype(np.float64).reshape(self.rows.shape), zero.reshape(self.rows.shape)

    def error(self, codes: Codes) -> float:
        """The sum over rows e of the rounding error of e H e'."""
        scale, zero = self.steps()
        e = (codes - zero) * scale - self.rows
        return float(np.einsum("gij,gij->", e @ self.hessian, e))


def feedback(layer: Layer, damp: float) -> Codes:
    """Round column by column; the columns not yet rounded make up for the error of each (GPTQ).

    Frantar, Ashkboos, Hoefler, Alistarh 2022, "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers" (arXiv:2210.17323), algorithm 1, in float64, columns in the order of the power
    of their inputs. Weights that fix the grid keep their nearest codes (`row_grid.pinned`).

    Args:
        layer: see there.
        damp: what is added to the Hessian's diagonal, as a share of its mean.
    """
    order = np.argsort(-diagonal(layer.hessian), axis=1, kind="stable")
    turned = np.take_along_axis(layer.hessian, order[:, :, None], axis=1)
    factor = _inverse_root(np.take_along_axis(turned, order[:, None, :], axis=2), damp)
    nearest = layer.nearest()
    if factor is None:
        return nearest
    by_row = order[:, None, :]
    kept = np.take_along_axis(layer.pinned(), by_row, axis=2)
    fixed = np.take_along_axis(nearest, by_row, axis=2)
    work = np.take_along_axis(layer.rows, by_row, axis=2)
    scales, zeros = (np.take_along_axis(a, by_row, axis=2) for a in layer.steps())
    codes = np.empty(work.shape, np.int64)

    def settle(j: int, _: slice) -> Wide:
        steps = np.rint(work[:, :, j] / scales[:, :, j]).astype(np.int64)
        rounded = np.clip(steps + zeros[:, :, j], layer.grid.low, layer.grid.high)
        codes[:, :, j] = np.where(kept[:, :, j], fixed[:, :, j], rounded)
        return np.asarray((codes[:, :, j] - zeros[:, :, j]) * scales[:, :, j], np.float64)

    feed_back(work, factor, settle)
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes, back[:, None, :], axis=2)


def descend(layer: Layer, codes: Codes, *, sweeps: int, floor_or_ceil: bool) -> Codes:
    """Move single codes by one step while that lessens the error: Gauss-Seidel over the columns.

    The error of a row never grows. Weights that fix the grid keep their codes.

    Args:
        layer: see there.
        codes: to start from.
        sweeps: how often all columns are gone through at most.
        floor_or_ceil: allow each weight the two codes around it only, as AdaRound does.
    """
    grid, hessian = layer.grid, layer.hessian
    scales, zeros = layer.steps()
    low, high = np.full(codes.shape, grid.low), np.full(codes.shape, grid.high)
    if floor_or_ceil:
        below = np.floor(layer.rows / scales).astype(np.int64) + zeros
        low, high = np.clip(below, grid.low, grid.high), np.clip(below + 1, grid.low, grid.high)
    kept = layer.pinned()
    found = np.where(kept, layer.nearest(), np.clip(codes, low, high))
    slope = ((found - zeros) * scales - layer.rows) @ hessian
    curves = diagonal(hessian)
    for _ in range(sweeps):
        moved = False
        for start in range(0, codes.shape[2], BLOCK):
            stop = min(start + BLOCK, codes.shape[2])
            inside = np.array(slope[:, :, start:stop])
            taken = np.zeros(inside.shape)
            for j in range(start, stop):
                scale, curve, at = scales[:, :, j], curves[:, None, j], j - start
                wanted = np.divide(
                    -inside[:, :, at], curve * scale, out=np.zeros_like(scale), where=curve > 0
                )
                step = np.clip(np.rint(wanted), -1, 1).astype(np.int64)
                step = np.clip(found[:, :, j] + step, low[:, :, j], high[:, :, j]) - found[:, :, j]
                step[kept[:, :, j]] = 0
                group, row = np.nonzero(step)
                if group.size:
                    by = step[group, row]
                    found[group, row, j] += by
                    taken[group, row, at] = by * scale[group, row]
                    inside[group, row] += taken[group, row, at, None] * hessian[group, j, start:stop]
            if taken.any():
                moved = True
                slope += taken @ hessian[:, start:stop]
        if not moved:
            break
    return found


def _inverse_root(hessian: Wide, damp: float) -> Wide | None:
    """That of the damped Hessians; None when there is none (not finite)."""
    if not np.isfinite(hessian).all():
        return None
    for attempt in range(_TRIES):
        try:
            return inverse_root(damped(hessian, damp * 10**attempt))
        except np.linalg.LinAlgError:
            continue
    return None
