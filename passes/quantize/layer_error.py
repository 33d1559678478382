# SPDX-License-Identifier: Apache-2.0
"""Codes of weights that keep a layer's output close, by its second moments.

What rounding W to Q does to the output of a layer is, over the data, E[((Q - W) x)^2] = sum over rows e of
Q - W of e H e', with H = E[x x'], the layer's Hessian up to a factor. All here minimise that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .row_grid import RowGrid, pinned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide: TypeAlias = "NDArray[np.float64]"
    Codes: TypeAlias = "NDArray[np.int64]"

_BLOCK = 128  # columns between two updates of all columns behind
_TRIES = 6


def error(rows: NDArray[Any], hessian: Wide, codes: Codes, grid: RowGrid) -> float:
    """The sum over rows e of the rounding error of e H e'."""
    e = grid.dequantize(codes).astype(np.float64) - rows
    return float(np.einsum("ij,ij->", e @ hessian, e))


def feedback(rows: NDArray[Any], hessian: Wide, grid: RowGrid, *, damp: float) -> Codes:
    """Round column by column; the columns not yet rounded make up for the error of each (GPTQ).

    Frantar, Ashkboos, Hoefler, Alistarh 2022, "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers" (arXiv:2210.17323), algorithm 1, in float64. Weights that fix the grid keep
    their nearest codes (`row_grid.pinned`).

    Args:
        rows: weights [rows, columns].
        hessian: [columns, columns].
        grid: of the rows.
        damp: what is added to the diagonal, as a share of its mean.
    """
    columns = rows.shape[1]
    order = [int(j) for j in np.argsort(-_diagonal(hessian), kind="stable")]  # by the power of the inputs
    factor = _inverse_factor(hessian[order][:, order], damp)
    work = np.asarray(rows, np.float64)[:, order]
    if factor is None:
        return grid.quantize(rows)
    nearest, kept = grid.quantize(rows)[:, order], pinned(rows, grid)[:, order]
    codes = np.empty(work.shape, np.int64)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.zeros((len(work), stop - start))
        for j in range(start, stop):
            scale, zero = grid.column(order[j])
            rounded = np.clip(np.rint(work[:, j] / scale).astype(np.int64) + zero, grid.low, grid.high)
            codes[:, j] = np.where(kept[:, j], nearest[:, j], rounded)
            lost = (work[:, j] - (codes[:, j] - zero) * scale) / factor[j, j]
            work[:, j + 1 : stop] -= lost[:, None] * factor[j, j + 1 : stop]
            errors[:, j - start] = lost
        work[:, stop:] -= errors @ factor[start:stop, stop:]
    back = np.empty(columns, np.int64)
    back[order] = np.arange(columns)
    return codes[:, back]


def descend(
    rows: NDArray[Any], hessian: Wide, codes: Codes, grid: RowGrid, *, sweeps: int, floor_or_ceil: bool
) -> Codes:
    """Move single codes by one step while that lessens the error: Gauss-Seidel over the columns.

    The error of a row never grows. Weights that fix the grid keep their codes.

    Args:
        rows: weights [rows, columns].
        hessian: [columns, columns].
        codes: to start from.
        grid: of the rows.
        sweeps: how often all columns are gone through at most.
        floor_or_ceil: allow each weight the two codes around it only, as AdaRound does.
    """
    wide = np.asarray(rows, np.float64)
    scales, zeros = (np.asarray(a, np.float64) for a in grid.spread(wide.shape[1]))
    low = np.full(wide.shape, grid.low)
    high = np.full(wide.shape, grid.high)
    if floor_or_ceil:
        below = np.floor(wide / scales) + zeros
        low = np.clip(below, grid.low, grid.high).astype(np.int64)
        high = np.clip(below + 1, grid.low, grid.high).astype(np.int64)
    kept = pinned(rows, grid)
    found = np.where(kept, grid.quantize(rows), np.clip(codes, low, high))
    slope = ((found - zeros) * scales - wide) @ hessian
    for _ in range(sweeps):
        moved = False
        for j in range(wide.shape[1]):
            curve = hessian[j, j]
            if curve <= 0:
                continue
            step = np.clip(np.rint(-slope[:, j] / (curve * scales[:, j])), -1, 1).astype(np.int64)
            new = np.clip(found[:, j] + step, low[:, j], high[:, j])
            step = np.where(kept[:, j], 0, new - found[:, j])
            at = np.flatnonzero(step)
            if at.size:
                moved = True
                found[at, j] += step[at]
                slope[at] += (step[at] * scales[at, j])[:, None] * hessian[j]
        if not moved:
            break
    return found


def _inverse_factor(hessian: Wide, damp: float) -> Wide | None:
    """The upper Cholesky factor of the damped inverse; None when it has none (no data, not finite)."""
    mean = float(_diagonal(hessian).mean())
    if not np.isfinite(hessian).all() or mean <= 0:
        return None
    for attempt in range(_TRIES):
        damped = hessian + np.eye(len(hessian)) * (mean * damp * 10**attempt)
        try:
            root = _cholesky(damped)
            inverse = np.linalg.solve(np.transpose(root), np.linalg.solve(root, np.eye(len(root))))
            return np.ascontiguousarray(np.transpose(_cholesky(np.asarray(inverse, np.float64))))
        except np.linalg.LinAlgError:
            continue
    return None


def _diagonal(matrix: Wide) -> Wide:
    return np.asarray(matrix[np.arange(len(matrix)), np.arange(len(matrix))])


def _cholesky(matrix: Wide) -> Wide:
    return np.asarray(np.linalg.cholesky(matrix), np.float64)
