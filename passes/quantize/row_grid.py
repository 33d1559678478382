# SPDX-License-Identifier: Apache-2.0
"""Grids of weight rows: one scale and zero point for each block of columns of each output channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph_ir.numerics import LARGEST_SCALE, SMALLEST_SCALE, weight_params

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[Any]


@dataclass(frozen=True)
class RowGrid:
    """A grid for a matrix of weights [rows, columns], each row one output channel.

    Attributes:
        scale: float32 [rows, blocks].
        zero: int64 [rows, blocks], the code of 0.0.
        low: the lowest code.
        high: the highest code.
        block: columns per scale; the last block may be shorter.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    low: int
    high: int
    block: int

    def spread(self, columns: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scale and zero point of each weight: [rows, columns]."""
        index = np.arange(columns) // self.block
        return self.scale[:, index], self.zero[:, index]

    def quantize(self, rows: Rows) -> NDArray[np.int64]:
        """The nearest codes."""
        scale, zero = self.spread(rows.shape[1])
        steps = np.rint(np.asarray(rows, np.float32) / scale).astype(np.int64)
        return np.clip(steps + zero, self.low, self.high)

    def dequantize(self, codes: Rows) -> NDArray[np.float32]:
        """The float32 values of codes, as DequantizeLinear computes them."""
        scale, zero = self.spread(codes.shape[1])
        return (codes - zero).astype(np.float32) * scale


def channel_grid(rows: Rows, bits: int, *, mse: bool = False) -> RowGrid:
    """One symmetric scale per row: the grid that `insert-qdq` gives int8 weights.

    Args:
        rows: finite, [rows, columns].
        bits: 2 to 8.
        mse: choose scales by least squared error.

    Raises:
        ValueError: when a weight is not finite.
    """
    scale = weight_params(rows, 0, bits=bits, mse=mse).scale.reshape(-1, 1)
    top = 2 ** (bits - 1) - 1
    return RowGrid(scale, np.zeros(scale.shape, np.int64), -top, top, max(1, rows.shape[1]))


def block_grid(rows: Rows, bits: int, block: int, *, symmetric: bool = True) -> RowGrid:
    """One scale for each block of columns, as weight-only kernels take it.

    Symmetric: codes within +-(2**(bits - 1) - 1) round 0. Asymmetric: codes 0 to 2**bits - 1 from the lowest
    to the highest weight of the block, 0.0 exactly on the grid. A block of zeros has the scale 1.

    Args:
        rows: finite, [rows, columns].
        bits: 4 or 8.
        block: columns per scale.
        symmetric: see above.

    Raises:
        ValueError: when a weight is not finite.
    """
    values = np.asarray(rows, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("a weight is not finite")
    count = -(-values.shape[1] // block)
    padded = np.pad(values, ((0, 0), (0, count * block - values.shape[1])))
    blocks = padded.reshape(values.shape[0], count, block).astype(np.float64)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = _usable(np.abs(blocks).max(axis=2) / top)
        return RowGrid(scale, np.zeros(scale.shape, np.int64), -top, top, block)
    top = 2**bits - 1
    low, high = blocks.min(axis=2).clip(max=0), blocks.max(axis=2).clip(min=0)
    scale = _usable((high - low) / top)
    zero = np.clip(np.rint(-low / scale), 0, top).astype(np.int64)
    return RowGrid(scale, zero, 0, top, block)


def _usable(scale: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(np.where(scale > 0, scale, 1.0), SMALLEST_SCALE, LARGEST_SCALE).astype(np.float32)


def pinned(rows: Rows, grid: RowGrid) -> NDArray[np.bool_]:
    """The weights that must keep their nearest codes for the same grid to be found again from the result.

    In each block that is one with the code furthest from 0 (symmetric), or one with the lowest and one with
    the highest code.
    """
    codes = grid.quantize(rows)
    kept = np.zeros(codes.shape, np.bool_)
    index = np.arange(len(codes))
    for start in range(0, codes.shape[1], grid.block):
        part = codes[:, start : start + grid.block]
        if grid.low == -grid.high:
            kept[index, start + np.abs(part).argmax(axis=1)] = True
        else:
            kept[index, start + part.argmin(axis=1)] = True
            kept[index, start + part.argmax(axis=1)] = True
    return kept
