# SPDX-License-Identifier: Apache-2.0
"""Sum of absolute weights.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710): for atom a,
``s_a = sum over producers p, rows r of a in p: sum over i: |W_p[r, i]|``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Request, Scores, by_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class L1:
    """L1 norm of all rows that make an atom.

    Attributes:
        consumers: add the columns of the weights that read it.
    """

    consumers: bool = False

    name: ClassVar[str] = "l1"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; neither data nor seed is used."""
        return by_rows(request.coupling, _absolute, consumers=self.consumers)


def _absolute(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(rows).sum(axis=1)
