# SPDX-License-Identifier: Apache-2.0
"""Weights that reach their reader through a few operators: transposed, cast, dequantised, reshaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ....graph_ir import Node, Value, constant, is_constant
from ....graph_ir.ops import int_attr, is_op
from ....passes.linear.moves import MOVES, moved, positions

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_CASTS = ("Cast", "DequantizeLinear")


def is_computed_constant(value: Value | None) -> bool:
    """Whether the value is a constant, or made from constants by operators that `computed` knows."""
    chain = _chain(value)
    return chain is not None


def moved_only(value: Value | None) -> bool:
    """Whether the value is a constant whose elements were at most moved, neither cast nor dequantised."""
    chain = _chain(value)
    return chain is not None and not any(is_op(node, *_CASTS) for node in chain)


def _chain(value: Value | None) -> list[Node] | None:
    """The nodes between the stored weight and the value, last first; None when it is not constant."""
    nodes: list[Node] = []
    while not is_constant(value):
        node = None if value is None else value.producer()
        if not is_op(node, *MOVES, *_CASTS):
            return None
        assert node is not None
        if any(given is not None and not is_constant(given) for given in node.inputs[1:]):
            return None
        nodes.append(node)
        value = node.inputs[0]
    return nodes


def computed(value: Value) -> NDArray[Any] | None:
    """The array a constant value holds where it is read; float where it is cast or dequantised.

    None when it is not constant or holds what numpy cannot. Moves give views of the stored weight.
    """
    nodes = _chain(value)
    if nodes is None:
        return None
    array = constant(nodes[-1].inputs[0] if nodes else value)
    for node in reversed(nodes):
        if array is None:
            return None
        array = _applied(node, array)
    return array


def _applied(node: Node, array: NDArray[Any]) -> NDArray[Any] | None:
    if node.op_type == "Cast":
        # What the number is, not how exactly it is kept, is asked here.
        return array.astype(np.float32) if array.dtype.kind in "fiuV" else None
    if node.op_type == "DequantizeLinear":
        return _dequantized(node, array)
    return moved(array, node)


def _dequantized(node: Node, array: NDArray[Any]) -> NDArray[Any] | None:
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scale is None or int_attr(node, "block_size", 0):
        return None
    axis = int_attr(node, "axis", 1) % max(array.ndim, 1)

    def spread(parameter: NDArray[Any]) -> NDArray[np.float32]:
        flat = parameter.astype(np.float32).reshape(-1)
        return flat if flat.size == 1 else flat.reshape([-1 if i == axis else 1 for i in range(array.ndim)])

    shifted = array.astype(np.float32)
    if zero is not None:
        shifted = shifted - spread(zero)
    return np.asarray(shifted * spread(scale))


def stored(value: Value, array: NDArray[Any]) -> tuple[Value, NDArray[Any]]:
    """The weight a moved constant comes from, and the data it must have for the value to hold `array`.

    Args:
        value: one for which `moved_only` holds.
        array: of the value's shape.
    """
    nodes = _chain(value) or []
    root = nodes[-1].inputs[0] if nodes else value
    held = constant(root)
    assert root is not None
    assert held is not None
    data = np.empty(held.size, array.dtype)
    data[positions(held.shape, reversed(nodes))] = array
    return root, data.reshape(held.shape)
