# SPDX-License-Identifier: Apache-2.0
"""Round weights column by column with feedback of the error through the layer's inverse Hessian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...graph_ir import UsageError
from ..base import bounded
from .layer_error import Layer, descend, feedback
from .rounding import WeightRounding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Gptq(WeightRounding):
    """Round weights with feedback: each column's error is made up for by the columns not yet rounded.

    For Conv (k x k, grouped and depthwise, too), Gemm and MatMul with constant weights. Minimises the error
    of the layer's output E[((Q - W) x)^2] over the data (Frantar et al. 2022, "GPTQ", arXiv:2210.17323,
    algorithm 1, with the order of columns by the power of their input). Then Gauss-Seidel sweeps move single
    codes while that lessens the error. The mean of the error goes into the bias, where there is one or can
    be one, and the covariance of the inputs takes the place of their second moments.

    The weights stay float32 but lie on the grid: `insert-qdq` (group 0) or `weight-only` (same bits, group
    and symmetry) behind it find the same codes. Left alone: weights that are shared, not constant or not
    finite, and layers whose inputs were not measured.

    Reads `ctx.facts["second-moments"]`, of this very model.

    Options:
        bits: of a code; 7 for x86 CPUs without VNNI.
        group: columns per scale, for `weight-only`; 0 for one scale per output channel.
        symmetric: codes of a group round 0.
        mse: choose scales by least squared error (group 0 only).
        sweeps: of the Gauss-Seidel part at most.
        exclude: labels or origins of nodes that are left alone.
        damp: added to the Hessian's diagonal, as a share of its mean.
    """

    name: ClassVar[str] = "gptq"

    sweeps: int = bounded(2, 0)
    damp: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damp < 1:
            raise UsageError(f"gptq needs a damp between 0 and 1, not {self.damp}")

    def solve(self, layer: Layer) -> NDArray[np.int64]:
        """Codes with feedback, then moved singly."""
        return descend(layer, feedback(layer, self.damp), sweeps=self.sweeps, floor_or_ceil=False)
