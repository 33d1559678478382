# SPDX-License-Identifier: Apache-2.0
"""The constants that linear operators multiply by, and what else reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import DataType, Model, Node, Rewriter, UsageError, Value, constant
from ...graph_ir.ops import (
    constant_tensor,
    has_reference_attribute,
    input_at,
    is_constant,
    is_op,
    label,
    rank,
    static_shape,
    walk_nodes,
)
from ...graph_ir.origins import origins
from ..linear.moves import MOVES
from ..linear.rows import OPS, RowView
from .masks import Pattern
from .sparse_rows import Positions, Use

_OTHERS = ("Einsum", "GRU", "LSTM", "RNN")
_MOVES = ("Cast", *MOVES)
_FLOATS = frozenset({DataType.BFLOAT16, DataType.FLOAT16, DataType.FLOAT, DataType.DOUBLE})


@dataclass(frozen=True, eq=False)
class Layer:
    """A constant that only linear nodes read.

    Attributes:
        root: the constant.
        shape: of the constant.
        uses: its readers, in graph order.
    """

    root: Value
    shape: tuple[int, ...]
    uses: tuple[Use, ...]

    @property
    def name(self) -> str:
        """Of the constant."""
        return self.root.name or ""

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    def array(self) -> NDArray[Any]:
        """The weights; not to be written into."""
        found = constant(self.root)
        assert found is not None
        return found

    def positions(self, use: int = 0) -> Positions:
        """The weights as one of the readers sums over them."""
        return self.uses[use].positions(self.shape)

    @property
    def row(self) -> int:
        """Weights in one row of the first reader."""
        return self.uses[0].read.columns

    def why_not_rows(self) -> str | None:
        """Why the constant has no one set of rows; None when all readers agree on them."""
        if len(self.uses) > 1:
            first = self.positions()
            for index, use in enumerate(self.uses[1:], 1):
                other = self.positions(index)
                if use.read.groups != self.uses[0].read.groups or not np.array_equal(first, other):
                    return (
                        f"{label(self.uses[0].node)!r} and {label(use.node)!r} sum over it in different ways"
                    )
        return None

    def why_not(self, pattern: Pattern) -> str | None:
        """Why the pattern cannot be laid along the input channels; None when it can."""
        if self.uses[0].read.inputs % pattern.of:
            return f"its {self.uses[0].read.inputs} input channels are no multiple of {pattern.of}"
        return self.why_not_rows()


@dataclass(frozen=True)
class Left:
    """A weight that was left dense.

    Attributes:
        node: label of a node that reads it.
        weight: name of the constant.
        reason: why.
    """

    node: str
    weight: str
    reason: str

    def __str__(self) -> str:
        return f"{self.weight!r} of {self.node!r} stays dense: {self.reason}"


def find_layers(model: Model, exclude: Sequence[str] = ()) -> tuple[list[Layer], list[Left]]:
    """The constants that may be made sparse, in order of their first readers, and those that may not.

    Weights behind Transpose, Reshape and the like of a constant are found; shapes must have been inferred.

    Args:
        model: all its graphs, bodies and functions are looked through.
        exclude: what to leave dense: globs over labels and origins of nodes and names of weights, or
            operators as ``op:Gemm``.

    Raises:
        UsageError: an `exclude` fits no weight.
    """
    found: dict[Value, list[Use]] = {}
    left: list[Left] = []
    barred: set[Value] = set()
    unused = dict.fromkeys(exclude)
    for node in walk_nodes(model):
        if is_op(node, *_OTHERS):
            left += _others(node)
            continue
        slot = _weight_slot(node)
        weight = None if slot is None else input_at(node, slot)
        if slot is None or weight is None:
            continue
        root, path = _climb(weight)
        use = Use(RowView(node, static_shape(weight) or (), slot), _other(node, slot), path)
        reason = _refuse(root, use)
        for pattern in [p for p in exclude if _fits(p, node, root)]:
            unused.pop(pattern, None)
            reason = reason or f"excluded by {pattern!r}"
        if reason is not None:
            barred.add(root)
            left.append(Left(label(node), root.name or "", reason))
        else:
            found.setdefault(root, []).append(use)
    for pattern in unused:
        raise UsageError(
            f"exclude {pattern!r} fits no Conv, ConvTranspose, Gemm or MatMul with a constant weight"
        )
    layers: list[Layer] = []
    for root, uses in found.items():
        if root in barred:  # by another reader, which told why
            continue
        stray = _stray(root, {use.node for use in uses})
        if stray is not None:
            left.append(Left(label(uses[0].node), root.name or "", stray))
        else:
            layers.append(Layer(root, static_shape(root) or (), tuple(uses)))
    return layers, left


def put_weights(layer: Layer, array: NDArray[Any], rewriter: Rewriter) -> None:
    """Replace a layer's constant by another array of the same shape and dtype, under the same name."""
    root = layer.root
    users = list(root.uses())
    producer = root.producer()
    near, name = users[0][0], layer.name
    if producer is None:
        for user, index in users:
            rewriter.set_input(user, index, None)
        rewriter.drop_initializer(root)
        made = rewriter.constant(array, name, near=near)
        for user, index in users:
            rewriter.set_input(user, index, made)
        return
    with rewriter.standing_for([producer]):
        rewriter.replace(root, rewriter.constant(array, name, near=producer))
        rewriter.erase(producer)


