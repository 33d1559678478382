# SPDX-License-Identifier: Apache-2.0
"""Distance to the other filters.

He et al. 2019, "Filter Pruning via Geometric Median for Deep Neural Networks Acceleration"
(arXiv:1811.00250), equation 6: the filter nearest to the geometric median of a layer is best replaced by the
others. With F_a all rows that make atom a, over all producers, ``s_a = sum over b: ||F_a - F_b||_2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Request, Scores, judged

_BLOCK = 256  # atoms compared with all others at once


@dataclass(frozen=True)
class Fpgm:
    """Sum of the distances from an atom's rows to those of all other atoms."""

    name: ClassVar[str] = "fpgm"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; neither data nor seed is used."""
        scores: Scores = {}
        for group in request.coupling.groups:
            parts = [part.rows() for part in judged(group)]
            squares = sum((np.einsum("an,an->a", rows, rows) for rows in parts), np.zeros(group.atoms))
            total = np.empty(group.atoms)
            for start in range(0, group.atoms, _BLOCK):
                chunk = slice(start, start + _BLOCK)
                apart = squares[chunk, None] + squares[None, :]
                for rows in parts:
                    apart -= 2.0 * np.matmul(rows[chunk], np.transpose(rows))
                total[chunk] = np.sqrt(np.maximum(apart, 0.0)).sum(axis=1)
            scores[group.name] = total
        return scores
