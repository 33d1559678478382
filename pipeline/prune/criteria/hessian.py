# SPDX-License-Identifier: Apache-2.0
"""Second-order change of a loss by the cut, weight by weight.

LeCun et al. 1990, "Optimal Brain Damage", with the diagonal of the Hessian estimated by the squared gradients
(the empirical Fisher information; for the loss `output` Gauss and Newton's diagonal in expectation):
``s_a = sum over weights w of a: 0.5 * w^2 * E[(dL/dw)^2]``, the mean over feeds. See `gradients` for which
weights are an atom's and `losses` for L. Needs torch.
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
class Hessian:
    """Squared weights times the diagonal of the Hessian.

    Attributes:
        loss: output, cross-entropy or module:function.
        probes: runs of each feed.
    """

    loss: str = "output"
    probes: int = 1

    name: ClassVar[str] = "hessian"
    needs_data: ClassVar[bool] = True

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; the seed draws the signs of the loss ``output``."""
        return averaged(
            request, _half_squares, np.positive,
            name=self.name, loss=self.loss, probes=self.probes,
        )  # fmt: skip


def _half_squares(products: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * np.einsum("pn,pn->p", products, products)
