# SPDX-License-Identifier: Apache-2.0
"""Round each weight up or down, whichever keeps the layer's output closer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..base import bounded
from .layer_error import Layer, descend
from .rounding import WeightRounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AdaptiveRounding(WeightRounding):
    """Round weights up or down by the layer's Hessian instead of to the nearest.

    Nagel, Amjad, van Baalen, Louizos, Blankevoort 2020, "Up or Down? Adaptive Rounding for Post-Training
    Quantization" (arXiv:2004.10568): of the two codes around each weight, the choice that minimises
    E[((Q - W) x)^2] (section 3.2, a quadratic binary problem for each output channel). The paper relaxes it
    and descends by gradient; here it is solved by Gauss-Seidel steps from the nearest codes, which never
    make it worse. The mean of the error goes into the bias, as in `gptq`, and likewise the weights stay
    float32 on the grid that `insert-qdq` or `weight-only` find again, and the same is left alone.

    Reads `ctx.facts["second-moments"]`, of this very model.

    Options:
        bits: of a code; 7 for x86 CPUs without VNNI.
        group: columns per scale, for `weight-only`; 0 for one scale per output channel.
        symmetric: codes of a group round 0.
        mse: choose scales by least squared error (group 0 only).
        sweeps: over all columns at most.
        exclude: labels or origins of nodes that are left alone.
    """

    name: ClassVar[str] = "adaptive-rounding"

    sweeps: int = bounded(6, 1)

    def solve(self, layer: Layer) -> NDArray[np.int64]:
        """Codes up or down of each weight."""
        return descend(layer, layer.nearest(), sweeps=self.sweeps, floor_or_ceil=True)
