# SPDX-License-Identifier: Apache-2.0
"""Weights of two values per output channel: a research option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...graph_ir import Model
from ..base import Context, Exactness, Pass
from .few_values import replace_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BinaryWeights(Pass):
    """Research option: give each output channel the weights -a and a.

    Rastegari, Ordonez, Redmon, Farhadi 2016, "XNOR-Net: ImageNet Classification Using Binary Convolutional
    Neural Networks" (arXiv:1603.05279), section 3.1: a sign(w) with a = mean|w| of the channel, which is the
    least squares choice; sign(0) is 1, and a channel of zeros stays. Activations are not touched. Without
    training behind it, as here, a model loses its accuracy; no runtime that tersor targets has a kernel for
    it. What it gives is a file that compresses well, and exact int8 codes in `insert-qdq`.

    Conv, Gemm and MatMul with constant weights in the main graph; weights stay float32.

    Options:
        keep_ends: leave first and last layers as they are.
        exclude: labels or origins of nodes that are left alone.
    """

    name: ClassVar[str] = "binary-weights"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    drops_facts: ClassVar[bool] = True

    keep_ends: bool = True
    exclude: tuple[str, ...] = ()

    def run(self, model: Model, ctx: Context) -> bool:
        """Replace the weights."""
        return replace_rows(model, ctx, self.name, _rows, keep_ends=self.keep_ends, exclude=self.exclude)


def _rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(rows < 0, -1.0, 1.0) * np.abs(rows).mean(axis=1, keepdims=True)
