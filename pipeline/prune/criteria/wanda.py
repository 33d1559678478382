# SPDX-License-Identifier: Apache-2.0
"""Weight times activation.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda, arXiv:2306.11695)
scores a weight as ``|W_ij| * ||X_j||_2``; an atom has all the weights that read it:
``s_a = sum over consumers n, channels j of a in n's input X: rms(X_j) * sum over i: |W_n[i, j]|``,
the root mean square over all samples and places. Groups no constant weight reads are judged by `l2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Request, Scores
from .l2 import L2
from .readers import measured


@dataclass(frozen=True)
class Wanda:
    """Absolute weights of the readers times how large what they read is."""

    name: ClassVar[str] = "wanda"
    needs_data: ClassVar[bool] = True

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; all places of all samples count, so the seed is not used."""
        scores = L2().score(request)
        for group, found, moments in measured(request, self.name, between=False):
            total = np.zeros(group.atoms)
            for reader in found:
                columns = np.abs(reader.columns.astype(np.float64)).sum(axis=1)
                weights = columns * np.sqrt(moments[reader.patches].power()[0])
                mine = reader.atom_of >= 0
                np.add.at(total, reader.atom_of[mine], weights[mine])
            scores[group.name] = total
        return scores
