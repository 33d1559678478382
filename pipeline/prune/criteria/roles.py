# SPDX-License-Identifier: Apache-2.0
"""Which weights of a group make its channels, read them, or merely scale and shift them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ....graph_ir import Node, Value
from ....graph_ir.ops import int_attr, is_op
from .constants import computed, is_computed_constant

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from ....analysis.coupling import Group

Role = Literal["out", "in", "bias", "gamma", "beta", "other"]

_NORMS = (
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
)
_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, eq=False)
class WeightSlice:
    """One axis of one weight, as one node reads it.

    Attributes:
        node: the reader.
        value: what it reads.
        array: the weight in the layout and type the node sees (behind Transpose, Cast, DequantizeLinear...).
        axis: the axis that lives in the group.
        atom_of: ``[array.shape[axis]]``, the atom at each position, -1 for none of this group.
        atoms: of the group.
        role: "out" (rows that make the channel), "in" (columns that read it), "bias", "gamma", "beta",
            "other" (depthwise filters, slopes, running statistics).
    """

    node: Node
    value: Value
    array: NDArray[Any]
    axis: int
    atom_of: NDArray[np.int32]
    atoms: int
    role: Role

    def rows(self) -> NDArray[np.float64]:
        """All numbers of each atom, ``[atoms, numbers]``; padded with zeros where atoms differ in size."""
        return gathered(np.moveaxis(self.array, self.axis, 0), self.atom_of, self.atoms)


def gathered(array: NDArray[Any], atom_of: NDArray[np.int32], atoms: int) -> NDArray[np.float64]:
    """Numbers of each atom along the first axis of an array; ``[atoms, positions * rest]`` float64."""
    rows = array.reshape(array.shape[0], -1)
    positions = np.flatnonzero(atom_of >= 0)
    owners = atom_of[positions]
    order = np.argsort(owners, kind="stable")
    counts = np.bincount(owners, minlength=atoms)
    widest = int(counts.max(initial=0))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    within = np.arange(owners.size) - np.repeat(starts, counts)
    found = np.zeros((atoms, widest, rows.shape[1]))
    found[owners[order], within] = rows[positions[order]]
    return found.reshape(atoms, -1)


def slices(group: Group) -> list[WeightSlice]:
    """Every constant that a node of the model reads along an axis of the group, with its role.

    A weight that two nodes read comes once per node. A weight whose both axes live in the group (a residual
    stream's convolution) comes once per axis.
    """
    values = {axis.value for axis in group.axes}
    found: list[WeightSlice] = []
    for axis in group.axes:
        if not is_computed_constant(axis.value):
            continue
        readers = [(node, i) for node, i in axis.value.uses() if not is_computed_constant(node.outputs[0])]
        if not readers or (array := computed(axis.value)) is None:
            continue
        for node, index in readers:
            role = _role(group, node, index, axis.axis, array.ndim, values)
            found.append(WeightSlice(node, axis.value, array, axis.axis, axis.atom_of, group.atoms, role))
    return found


def _role(group: Group, node: Node, index: int, axis: int, ndim: int, values: set[Value]) -> Role:
    if is_op(node, *_NORMS):
        return {1: "gamma", 2: "beta"}.get(index, "other")  # pyright: ignore[reportReturnType]
    if is_op(node, "Conv", "ConvTranspose"):
        if index == 2:
            return "bias"
        if _passes_on(node, values):
            return "other"
        return "out" if axis == (0 if node.op_type == "Conv" else 1) else "in"
    if is_op(node, "Gemm"):
        if index == 2:
            return "bias"
        turned = int_attr(node, "transA" if index == 0 else "transB", 0)
        summed = (0 if turned else 1) if index == 0 else (1 if turned else 0)
        return "in" if axis == summed else "out"
    if is_op(node, "MatMul"):
        summed = ndim - (1 if index == 0 else 2)
        return "in" if axis == max(summed, 0) else "out"
    if is_op(node, *_RECURRENT) and index in (1, 2):
        return "out" if axis == 1 else "in"
    if is_op(node, "Add", "Sub"):
        return "beta"
    makes, reads = node in group.producers, node in group.consumers
    if makes != reads:
        return "out" if makes else "in"
    return "other"


def _passes_on(node: Node, values: set[Value]) -> bool:
    """Whether the convolution passes its channels on one by one, so that input and output are one group."""
    groups = int_attr(node, "group", 1)
    return groups > 1 and node.inputs[0] in values and node.outputs[0] in values
