# SPDX-License-Identifier: Apache-2.0
"""A constant weight as a linear operator reads it: rows of what one output sums over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node, Value
from ..linear.moves import positions
from ..linear.rows import RowView

Positions = NDArray[np.int64]
"""Where each weight lies in the flattened constant: ``[rows, taps, inputs]``; a row sums over the rest."""


@dataclass(frozen=True, eq=False)
class Use:
    """One linear node that reads a constant.

    Attributes:
        read: the weight as the node reads it.
        x: the other operand.
        path: what lies between the constant and the node, first to last; nothing there computes.
    """

    read: RowView
    x: Value
    path: tuple[Node, ...]

    @property
    def node(self) -> Node:
        """Conv, ConvTranspose, Gemm or MatMul."""
        return self.read.node

    def positions(self, shape: tuple[int, ...]) -> Positions:
        """Rows of a constant of this shape; taps are the places of a convolution's kernel."""
        rows = self.read.rows(positions(shape, self.path))
        if self.read.is_conv:
            return np.swapaxes(rows.reshape(self.read.outputs, self.read.inputs, -1), 1, 2)
        return rows.reshape(-1, 1, self.read.inputs)

    def order(self) -> NDArray[np.int64]:
        """The column of `linear.patches` that each weight of a row is multiplied by: ``[taps * inputs]``."""
        inputs, taps = self.read.inputs, self.read.taps
        if self.node.op_type == "ConvTranspose":
            return np.tile(np.arange(inputs), taps)
        return np.transpose(np.arange(inputs * taps).reshape(inputs, taps)).reshape(-1)
