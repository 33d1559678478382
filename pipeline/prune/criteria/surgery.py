# SPDX-License-Identifier: Apache-2.0
"""Many removals of single channels from H and W W', made a batch at a time.

Removing channel s changes H by ``- h u'`` and G = W W' by ``u v' + v u'`` with ``h = H_:s``, ``u = h / H_ss``
and ``v = G_ss u / 2 - G_:s``. Which channel is next only asks for the diagonals, and a removal only for one
column of each; both follow from the pending vectors, which reach the matrices by one product per batch. What
is left of the matrices moves together as channels go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide = NDArray[np.float64]

_BATCH = 128
_STRIP = 512  # rows of a matrix that are brought up to date at a time
_FEWER = 0.9  # of the channels are left: worth moving


class Surgery:
    """The two matrices while channels are removed.

    Args:
        inverse: H, ``[channels, channels]``; overwritten.
        gram: G, of the same shape; overwritten.
    """

    def __init__(self, inverse: Wide, gram: Wide) -> None:
        self._inverse, self._gram = inverse, gram
        self._inverse_diagonal: Wide = np.array(np.diagonal(inverse), np.float64)
        self._gram_diagonal: Wide = np.array(np.diagonal(gram), np.float64)
        self._place = np.arange(len(inverse))  # of each channel in the matrices
        self._left = np.ones(len(inverse), np.bool_)
        self._h, self._u, self._v = (np.zeros((_BATCH, len(inverse))) for _ in range(3))
        self._pending = 0

    def losses(self, channels: NDArray[np.int64]) -> Wide:
        """What the removal of each of some channels that are left costs."""
        at = self._place[channels]
        return np.divide(self._gram_diagonal[at], self._inverse_diagonal[at])

    def remove(self, channel: int) -> None:
        """Take a channel out, the rest refitted."""
        at, k = self._place[channel], self._pending
        h, u, v = self._h[:k], self._u[:k], self._v[:k]
        column = self._inverse[at] - np.matmul(u[:, at], h)  # they are symmetric, and rows lie together
        # What is left of removed rows is rounding; it must not leak into later steps.
        column = np.where(self._left, column, 0.0)
        cross = self._gram[at] + np.matmul(v[:, at], u) + np.matmul(u[:, at], v)
        cross = np.where(self._left, cross, 0.0)
        share = column / column[at]
        other = 0.5 * cross[at] * share - cross
        self._h[k], self._u[k], self._v[k] = column, share, other
        self._inverse_diagonal -= column * share
        self._gram_diagonal += 2.0 * share * other
        self._left[at] = False
        self._pending += 1
        if self._pending == _BATCH:
            self._catch_up()

    def _catch_up(self) -> None:
        """Bring the matrices up to date."""
        if np.count_nonzero(self._left) < _FEWER * len(self._left):
            self._move_together()
        there, here = np.concatenate([self._u, self._v]), np.concatenate([self._v, self._u])
        for start in range(0, len(self._left), _STRIP):
            rows = slice(start, start + _STRIP)
            self._inverse[rows] -= np.matmul(np.transpose(self._u[:, rows]), self._h)
            self._gram[rows] += np.matmul(np.transpose(there[:, rows]), here)
        self._pending = 0

    def _move_together(self) -> None:
        stay = np.flatnonzero(self._left)
        self._place = (np.cumsum(self._left) - 1)[self._place]
        both = np.ix_(stay, stay)
        self._inverse, self._gram = self._inverse[both], self._gram[both]
        self._h, self._u, self._v = self._h[:, stay], self._u[:, stay], self._v[:, stay]
        self._inverse_diagonal, self._gram_diagonal = self._inverse_diagonal[stay], self._gram_diagonal[stay]
        self._left = np.ones(stay.size, np.bool_)
