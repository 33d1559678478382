# SPDX-License-Identifier: Apache-2.0
"""Codes of weights that keep a layer's output close, by its second moments.

What rounding W to Q does to the output of a layer is, over the data, E[((Q - W) x)^2] = sum over rows e of
Q - W of e H e', with H = E[x x'], the layer's Hessian up to a factor. All here minimise that. The groups of a
convolution have a Hessian each and go side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .row_grid import RowGrid, pinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide: TypeAlias = "NDArray[np.float64]"
    Codes: TypeAlias = "NDArray[np.int64]"

_BLOCK = 128  # columns between two updates of all columns behind
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
    order = np.argsort(-_diagonal(layer.hessian), axis=1, kind="stable")
    turned = np.take_along_axis(layer.hessian, order[:, :, None], axis=1)
    factor = _inverse_factor(np.take_along_axis(turned, order[:, None, :], axis=2), damp)
    nearest = layer.nearest()
    if factor is None:
        return nearest
    by_row = order[:, None, :]
    kept = np.take_along_axis(layer.pinned(), by_row, axis=2)
    fixed = np.take_along_axis(nearest, by_row, axis=2)
    work = np.take_along_axis(layer.rows, by_row, axis=2)
    scales, zeros = (np.take_along_axis(a, by_row, axis=2) for a in layer.steps())
    codes = np.empty(work.shape, np.int64)
    for start in range(0, work.shape[2], _BLOCK):
        stop = min(start + _BLOCK, work.shape[2])
        errors = np.zeros((*work.shape[:2], stop - start))
        for j in range(start, stop):
            steps = np.rint(work[:, :, j] / scales[:, :, j]).astype(np.int64)
            rounded = np.clip(steps + zeros[:, :, j], layer.grid.low, layer.grid.high)
            codes[:, :, j] = np.where(kept[:, :, j], fixed[:, :, j], rounded)
            lost = work[:, :, j] - (codes[:, :, j] - zeros[:, :, j]) * scales[:, :, j]
            lost /= factor[:, None, j, j]
            work[:, :, j + 1 : stop] -= lost[:, :, None] * factor[:, None, j, j + 1 : stop]
            errors[:, :, j - start] = lost
        work[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
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
    curves = _diagonal(hessian)
    for _ in range(sweeps):
        moved = False
        for start in range(0, codes.shape[2], _BLOCK):
            stop = min(start + _BLOCK, codes.shape[2])
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


def _inverse_factor(hessian: Wide, damp: float) -> Wide | None:
    """The upper Cholesky factors of the damped inverses; None when there are none (not finite).

    A group whose inputs have no power gets the identity: nothing is fed back.
    """
    if not np.isfinite(hessian).all():
        return None
    mean = _diagonal(hessian).mean(axis=1)
    unit = np.eye(hessian.shape[1])
    dead = (mean <= 0)[:, None, None]
    for attempt in range(_TRIES):
        damped = np.where(dead, unit, hessian + unit * (mean * damp * 10**attempt)[:, None, None])
        try:
            root = _cholesky(damped)
            half = np.linalg.solve(root, np.broadcast_to(unit, root.shape))
            inverse = np.linalg.solve(np.transpose(root, (0, 2, 1)), half)
            return np.ascontiguousarray(np.transpose(_cholesky(np.asarray(inverse, np.float64)), (0, 2, 1)))
        except np.linalg.LinAlgError:
            continue
    return None


def _diagonal(matrices: Wide) -> Wide:
    index = list(range(matrices.shape[1]))
    return np.asarray(matrices[:, index, index])


def _cholesky(matrices: NDArray[Any]) -> Wide:
    return np.asarray(np.linalg.cholesky(matrices), np.float64)
