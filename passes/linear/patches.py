# SPDX-License-Identifier: Apache-2.0
"""The rows of inputs that the rows of a weight are multiplied by, and their second moments."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...graph_ir.ops import ints_attr, string_attr
from .rows import RowView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = "NDArray[Any]"
    Wide: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Patches:
    """How rows are cut out of a value.

    Attributes:
        value: name of the value.
        columns: what one row of weights sums over.
        group: groups of a convolution.
        axis: the one whose elements make a row, where there is no kernel.
        kernel: the spatial size of a convolution's; empty for all else.
        strides: one per spatial axis.
        dilations: likewise.
        pads: before and behind each spatial axis; zeros with `auto_pad`.
        auto_pad: as the operator has it.
    """

    value: str
    columns: int
    group: int = 1
    axis: int = -1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    auto_pad: str = "NOTSET"

    @property
    def size(self) -> int:
        """Bytes of the second moments."""
        return self.group * self.columns * self.columns * 8

    def rows(self, array: Array, most: int | None, rng: np.random.Generator) -> Wide:
        """At most so many rows of one feed, drawn without repetition: float64 [group, rows, columns].

        Raises:
            ValueError: when the array does not fit.
        """
        count = self._count(array)
        if most is None or count <= most:
            return self.at(array, np.arange(count))
        return self.at(array, np.sort(rng.choice(count, most, replace=False)))

    def at(self, array: Array, places: NDArray[np.int64]) -> Wide:
        """The rows at some places of the output: float64 [group, places, columns].

        Args:
            array: of one feed.
            places: flat indices into the output without its channels; ascending, each once.
        """
        if not self.kernel:
            moved = np.moveaxis(array, self._along(array), -1).reshape(-1, self.group * self.columns)
            flat = (moved if len(places) == len(moved) else moved[places]).astype(np.float64)
            return np.moveaxis(flat.reshape(-1, self.group, self.columns), 1, 0)
        padded = np.pad(np.moveaxis(array, 1, -1), ((0, 0), *self._pads(array.shape[2:]), (0, 0)))
        batch, *corner = np.unravel_index(places, (array.shape[0], *self._places(array.shape[2:])))
        window: list[Array] = [batch.reshape(-1, *[1] * len(self.kernel))]
        for axis, at in enumerate(corner):
            inside = np.arange(self.kernel[axis]) * self.dilations[axis]
            shape = [-1 if i == axis else 1 for i in range(len(self.kernel))]
            first = (at * self.strides[axis]).reshape(-1, *[1] * len(self.kernel))
            window.append(first + inside.reshape(1, *shape))
        cut: Wide = np.moveaxis(padded[tuple(window)], -1, 1).astype(np.float64)
        return np.moveaxis(cut.reshape(len(places), self.group, self.columns), 1, 0)

    def _along(self, array: Array) -> int:
        """The axis, of a vector its only one."""
        return self.axis if array.ndim > 1 else -1

    def _count(self, array: Array) -> int:
        width = self.group * self.columns
        if not self.kernel:
            if array.ndim < 1 or array.shape[self._along(array)] != width:
                raise ValueError(f"its axis {self.axis} is not {width} long")
            return array.size // width
        if array.ndim != len(self.kernel) + 2 or array.shape[1] * prod(self.kernel) != width:
            raise ValueError("it is not shaped as the convolution's input")
        return array.shape[0] * prod(self._places(array.shape[2:]))

    def _places(self, sizes: tuple[int, ...]) -> list[int]:
        """The spatial size of the output."""
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        padded = [size + sum(pads) for size, pads in zip(sizes, self._pads(sizes), strict=True)]
        return [max(0, (p - r) // s + 1) for p, r, s in zip(padded, reach, self.strides, strict=True)]

    def _pads(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        if not self.auto_pad.startswith("SAME"):
            return self.pads
        found: list[tuple[int, int]] = []
        for size, k, s, d in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small = total // 2
            found.append((total - small, small) if self.auto_pad == "SAME_LOWER" else (small, total - small))
        return tuple(found)


def patches(read: RowView, value: str) -> Patches:
    """How rows are cut out of the value that a node multiplies a weight with.

    A ConvTranspose spreads each place of its input: a row has the channels there, and all taps read the same.
    """
    if read.node.op_type != "Conv":
        return Patches(value, read.inputs, read.groups, read.in_axis)
    kernel = read.shape[2:]
    ones = [1] * len(kernel)
    auto_pad = string_attr(read.node, "auto_pad", "NOTSET")
    given = ints_attr(read.node, "pads") if auto_pad == "NOTSET" else None
    pads = given or [0] * (2 * len(kernel))
    return Patches(
        value,
        read.columns,
        read.groups,
        kernel=kernel,
        strides=tuple(ints_attr(read.node, "strides") or ones),
        dilations=tuple(ints_attr(read.node, "dilations") or ones),
        pads=tuple(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)),
        auto_pad=auto_pad,
    )


@dataclass
class Moments:
    """Sums over rows.

    Attributes:
        count: how many.
        total: the rows, [group, columns].
        squares: of their elements, [group, columns].
        outer: their outer products, [group, columns, columns]; None where only squares are kept.
    """

    count: int
    total: Wide
    squares: Wide
    outer: Wide | None

    @classmethod
    def empty(cls, patches: Patches, *, between: bool = True) -> Moments:
        """Of no rows; `between`: keep the products of columns."""
        shape = (patches.group, patches.columns)
        outer = np.zeros((*shape, patches.columns)) if between else None
        return cls(0, np.zeros(shape), np.zeros(shape), outer)

    def add(self, rows: Wide) -> None:
        """Take in rows of shape [group, rows, columns]."""
        self.count += rows.shape[1]
        self.total += rows.sum(axis=1)
        self.squares += np.einsum("gnc,gnc->gc", rows, rows)
        if self.outer is not None:
            self.outer += rows.transpose(0, 2, 1) @ rows

    def mean(self) -> Wide:
        """E[x]: [group, columns]."""
        return self.total / max(1, self.count)

    def power(self) -> Wide:
        """E[x^2] of each column: [group, columns]."""
        return self.squares / max(1, self.count)

    def variance(self) -> Wide:
        """Of each column: [group, columns]."""
        mean = self.mean()
        return np.maximum(self.power() - mean * mean, 0.0)

    def covariance(self) -> Wide:
        """E[x x'] - E[x] E[x]': [group, columns, columns]; of moments with products."""
        mean = self.mean()
        found = self._products()
        found -= mean[:, :, None] * mean[:, None, :]
        return found

    def hessian(self, *, centered: bool) -> Wide:
        """E[x x'], or the covariance where a bias takes the mean: [group, columns, columns].

        What is off the diagonal is shrunk by rows / (rows + columns): of few rows it is mostly chance, and
        weights fitted to that are worse on other data than the nearest ones.
        """
        found = self.covariance() if centered else self._products()
        index = list(range(found.shape[1]))
        diagonal = found[:, index, index]
        found *= self.count / (self.count + len(index))
        found[:, index, index] = diagonal
        return found

    def _products(self) -> Wide:
        assert self.outer is not None
        return self.outer / max(1, self.count)
