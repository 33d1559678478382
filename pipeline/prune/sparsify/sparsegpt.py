# SPDX-License-Identifier: Apache-2.0
"""Zeros whose error the remaining weights of the row make up for.

Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot"
(arXiv:2301.00774), after Hassibi & Stork's Optimal Brain Surgeon (1993). For a row w and what it reads, X,
the error ``|(w - v) X|^2`` has the Hessian ``H = X X'``. Going through the columns from left to right, with
``U' U = H^-1`` (U upper triangular), setting weight j to zero costs ``w_j^2 / U_jj^2``, and
``w_k -= w_j U_jk / U_jj`` for all k > j is the best answer of the columns to come. All rows share U.

Columns that were passed cannot answer what goes later, and where inputs go together closely that costs more
than it saves. So once the mask stands, all weights that stay are fitted once more, row by row, by conjugate
gradients on the same error (Hestenes & Stiefel 1952); each step lowers it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....passes.prune.masks import Mask, Pattern, count, outside_pattern, smallest

Wide = NDArray[np.float64]

BLOCK = 128
"""Columns whose weights are chosen together, and after which the rest is brought up to date."""

STEPS = 20
"""Of conjugate gradients, each as much work as one product with the Hessian."""


def prune_rows(
    rows: Wide, hessian: Wide, *, share: float = 0.0, pattern: Pattern | None = None, damping: float = 0.01
) -> Wide:
    """Rows with zeros, and the weights that make up for them.

    Args:
        rows: ``[rows, d]``.
        hessian: ``X X'``, ``[d, d]``, symmetric, semidefinite.
        share: of zeros, met exactly over all rows (and per block of columns, by rounding); without a pattern.
        pattern: of each run along d, a multiple of `pattern.of`, instead.
        damping: what is added to the diagonal, as a share of its mean; positive.

    Returns:
        ``[rows, d]``; the chosen weights are exactly zero.
    """
    work: Wide = np.array(rows)
    damped = _damped(hessian, damping)
    upper = inverse_root(damped)
    diagonal: Wide = np.diagonal(upper)
    size: int = rows.shape[1]
    block = BLOCK if pattern is None else max(1, BLOCK // pattern.of) * pattern.of
    gone = 0
    for start in range(0, size, block):
        stop = min(start + block, size)
        part: Wide = work[:, start:stop]
        own: Wide = upper[start:stop, start:stop]
        costs = np.square(part / diagonal[start:stop])
        if pattern is None:
            mask = smallest(costs, count(share, len(rows) * stop) - gone)
            gone += int(np.count_nonzero(mask))
        else:
            mask: Mask = np.zeros(part.shape, np.bool_)
        errors = np.zeros(part.shape)
        for j in range(stop - start):
            if pattern is not None and j % pattern.of == 0:
                run = slice(j, j + pattern.of)  # chosen late, with what the columns before have handed on
                mask[:, run] = outside_pattern(np.square(part[:, run] / diagonal[start:stop][run]), pattern)
            errors[:, j] = np.where(mask[:, j], part[:, j] / own[j, j], 0.0)
            part[:, j:] -= np.outer(errors[:, j], own[j, j:])
        part[mask] = 0.0  # not merely nearly
        work[:, stop:] -= errors @ upper[start:stop, stop:]
    return refit(rows, work, damped)


def refit(rows: Wide, sparse: Wide, hessian: Wide, steps: int = STEPS) -> Wide:
    """The weights that are not zero, moved towards the least ``(v - w) H (v - w)'`` of each row.

    Args:
        rows: w, ``[rows, d]``.
        sparse: v to begin with, ``[rows, d]``; its zeros stay.
        hessian: H, ``[d, d]``, positive definite.
        steps: of conjugate gradients, scaled by the diagonal; fewer when nothing is left to gain.
    """
    keep = sparse != 0.0
    scale = np.diagonal(hessian)
    found: Wide = np.array(sparse)
    left: Wide = ((rows - sparse) @ hessian) * keep  # the gradient with its sign turned
    way: Wide = left / scale
    gain: Wide = (left * way).sum(axis=1, keepdims=True)
    floor = 1e-24 * float(gain.max(initial=0.0))
    for _ in range(steps):
        if not gain.max(initial=0.0) > floor:
            break
        curve = (way @ hessian) * keep
        bend = (way * curve).sum(axis=1, keepdims=True)
        step = np.divide(gain, bend, out=np.zeros_like(gain), where=bend > 0)
        found += step * way
        left -= step * curve
        turned = left / scale
        before, gain = gain, (left * turned).sum(axis=1, keepdims=True)
        way = turned + np.divide(gain, before, out=np.zeros_like(gain), where=before > 0) * way
    return found


def _damped(hessian: Wide, damping: float) -> Wide:
    """With a share of the diagonal's mean added to it; where nothing was seen all weights count alike."""
    mean = float(np.diagonal(hessian).mean())
    return hessian + np.eye(len(hessian)) * (damping * mean if mean > 0 else 1.0)


def inverse_root(hessian: Wide) -> Wide:
    """Upper triangular U with ``U' U`` the inverse of a positive definite matrix.

    The Cholesky factor is taken from the far end (``H = R R'`` with R upper triangular), so that ``U`` is
    ``R^-1`` and the matrix itself need not be inverted.
    """
    factor = np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]
    return np.triu(np.linalg.inv(factor)).astype(np.float64, copy=False)


def output_error(before: Wide, after: Wide, hessian: Wide) -> float:
    """Squared error of the outputs as a share of their squares; ``[groups, rows, d]`` and Hessians."""
    change = after - before
    total = float(((before @ hessian) * before).sum())
    error = float(((change @ hessian) * change).sum())
    return max(error, 0.0) / total if total > 0 else 0.0
