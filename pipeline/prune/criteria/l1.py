# SPDX-License-Identifier: Apache-2.0
"""Sum of absolute weights.

Li et al. 2017, "Pruning Filters for Efficient ConvNets" (arXiv:1608.08710): for atom a,
``s_a = sum over producers p, rows r of a in p: sum over i: |W_p[r, i]|``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....graph_ir import Model
from .base import Progress, Samples, Scores, by_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....analysis.coupling import Coupling


@dataclass(frozen=True)
class L1:
    """L1 norm of all rows that make an atom.

    Attributes:
        consumers: add the columns of the weights that read it.
    """

    consumers: bool = False

    name: ClassVar[str] = "l1"
    needs_data: ClassVar[bool] = False

    def score(
        self,
        model: Model,
        coupling: Coupling,
        data: Samples | None,
        seed: int,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Criterion.score`; neither data nor seed is used."""
        return by_rows(coupling, _absolute, consumers=self.consumers)


def _absolute(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(rows).sum(axis=1)