def _weight_slot(node: Node) -> int | None:
    """The input that is the weight: one that is computed from constants, where the other is not."""
    if not is_op(node, *OPS) or len(node.inputs) < 2:
        return None
    fixed = [_from_constants(node.inputs[i]) for i in (0, 1)]
    if not fixed[1] and fixed[0] and node.op_type == "MatMul":
        return 0
    return 1 if fixed[1] and not fixed[0] else None


def _from_constants(value: Value | None) -> bool:
    """Whether the value is a constant, a default, or what a few nodes make of those alone."""
    for _ in range(8):
        if value is None:
            return False
        if is_constant(value) or value.is_initializer():
            return True
        producer = value.producer()
        if producer is None or not all(v is None or _is_fixed(v) for v in producer.inputs[1:]):
            return False
        value = producer.inputs[0] if producer.inputs else None
    return False


def _is_fixed(value: Value) -> bool:
    return is_constant(value) or value.is_initializer()


def _other(node: Node, slot: int) -> Value:
    other = node.inputs[1 - slot]
    assert other is not None
    return other


def _climb(weight: Value) -> tuple[Value, tuple[Node, ...]]:
    """The first value up from the weight that is not merely moved, and the nodes in between."""
    path: list[Node] = []
    value = weight
    while not is_constant(value):
        node = value.producer()
        if not is_op(node, *_MOVES) or node is None or node.inputs[0] is None:
            break
        path.append(node)
        value = node.inputs[0]
    return value, tuple(reversed(path))


def _refuse(root: Value, use: Use) -> str | None:
    tensor = constant_tensor(root)
    if tensor is None:
        producer = root.producer()
        if producer is None:
            return "it is an input with a default, which the caller may override"
        if is_op(producer, "DequantizeLinear"):
            return "it is quantised; make it sparse before quantising"
        return f"it is computed by {label(producer)!r}; simplify the model first"
    if tensor.dtype not in _FLOATS:
        return f"it is of type {tensor.dtype.name}"
    if root.is_graph_output():
        return "it is an output of the model"
    for node in use.path:
        made = static_shape(node.outputs[0])
        if made is None or has_reference_attribute(node) or node.outputs[0].dtype not in _FLOATS:
            return f"what {label(node)!r} makes of it is not known"
    if has_reference_attribute(use.node):
        return "an attribute of its node is only known where the function is called"
    wanted = {"Conv": range(3, 9), "ConvTranspose": range(3, 9), "Gemm": (2,), "MatMul": range(1, 9)}
    shape = use.read.shape
    if len(shape) not in wanted[use.node.op_type] or 0 in shape:
        return f"its shape is {list(shape)}"
    return "its groups do not divide its channels" if shape[0] % use.read.groups else None


def _fits(pattern: str, node: Node, root: Value) -> bool:
    if pattern.startswith("op:"):
        return node.op_type == pattern.removeprefix("op:")
    return any(fnmatchcase(name, pattern) for name in (label(node), *origins(node), root.name or ""))


def _others(node: Node) -> list[Left]:
    reason = f"{node.op_type} is not made sparse"
    return [
        Left(label(node), value.name or "", reason)
        for value in node.inputs
        if value is not None and is_constant(value) and (rank(value) or 0) > 1
    ]


def _stray(root: Value, nodes: set[Node]) -> str | None:
    """Why the constant is not the linear nodes' alone."""
    below = [root]
    while below:
        value = below.pop()
        if value.is_graph_output():
            return "it is an output of the model"
        for user, index in value.uses():
            if user in nodes:
                if index > 1:
                    return f"it is also the bias of {label(user)!r}"
            elif index == 0 and is_op(user, *_MOVES):
                below.extend(user.outputs)
            else:
                return f"{label(user)!r} ({user.op_type}) reads it, too"
    return None
