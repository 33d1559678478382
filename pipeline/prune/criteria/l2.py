# SPDX-License-Identifier: Apache-2.0
"""Root of the sum of squared weights.

The L2 form of Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710), over everything
that goes with the atom (Fang et al. 2023, "DepGraph", arXiv:2301.12900): for atom a,
``s_a = sqrt(sum over producers p, rows r of a in p: sum over i: W_p[r, i]^2)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Request, Scores, by_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class L2:
    """L2 norm of all rows that make an atom.

    Attributes:
        consumers: add the columns of the weights that read it.
    """

    consumers: bool = False

    name: ClassVar[str] = "l2"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; neither data nor seed is used."""
        squares = by_rows(request.coupling, squared, consumers=self.consumers)
        return {name: np.sqrt(values) for name, values in squares.items()}


def squared(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of squares of each row."""
    return np.einsum("an,an->a", rows, rows)
