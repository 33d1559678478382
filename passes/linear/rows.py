# SPDX-License-Identifier: Apache-2.0
"""A linear operator's weight as rows, one for each output: what it sums over."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node
from ...graph_ir.ops import int_attr

Array = NDArray[Any]

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class RowView:
    """How a linear node reads a weight.

    It is right for a weight of a shape that the operator allows: a convolution's of rank 3 or more whose
    groups divide its channels, a matrix for Gemm, anything but a scalar for MatMul.

    Attributes:
        node: one of `OPS`.
        shape: of the weight.
        slot: the input it is; 0 only of a product.
    """

    node: Node
    shape: tuple[int, ...]
    slot: int = 1

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution, transposed or not."""
        return self.node.op_type in ("Conv", "ConvTranspose")

    @property
    def groups(self) -> int:
        """Groups of a convolution, by which its outputs and inputs are ordered; 1 for a product."""
        return int_attr(self.node, "group", 1) if self.is_conv else 1

    @property
    def by_row(self) -> bool:
        """Whether a product's weight has its outputs before what they sum over."""
        if self.node.op_type == "Gemm":
            return bool(int_attr(self.node, "transB" if self.slot else "transA", 0)) == bool(self.slot)
        return not self.slot or len(self.shape) == 1

    @property
    def outputs(self) -> int:
        """Rows; of a batch of matrices, those of one."""
        if self.is_conv:
            return self.shape[0] if self.node.op_type == "Conv" else self.shape[1] * self.groups
        return 1 if len(self.shape) == 1 else self.shape[-2 if self.by_row else -1]

    @property
    def inputs(self) -> int:
        """Channels that one row sums over."""
        if self.is_conv:
            return self.shape[1] if self.node.op_type == "Conv" else self.shape[0] // self.groups
        return self.shape[-1 if self.by_row else -2]

    @property
    def taps(self) -> int:
        """Places of a convolution's kernel; 1 for a product."""
        return prod(self.shape[2:]) if self.is_conv else 1

    @property
    def columns(self) -> int:
        """Weights of one row."""
        return self.inputs * self.taps

    @property
    def in_axis(self) -> int:
        """The axis of the other operand that is summed over, counted from its end."""
        if self.is_conv:
            return 1 - len(self.shape)
        if self.node.op_type == "Gemm":
            turned = bool(int_attr(self.node, "transA" if self.slot else "transB", 0))
            return -2 if turned == bool(self.slot) else -1
        return -1 if self.slot else -2

    def rows(self, array: Array) -> Array:
        """An array shaped as the weight, by output: ``[outputs, inputs, *kernel]``; a view where it can be.

        Of a product ``[outputs, *batch, inputs]``.
        """
        if self.node.op_type == "Conv":
            return array
        if self.node.op_type == "ConvTranspose":
            split = array.reshape(self.groups, self.inputs, self.shape[1], *self.shape[2:])
            return np.moveaxis(split, 1, 2).reshape(self.outputs, self.inputs, *self.shape[2:])
        return array[np.newaxis] if array.ndim == 1 else np.moveaxis(array, -2 if self.by_row else -1, 0)

    def back(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if self.node.op_type == "Conv":
            return rows.reshape(self.shape)
        if self.node.op_type == "ConvTranspose":
            split = rows.reshape(self.groups, self.shape[1], self.inputs, *self.shape[2:])
            return np.moveaxis(split, 1, 2).reshape(self.shape)
        return rows[0] if len(self.shape) == 1 else np.moveaxis(rows, 0, -2 if self.by_row else -1)

    def by_input(self, array: Array) -> Array:
        """The weights each input channel is multiplied by: ``[channels of the other operand, weights]``."""
        rows = self.rows(array)
        if self.is_conv:
            rows = np.moveaxis(rows.reshape(self.groups, -1, self.inputs, self.taps), 2, 1)
            return rows.reshape(self.groups * self.inputs, -1)
        return np.moveaxis(rows, -1, 0).reshape(self.inputs, -1)
