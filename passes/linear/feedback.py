# SPDX-License-Identifier: Apache-2.0
"""Change a layer's weights column by column; the columns to come make up for the error of each.

For a row w of weights and what it reads, X, the error of a row v in its place is (v - w) H (v - w)' with
H = X X'. With U' U = H^-1, U upper triangular, settling column j at v_j costs ((w_j - v_j) / U_jj)^2, and
w_k -= (w_j - v_j) U_jk / U_jj for all k > j is the best answer of the columns to come (Hassibi & Stork 1993,
"Second order derivatives for network pruning: Optimal Brain Surgeon"; column by column with one U for all
rows: Frantar et al. 2022, "GPTQ", arXiv:2210.17323). Leading axes of all arrays are layers side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide = NDArray[np.float64]

BLOCK = 128
"""Columns between two updates of all columns behind."""


def feed_back(work: Wide, upper: Wide, settle: Callable[[int, slice], Wide], *, block: int = BLOCK) -> None:
    """Settle all columns from left to right, in place.

    Args:
        work: weights, ``[..., rows, columns]``; what was settled when done.
        upper: of `inverse_root`, ``[..., columns, columns]``.
        settle: given a column and the block it is in, the values ``[..., rows]`` the column shall have. In
            `work` the block's columns from this one on hold what those before have handed on.
        block: see `BLOCK`.
    """
    size = work.shape[-1]
    for start in range(0, size, block):
        inside = slice(start, min(start + block, size))
        errors = np.zeros((*work.shape[:-1], inside.stop - start))
        for j in range(start, inside.stop):
            settled = settle(j, inside)
            lost = (work[..., j] - settled) / upper[..., None, j, j]
            work[..., j] = settled
            work[..., j + 1 : inside.stop] -= lost[..., None] * upper[..., None, j, j + 1 : inside.stop]
            errors[..., j - start] = lost
        work[..., inside.stop :] -= errors @ upper[..., inside, inside.stop :]


def damped(hessian: Wide, share: float) -> Wide:
    """With a share of the diagonal's mean added to it; the identity where nothing was seen.

    Args:
        hessian: ``[..., columns, columns]``, symmetric, semidefinite.
        share: positive.
    """
    mean = diagonal(hessian).mean(axis=-1)[..., None, None]
    unit = np.eye(hessian.shape[-1])
    return np.where(mean > 0, hessian + unit * (mean * share), unit)


def inverse_root(hessian: Wide) -> Wide:
    """Upper triangular U with ``U' U`` the inverse of a positive definite matrix (or of each of many).

    The Cholesky factor is taken from the far end (``H = R R'`` with R upper triangular), so that ``U`` is
    ``R^-1`` and the matrix itself need not be inverted.

    Raises:
        LinAlgError: it is not positive definite.
    """
    factor = np.linalg.cholesky(hessian[..., ::-1, ::-1])[..., ::-1, ::-1]
    return np.triu(np.linalg.inv(factor)).astype(np.float64, copy=False)


def diagonal(matrices: Wide) -> Wide:
    """``[..., columns]`` of ``[..., columns, columns]``."""
    return np.diagonal(matrices, axis1=-2, axis2=-1)
