# SPDX-License-Identifier: Apache-2.0
"""First-order change of a loss by the cut.

Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning" (arXiv:1906.10771), for the weights
of one atom together: ``s_a = E[(sum over weights w of a: w * dL/dw)^2]``, the mean over feeds. See
`gradients` for which weights are an atom's and `losses` for L; with the default it is, up to a factor, how
far the outputs move in first order when the channel goes. Needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Request, Scores
from .gradients import averaged

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Taylor:
    """Squared first-order change of the loss.

    Attributes:
        loss: output, cross-entropy or module:function.
        probes: runs of each feed.
    """

    loss: str = "output"
    probes: int = 1

    name: ClassVar[str] = "taylor"
    needs_data: ClassVar[bool] = True

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; the seed draws the signs of the loss ``output``."""
        return averaged(
            request, _summed, np.square,
            name=self.name, loss=self.loss, probes=self.probes,
        )  # fmt: skip


def _summed(products: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum("pn->p", products)
