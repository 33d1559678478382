# SPDX-License-Identifier: Apache-2.0
"""Many removals of single channels from H and W W', made a batch at a time.

Removing channel s changes H by ``- h u'`` and G = W W' by ``u v' + v u'`` with ``h = H_:s``, ``u = h / H_ss``
and ``v = G_ss u / 2 - G_:s``. Which channel is next only asks for the diagonals, and a removal only for one
column of each; both follow from the pending vectors, which reach the matrices by one product per batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wide = NDArray[np.float64]

_BATCH = 64


class Surgery:
    """The two matrices while channels are removed.

    Args:
        inverse: H, ``[channels, channels]``; overwritten.
        gram: G, of the same shape; overwritten.
    """

    def __init__(self, inverse: Wide, gram: Wide) -> None:
        self._inverse, self._gram = inverse, gram
        self._h, self._u, self._v = (np.zeros((_BATCH, len(inverse))) for _ in range(3))
        self._pending = 0
        self._left = np.ones(len(inverse), np.bool_)
        self.inverse_diagonal: Wide = np.array(np.diagonal(inverse), np.float64)
        self.gram_diagonal: Wide = np.array(np.diagonal(gram), np.float64)

    def remove(self, channel: int) -> None:
        """Take a channel out, the rest refitted."""
        k = self._pending
        h, u, v = self._h[:k], self._u[:k], self._v[:k]
        column = self._inverse[:, channel] - np.matmul(u[:, channel], h)
        # What is left of removed rows is rounding; it must not leak into later steps.
        column = np.where(self._left, column, 0.0)
        cross = self._gram[:, channel] + np.matmul(v[:, channel], u) + np.matmul(u[:, channel], v)
        cross = np.where(self._left, cross, 0.0)
        share = column / column[channel]
        other = 0.5 * cross[channel] * share - cross
        self._h[k], self._u[k], self._v[k] = column, share, other
        self.inverse_diagonal -= column * share
        self.gram_diagonal += 2.0 * share * other
        self._left[channel] = False
        self._pending += 1
        if self._pending == _BATCH:
            self._inverse -= np.matmul(np.transpose(self._u), self._h)
            self._gram += np.matmul(np.transpose(self._u), self._v)
            self._gram += np.matmul(np.transpose(self._v), self._u)
            self._pending = 0
