# SPDX-License-Identifier: Apache-2.0
"""Chance: the baseline every criterion has to beat (Mittal et al. 2018, arXiv:1801.10447).

``s_a`` is uniform in [0, 1), drawn per group from the seed and the group's name, so that a group's scores do
not hang on which other groups there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from zlib import crc32

import numpy as np

from ....graph_ir import Model
from .base import Progress, Samples, Scores

if TYPE_CHECKING:
    from ....analysis.coupling import Coupling


@dataclass(frozen=True)
class Random:
    """Uniform random numbers."""

    name: ClassVar[str] = "random"
    needs_data: ClassVar[bool] = False

    def score(
        self,
        model: Model,
        coupling: Coupling,
        data: Samples | None,
        seed: int,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Criterion.score`; the same seed gives the same scores."""
        return {
            group.name: np.random.default_rng([seed, crc32(group.name.encode())]).random(group.atoms)
            for group in coupling.groups
        }
