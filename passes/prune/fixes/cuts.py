# SPDX-License-Identifier: Apache-2.0
"""What a fix works with: the masks, sizes before and after, and edits of attributes and shape operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import numpy as np

from ....analysis.shapes import refined_shape, symbolic_data
from ....graph_ir import Node, Rewriter, Value, VerifyError, constant
from ....graph_ir.ops import int_attr, label

if TYPE_CHECKING:
    from numpy.typing import NDArray

Mask: TypeAlias = "NDArray[np.bool_]"
Masks: TypeAlias = "Mapping[tuple[Value, int], Mask]"


class Cuts:
    """One application of masks to one model.

    Nodes are mended in graph order and before any weight is sliced: all values still have their old shapes,
    and shape arithmetic goes on computing the old sizes (`shapes.shape_of` sees to that).

    Args:
        rewriter: the door.
        masks: for every axis that loses positions, which stay; bool, as long as the axis.
    """

    def __init__(self, rewriter: Rewriter, masks: Masks) -> None:
        self.rw = rewriter
        self.masks = dict(masks)
        self._made: dict[tuple[object, ...], Value] = {}

    # -- looking ------------------------------------------------------------------------------------------

    def mask(self, value: Value | None, axis: int) -> Mask | None:
        """What stays of an axis (negative ones count from the end); None when all does."""
        if value is None:
            return None
        if axis < 0 and value.shape is not None:
            axis += len(value.shape)
        return self.masks.get((value, axis))

    def is_cut(self, value: Value | None) -> bool:
        """Whether any axis of the value loses positions."""
        return value is not None and any((value, i) in self.masks for i in range(len(value.shape or ())))

    def old(self, value: Value | None) -> tuple[int | None, ...]:
        """The sizes before; None for those that are no known number."""
        shape = None if value is None else refined_shape(value)
        return tuple(d if isinstance(d, int) else None for d in shape or ())

    def new(self, value: Value | None, axis: int) -> int | None:
        """The size of an axis after; None when it is no known number."""
        mask = self.mask(value, axis)
        if mask is not None:
            return int(np.count_nonzero(mask))
        sizes = self.old(value)
        return sizes[axis] if -len(sizes) <= axis < len(sizes) else None

    def size(self, node: Node, value: Value | None, axis: int) -> int:
        """`new`, where it must be known."""
        found = self.new(value, axis)
        if found is None:
            self.refuse(node, f"axis {axis} of {'' if value is None else value.name!r} has no known size")
        return found

    def axis(self, node: Node, default: int, name: str = "axis") -> int:
        """The node's axis attribute, counted from the front of its first input."""
        axis = int_attr(node, name, default)
        return axis + len(self.old(node.inputs[0])) if axis < 0 else axis

    def data(self, value: Value | None, width: int | None = None) -> list[int | None] | None:
        """Contents of a vector of integers, None for elements that are not known; None when nothing is."""
        known = None if value is None else symbolic_data(value)
        if known is None:
            return None if width is None else list[int | None]([None] * width)
        return [d if isinstance(d, int) else None for d in known]

    def refuse(self, node: Node, why: str) -> NoReturn:
        """Stop: the analysis should have pinned what cannot be mended here.

        Raises:
            VerifyError: always.
        """
        raise VerifyError(f"cannot cut channels at {node.op_type} {label(node)!r}: {why}")

    # -- editing ------------------------------------------------------------------------------------------

    def constant(self, node: Node, index: int, items: Sequence[int]) -> None:
        """Give a node a constant vector (int64, or the type the input had) as its input.

        Nodes of one graph that read one vector and get equal ones again share it, so that none is held twice.
        """
        old = node.inputs[index] if index < len(node.inputs) else None
        key = node.graph, old, tuple(items)
        made = None if old is None else self._made.get(key)
        if made is None:
            dtype = np.int64 if old is None or old.dtype is None else old.dtype.numpy()
            name = f"{node.outputs[0].name}_cut" if old is None else f"{old.name}_cut"
            with self.rw.standing_for([node]):
                made = self._made[key] = self.rw.constant(np.asarray(items, dtype=dtype), name, near=node)
        self._set(node, index, made)

    def write(self, node: Node, index: int, items: Mapping[int, int]) -> None:
        """Change elements of the vector a node reads, which may be computed.

        Args:
            node: the reader; others go on reading the old vector.
            index: which input.
            items: element to what it is now.
        """
        value = node.inputs[index]
        if not items or value is None:
            return
        known = constant(value)
        if known is not None:
            changed = known.reshape(-1).tolist()
            for i, item in items.items():
                changed[i] = item
            if changed != known.reshape(-1).tolist():
                self.constant(node, index, changed)
            return
        shape = self.old(value)
        if len(shape) != 1 or shape[0] is None:
            self.refuse(node, f"the length of {value.name!r} is not known")
        with self.rw.standing_for([node]):
            self._set(node, index, self.patched(value, shape[0], items, node))

    def patched(self, vector: Value, length: int, items: Mapping[int, int], before: Node) -> Value:
        """A vector with some elements replaced, computed in front of a node; a constant where all are.

        Call it inside `Rewriter.standing_for`.
        """
        dtype = np.int64 if vector.dtype is None else vector.dtype.numpy()
        name = f"{vector.name}_cut"
        if len(items) == length:
            whole = np.asarray([items[i] for i in range(length)], dtype=dtype)
            return self.rw.constant(whole, name, near=before)
        runs: list[tuple[bool, list[int]]] = []
        for i in range(length):
            if not runs or runs[-1][0] != (i in items):
                runs.append((i in items, []))
            runs[-1][1].append(i)
        parts: list[Value] = []
        for is_new, places in runs:
            if is_new:
                array = np.asarray([items[i] for i in places], dtype=dtype)
                parts.append(self.rw.constant(array, name, near=before))
            else:
                at = self.rw.constant(np.asarray(places, dtype=np.int64), f"{name}_at", near=before)
                kept = self.rw.node("Gather", [vector, at], {"axis": 0}, before=before, name=name)
                parts.append(kept.outputs[0])
        return self.rw.node("Concat", parts, {"axis": 0}, before=before, name=name).outputs[0]

    def replace(self, old: Value, new: Value) -> None:
        """Make every user read a value of the same size instead, which is cut as the old one was to be."""
        self.rw.replace(old, new)
        for value, axis in [key for key in self.masks if key[0] is old]:
            self.masks[new, axis] = self.masks.pop((value, axis))

    def set_attribute(self, node: Node, name: str, value: object) -> None:
        """Set an attribute, or remove it with None; does nothing when it is so already."""
        held = node.attributes.get(name)
        if (None if held is None else held.value) == value:
            return
        self.rw.set_attribute(node, name, value)

    def _set(self, node: Node, index: int, value: Value) -> None:
        while len(node.inputs) < index:
            self.rw.set_input(node, len(node.inputs), None)
        self.rw.set_input(node, index, value)


def blocks(mask: Mask, count: int) -> tuple[Mask | None, Mask | None]:
    """How an axis of `count` equal blocks is cut: (which whole blocks stay, which positions of each stay).

    One of the two is None; both are when the cut is neither.
    """
    if not count or len(mask) % count:
        return None, None
    rows = mask.reshape(count, -1)
    whole = np.logical_and.reduce(rows, axis=1)
    if np.array_equal(whole, np.logical_or.reduce(rows, axis=1)):
        return whole, None
    return None, rows[0] if np.array_equal(rows, np.broadcast_to(rows[0], rows.shape)) else None
