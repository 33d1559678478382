# SPDX-License-Identifier: Apache-2.0
"""What rules have said of a model's nodes, as `spaces` and `atoms` make groups of it.

An axis is `(value, axis)`, weights' axes included, or `(node, -1 - k)` for an axis that belongs to no value
(the hidden units of an LSTM, the factors of a Reshape).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node, Value
from ..shapes import refined_shape

AxisKey: TypeAlias = tuple[Value | Node, int]
Positions: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Link:
    """Position `j` of `result` is position `indices[j]` of `source`."""

    source: AxisKey
    result: AxisKey
    indices: Positions


@dataclass(frozen=True, eq=False)
class Choice:
    """An axis that is the row-major product of factors: it can be cut through one of them only."""

    axis: AxisKey
    factors: tuple[AxisKey, ...]
    sizes: tuple[int, ...]

    def link(self, factor: int) -> Link:
        """How the axis hangs on one of its factors."""
        outer, inner = prod(self.sizes[:factor]), prod(self.sizes[factor + 1 :])
        return Link(self.factors[factor], self.axis, spread_indices(self.sizes[factor], outer, inner))


@dataclass(frozen=True, eq=False)
class Grouped:
    """A convolution in groups: input and output channels come in as many equal blocks as there are groups.

    See `Ties.grouped`.
    """

    inputs: AxisKey
    outputs: AxisKey
    groups: int
    weight_in: AxisKey | None
    own: bool


@dataclass
class Facts:
    """All that the rules said of a model's nodes, in the order of the nodes.

    Attributes:
        axes: every axis spoken of, with its size (None when it is not a known number), in order of mention.
        same: axes that are position for position the same.
        links: ties between axes of other shapes.
        choices: axes made of factors.
        grouped: convolutions in groups.
        pins: axes nothing may be removed from, with the first reason given.
        heads: axes that batch a product of two activations.
        producers: (axis, node) where the node makes what stands at the axis's positions.
        consumers: (axis, node) where the node sums over the axis.
        normalisers: (axis, node) where the node takes statistics over the axis.
    """

    axes: dict[AxisKey, int | None] = field(default_factory=dict[AxisKey, "int | None"])
    same: list[tuple[AxisKey, AxisKey]] = field(default_factory=list[tuple[AxisKey, AxisKey]])
    links: list[Link] = field(default_factory=list[Link])
    choices: list[Choice] = field(default_factory=list[Choice])
    grouped: list[Grouped] = field(default_factory=list[Grouped])
    pins: dict[AxisKey, str] = field(default_factory=dict[AxisKey, str])
    heads: list[AxisKey] = field(default_factory=list[AxisKey])
    producers: list[tuple[AxisKey, Node]] = field(default_factory=list[tuple[AxisKey, Node]])
    consumers: list[tuple[AxisKey, Node]] = field(default_factory=list[tuple[AxisKey, Node]])
    normalisers: list[tuple[AxisKey, Node]] = field(default_factory=list[tuple[AxisKey, Node]])
    _sizes: dict[Value, tuple[int | None, ...] | None] = field(
        default_factory=dict[Value, "tuple[int | None, ...] | None"]
    )

    def sizes(self, value: Value) -> tuple[int | None, ...] | None:
        """Sizes of a value's axes, None for one that is not a known number; None when the rank is unknown."""
        if value not in self._sizes:
            shape = refined_shape(value)  # asked for often: read once
            self._sizes[value] = (
                None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)
            )
        return self._sizes[value]


def spread_indices(size: int, outer: int, inner: int) -> Positions:
    """Which of `size` positions each of `outer * size * inner` belongs to."""
    return np.tile(np.repeat(np.arange(size, dtype=np.int64), inner), outer)
