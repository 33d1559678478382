# SPDX-License-Identifier: Apache-2.0
"""Chance: the baseline every criterion has to beat (Mittal et al. 2018, arXiv:1801.10447).

``s_a`` is uniform in [0, 1), drawn per group from the seed and the group's name, so that a group's scores do
not hang on which other groups there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np

from .base import Request, Scores


@dataclass(frozen=True)
class Random:
    """Uniform random numbers."""

    name: ClassVar[str] = "random"
    needs_data: ClassVar[bool] = False

    def score(self, request: Request) -> Scores:
        """See `Criterion.score`; the same seed gives the same scores."""
        return {
            group.name: np.random.default_rng([request.seed, crc32(group.name.encode())]).random(group.atoms)
            for group in request.coupling.groups
        }
