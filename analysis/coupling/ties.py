# SPDX-License-Identifier: Apache-2.0
"""What the rules say of nodes: which positions of which axes can only be removed together.

Rules speak through `Ties`; everything lands in `Facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ...graph_ir import Node, Value
from .facts import AxisKey, Choice, Facts, Grouped, Link, Positions, spread_indices


class Ties:
    """What the rule of one node may say.

    A rule speaks of every axis of every input and output that is longer than 1; the core pins what it is
    silent about. Axes of unknown size may be named freely: they end up pinned.

    Args:
        node: the node spoken of.
        opset: version of the node's domain in force.
        facts: what is said is added here.
    """

    def __init__(self, node: Node, opset: int, facts: Facts) -> None:
        self.node = node
        self.opset = opset
        self.facts = facts
        self._spoken: set[AxisKey] = set()

    # -- looking ------------------------------------------------------------------------------------------

    def rank(self, value: Value | None) -> int | None:
        """The value's rank; None when unknown or the value is absent."""
        sizes = None if value is None else self.facts.sizes(value)
        return None if sizes is None else len(sizes)

    def size(self, axis: AxisKey) -> int | None:
        """Number of positions; None when symbolic or unknown."""
        holder, index = axis
        if not isinstance(holder, Value):
            return self.facts.axes.get(axis)
        sizes = self.facts.sizes(holder)
        return sizes[index] if sizes is not None and 0 <= index < len(sizes) else None

    def axis(self, value: Value, axis: int) -> AxisKey:
        """An axis of a value of known rank; negative numbers count from the end."""
        return (value, axis + (self.rank(value) or 0) if axis < 0 else axis)

    def axes(self, value: Value) -> list[AxisKey]:
        """All axes of a value; none when its rank is unknown."""
        return [(value, i) for i in range(self.rank(value) or 0)]

    # -- saying -------------------------------------------------------------------------------------------

    def same(self, *axes: AxisKey) -> None:
        """Position i of each is one thing; axes of unequal size pin each other."""
        self._mention(axes)
        if len({self.size(a) for a in axes}) > 1:
            for axis in axes:
                self.pin(axis, f"{self.node.op_type} joins it with an axis of another size")
        self.facts.same += [(axes[0], other) for other in axes[1:]]

    def produces(self, *axes: AxisKey) -> None:
        """`same`, and the node makes what stands at these positions (output, weight rows, bias)."""
        self.same(*axes)
        self.facts.producers.append((axes[0], self.node))

    def contracts(self, *axes: AxisKey) -> None:
        """`same`, and the node sums over these positions: exact to cut where they hold zero."""
        self.same(*axes)
        self.facts.consumers.append((axes[0], self.node))

    def normalises(self, axis: AxisKey) -> None:
        """The axis may be cut, but the node takes statistics over it, which are then of what is left."""
        self._mention((axis,))
        self.facts.normalisers.append((axis, self.node))

    def part(self, whole: AxisKey, part: AxisKey, start: int) -> None:
        """`part[i]` is `whole[start + i]` (Concat, Split, Slice, Pad)."""
        size = self.size(part)
        if size is None:
            self._give_up((whole, part), "is of unknown size where tensors are joined or cut")
            return
        self._link(whole, part, np.arange(start, start + size, dtype=np.int64))

    def pick(self, source: AxisKey, result: AxisKey, indices: Positions) -> None:
        """`result[j]` is `source[indices[j]]` (Gather by constants); indices are not negative."""
        self._link(source, result, indices)

    def spread(self, narrow: AxisKey, wide: AxisKey, outer: int, inner: int) -> None:
        """`wide[(o * n + i) * inner + k]` belongs to `narrow[i]` for every o < outer and k < inner."""
        size = self.size(narrow)
        if size is None:
            self._give_up((narrow, wide), "is of unknown size where it is repeated")
            return
        self._link(narrow, wide, spread_indices(size, outer, inner))

    def virtual(self, key: int, size: int | None) -> AxisKey:
        """An axis of the node that belongs to no value; key >= 0 tells several apart."""
        axis: AxisKey = (self.node, -1 - key)
        self.facts.axes[axis] = size
        self._spoken.add(axis)
        return axis

    def regroup(
        self, sizes: Sequence[int | None], axes: Sequence[tuple[AxisKey, tuple[int, ...]]], first_key: int = 0
    ) -> list[AxisKey]:
        """Axes that are row-major products of shared factors (Reshape, Flatten, DepthToSpace).

        Args:
            sizes: of the factors; None for one that is not a known number.
            axes: each axis with the factors it is the product of, outermost first.
            first_key: the virtual axes of the factors get keys from here on.

        Returns:
            The virtual axes of the factors.
        """
        factors = [self.virtual(first_key + k, size) for k, size in enumerate(sizes)]
        for axis, ids in axes:
            told = [i for i in ids if sizes[i] != 1]
            if not told:
                self._mention((axis,))
            elif len(told) == 1:
                self.same(axis, factors[told[0]])
            else:
                self._mention((axis,))
                known = [s for i in told if (s := sizes[i]) is not None]
                if len(known) < len(told):
                    self._give_up((axis, *(factors[i] for i in told)), "is of unknown size where reshaped")
                    continue
                self.facts.choices.append(Choice(axis, tuple(factors[i] for i in told), tuple(known)))
        return factors

    def grouped(
        self,
        inputs: AxisKey,
        outputs: AxisKey,
        groups: int,
        weight_in: AxisKey | None,
        *,
        own: bool = False,
    ) -> None:
        """A convolution of more than one group, not depthwise on both sides.

        Whole groups go, a block of inputs with its block of outputs; where that hangs everything together,
        the same relative positions go in every group, and where that does, too, equally many.

        Args:
            inputs: axis of all input channels.
            outputs: axis of all output channels.
            groups: how many; divides both.
            weight_in: the weight's axis that holds the channels of one group, None when it holds one only.
            own: its weight is a constant of its own, so each group's columns can be put in another order.
        """
        self._mention((inputs, outputs))
        if weight_in is not None:
            self._mention((weight_in,))
        sizes = self.size(inputs), self.size(outputs)
        if any(s is None or s % groups for s in sizes):
            self._give_up((inputs, outputs), "does not divide into the groups of a convolution")
            return
        self.facts.grouped.append(Grouped(inputs, outputs, groups, weight_in, own))

    def heads(self, axis: AxisKey) -> None:
        """The axis batches a product of two activations: where a Reshape has a choice, it is cut first."""
        self._mention((axis,))
        self.facts.heads.append(axis)

    def free(self, *axes: AxisKey) -> None:
        """Nothing in this node stands against cutting these axes (the pass that cuts mends their size)."""
        self._mention(axes)

    def pin(self, axis: AxisKey, reason: str) -> None:
        """Nothing may be removed from the axis."""
        self._mention((axis,))
        self.facts.pins.setdefault(axis, reason)

    def pin_value(self, value: Value | None, reason: str) -> None:
        """Nothing may be removed from any axis of the value."""
        if value is not None:
            for axis in self.axes(value):
                self.pin(axis, reason)

    def pin_node(self, reason: str) -> None:
        """Nothing may be removed from any input or output of the node."""
        for value in (*self.node.inputs, *self.node.outputs):
            self.pin_value(value, reason)

    # -- the core's side ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Pin the axes the rule said nothing of."""
        for value in (*self.node.inputs, *self.node.outputs):
            sizes = None if value is None else self.facts.sizes(value)
            if value is None or sizes is None:
                continue
            for index, size in enumerate(sizes):
                if size != 1 and (value, index) not in self._spoken:
                    self.pin((value, index), f"nothing is known of this axis of {self.node.op_type}")

    def _mention(self, axes: Sequence[AxisKey]) -> None:
        for axis in axes:
            self._spoken.add(axis)
            if axis not in self.facts.axes:
                self.facts.axes[axis] = self.size(axis)

    def _give_up(self, axes: Sequence[AxisKey], reason: str) -> None:
        for axis in axes:
            self.pin(axis, reason)

    def _link(self, source: AxisKey, result: AxisKey, indices: Positions) -> None:
        self._mention((source, result))
        size = self.size(source)
        if size is None or self.size(result) != len(indices) or (len(indices) and indices.max() >= size):
            self._give_up((source, result), f"does not fit its counterpart in {self.node.op_type}")
            return
        self.facts.links.append(Link(source, result, indices))


Rule: TypeAlias = Callable[[Ties], None]
