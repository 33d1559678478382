# SPDX-License-Identifier: Apache-2.0
"""Layer-adaptive magnitude.

Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (arXiv:2010.07611), equation 4, on
atoms instead of single weights: with ``q_a`` the squared L2 norm of atom a (see `l2`),
``s_a = q_a / (sum over b with q_b >= q_a: q_b)``. The largest atom of a group has 1, so that a global budget
never empties one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Request, Scores, by_rows
from .l2 import squared


@dataclass(frozen=True)
class Lamp:
    """Squared magnitude over what would still be there when the atom's turn comes."""

    name: ClassVar[str] = "lamp"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; neither data nor seed is used."""
        scores: Scores = {}
        for name, squares in by_rows(request.coupling, squared, consumers=False).items():
            order = np.argsort(squares, kind="stable")
            left = np.cumsum(squares[order][::-1])[::-1]
            scores[name] = np.empty_like(squares)
            scores[name][order] = np.where(left > 0.0, squares[order] / np.where(left > 0.0, left, 1.0), 0.0)
        return scores
