# SPDX-License-Identifier: Apache-2.0
"""Scale of the batch normalisation.

Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming" (arXiv:1708.06519): for
atom a, ``s_a = sum over BatchNormalizations n of the group, channels c of a in n: |gamma_n[c]|``. Groups
without one are judged by `l2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....graph_ir import UsageError
from ....graph_ir.ops import is_op
from .base import Request, Scores
from .l2 import L2
from .roles import slices


@dataclass(frozen=True)
class BnGamma:
    """Magnitude of the batch normalisation's scale."""

    name: ClassVar[str] = "bn-gamma"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; UsageError when no group holds a BatchNormalization (it was folded, say)."""
        scores = L2().score(request)
        found = False
        for group in request.coupling.groups:
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
        if request.coupling.groups and not found:
            raise UsageError(
                "criterion 'bn-gamma': no channel to prune passes a BatchNormalization "
                "(it is folded into the weights); take l2"
            )
        return scores
