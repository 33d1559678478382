# SPDX-License-Identifier: Apache-2.0
"""A constant weight as a linear operator reads it: rows of what one output sums over."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node, Value
from ...graph_ir.ops import int_attr, ints_attr, static_shape

Positions = NDArray[np.int64]
"""Where each weight lies in the flattened constant: ``[rows, taps, inputs]``; a row sums over the rest."""


@dataclass(frozen=True, eq=False)
class Use:
    """One linear node that reads a constant.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        x: the other operand.
        path: what lies between the constant and the node, first to last; nothing there computes.
        shape: of the weight as the node reads it.
        on_left: whether it is MatMul(weight, x).
    """

    node: Node
    x: Value
    path: tuple[Node, ...]
    shape: tuple[int, ...]
    on_left: bool

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a product. Rows come group by group."""
        return int_attr(self.node, "group", 1) if self.node.op_type in ("Conv", "ConvTranspose") else 1

    @property
    def inputs(self) -> int:
        """Channels that one row sums over."""
        kind, shape = self.node.op_type, self.shape
        if kind == "Conv":
            return shape[1]
        if kind == "ConvTranspose":
            return shape[0] // self.groups
        if kind == "Gemm":
            return shape[1] if int_attr(self.node, "transB", 0) else shape[0]
        return shape[-1] if self.on_left or len(shape) == 1 else shape[-2]

    @property
    def row(self) -> int:
        """Weights that one row has: channels times places of the kernel."""
        taps = self.shape[2:] if self.node.op_type in ("Conv", "ConvTranspose") else ()
        return self.inputs * prod(taps)

    def positions(self, shape: tuple[int, ...]) -> Positions:
        """Rows of a constant of this shape; taps are the places of a convolution's kernel."""
        index = np.arange(prod(shape), dtype=np.int64).reshape(shape)
        for node in self.path:
            index = _moved(index, node)
        kind, inputs = self.node.op_type, self.inputs
        if kind == "Conv":
            return np.moveaxis(index, 1, -1).reshape(self.shape[0], -1, inputs)
        if kind == "ConvTranspose":
            blocks = index.reshape(self.groups, inputs, self.shape[1], -1)
            return np.transpose(blocks, (0, 2, 3, 1)).reshape(self.groups * self.shape[1], -1, inputs)
        by_row = int_attr(self.node, "transB", 0) if kind == "Gemm" else self.on_left or index.ndim == 1
        if not by_row:
            return np.moveaxis(index, -1, -2).reshape(-1, 1, inputs)
        return index.reshape(-1, 1, inputs)


def _moved(index: NDArray[Any], node: Node) -> NDArray[Any]:
    if node.op_type == "Transpose":
        return np.transpose(index, ints_attr(node, "perm"))
    return index.reshape(static_shape(node.outputs[0]) or ())
