# SPDX-License-Identifier: Apache-2.0
"""Weights of three values per output channel: a research option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...graph_ir import Model
from ..base import Context, Exactness, Pass, bounded
from .few_values import replace_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TernaryWeights(Pass):
    """Research option: give each output channel the weights -a, 0 and a.

    Li, Zhang, Liu 2016, "Ternary Weight Networks" (arXiv:1605.04711): with the threshold t = 0.7 mean|w|, a
    weight becomes a sign(w) where |w| > t, else 0, and a is the mean of |w| over those, which is the least
    squares choice. Without training behind it, as here, most models lose most of their accuracy; no runtime
    that tersor targets has a kernel for it. What it gives is a file that compresses well, and exact int8
    codes in `insert-qdq`.

    Conv, Gemm and MatMul with constant weights in the main graph; weights stay float32.

    Options:
        threshold: t as a share of the mean magnitude.
        keep_ends: leave first and last layers as they are.
        exclude: labels or origins of nodes that are left alone.
    """

    name: ClassVar[str] = "ternary-weights"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    drops_facts: ClassVar[bool] = True

    threshold: float = bounded(0.7, 0, 10)
    keep_ends: bool = True
    exclude: tuple[str, ...] = ()

    def run(self, model: Model, ctx: Context) -> bool:
        """Replace the weights."""
        return replace_rows(model, ctx, self.name, self._rows, keep_ends=self.keep_ends, exclude=self.exclude)

    def _rows(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        size = np.abs(rows)
        large = size > self.threshold * size.mean(axis=1, keepdims=True)
        count = large.sum(axis=1, keepdims=True)
        step = np.where(large, size, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
        return np.where(large, np.sign(rows), 0.0) * step
