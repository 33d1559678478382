# SPDX-License-Identifier: Apache-2.0
"""Operators that a constant goes through on its way to its reader and that only move its elements."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node
from ...graph_ir.ops import ints_attr, static_shape

MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def moved(array: NDArray[Any], node: Node) -> NDArray[Any] | None:
    """What one of `MOVES` makes of an array, a view of it; None where the shape it gives is not known."""
    if node.op_type == "Identity":
        return array
    if node.op_type == "Transpose":
        return np.transpose(array, ints_attr(node, "perm"))
    shape = static_shape(node.outputs[0])
    return None if shape is None else array.reshape(shape)


def positions(shape: tuple[int, ...], path: Iterable[Node]) -> NDArray[np.int64]:
    """Where each element lies in the flattened constant it comes from, shaped as the last value.

    Args:
        shape: of the constant.
        path: what it goes through, first to last: `MOVES`, whose results' shapes are known, and Cast.
    """
    index = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    for node in path:
        made = index if node.op_type == "Cast" else moved(index, node)
        assert made is not None
        index = made
    return index
