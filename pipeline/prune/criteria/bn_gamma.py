# SPDX-License-Identifier: Apache-2.0
"""Scale of the batch normalisation.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming" (arXiv:1708.06519): for
atom a, ``s_a = sum over BatchNormalizations n of the group, channels c of a in n: |gamma_n[c]|``. Groups
without one are judged by `l2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....graph_ir import Model, UsageError
from ....graph_ir.ops import is_op
from .base import Progress, Samples, Scores
from .l2 import L2
from .roles import slices

if TYPE_CHECKING:
    from ....analysis.coupling import Coupling


@dataclass(frozen=True)
class BnGamma:
    """Magnitude of the batch normalisation's scale."""

    name: ClassVar[str] = "bn-gamma"
    needs_data: ClassVar[bool] = False

    def score(
        self,
        model: Model,
        coupling: Coupling,
        data: Samples | None,
        seed: int,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Criterion.score`; UsageError when no group holds a BatchNormalization (it was folded, say)."""
        scores = L2().score(model, coupling, data, seed)
        found = False
        for group in coupling.groups:
            scales = [
                part
                for part in slices(group)
                if part.role == "gamma" and is_op(part.node, "BatchNormalization")
            ]
            if scales:
                found = True
                scores[group.name] = sum(
                    (np.abs(part.rows()).sum(axis=1) for part in scales), np.zeros(group.atoms)
                )
        if coupling.groups and not found:
            raise UsageError(
                "criterion 'bn-gamma': no channel to prune passes a BatchNormalization "
                "(it is folded into the weights); take l2"
            )
        return scores
