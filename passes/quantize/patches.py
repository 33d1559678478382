# SPDX-License-Identifier: Apache-2.0
"""The rows of inputs that a linear node multiplies its weights with, and their second moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...graph_ir import Model, Node, constant
from ...graph_ir.ops import has_reference_attribute, int_attr, ints_attr, is_op, string_attr
from .kinds import LINEAR, refuse_linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = "NDArray[Any]"


@dataclass(frozen=True)
class Patches:
    """How rows are cut out of a value.

    Attributes:
        value: name of the value.
        columns: what one row of weights sums over.
        group: groups of a convolution.
        kernel: its spatial size; empty for a product, whose rows are the value's last axis.
        strides: one per spatial axis.
        dilations: likewise.
        pads: before and behind each spatial axis; empty with `auto_pad`.
        auto_pad: as the operator has it.
    """

    value: str
    columns: int
    group: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    auto_pad: str = "NOTSET"

    @property
    def size(self) -> int:
        """Bytes of the second moments."""
        return self.group * self.columns * self.columns * 8

    def rows(self, array: Array, most: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """At most so many rows of one feed, drawn without repetition: float64 [group, rows, columns].

        Raises:
            ValueError: when the array does not fit.
        """
        if not self.kernel:
            if array.ndim < 1 or array.shape[-1] != self.columns:
                raise ValueError(f"its last axis is not {self.columns} long")
            flat = array.reshape(-1, self.columns)
            return flat[_drawn(len(flat), most, rng)].astype(np.float64)[None]
        if (
            array.ndim != len(self.kernel) + 2
            or array.shape[1] * _size(self.kernel) != self.columns * self.group
        ):
            raise ValueError("it is not shaped as the convolution's input")
        pads = self._pads(array.shape[2:])
        padded = np.pad(np.moveaxis(array, 1, -1), ((0, 0), *pads, (0, 0)))
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        places = [
            max(0, (size - r) // s + 1)
            for size, r, s in zip(padded.shape[1:-1], reach, self.strides, strict=True)
        ]
        drawn = _drawn(array.shape[0] * _size(places), most, rng)
        batch, *corner = np.unravel_index(drawn, (array.shape[0], *places))
        window: list[Array] = [batch.reshape(-1, *[1] * len(self.kernel))]
        for axis, at in enumerate(corner):
            inside = np.arange(self.kernel[axis]) * self.dilations[axis]
            shape = [-1 if i == axis else 1 for i in range(len(self.kernel))]
            first = (at * self.strides[axis]).reshape(-1, *[1] * len(self.kernel))
            window.append(first + inside.reshape(1, *shape))
        cut: NDArray[np.float64] = np.moveaxis(padded[tuple(window)], -1, 1).astype(np.float64)
        return np.moveaxis(cut.reshape(len(drawn), self.group, self.columns), 1, 0)

    def _pads(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        if self.auto_pad in ("NOTSET", "VALID"):
            return self.pads
        found: list[tuple[int, int]] = []
        for size, k, s, d in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            small = total // 2
            found.append((total - small, small) if self.auto_pad == "SAME_LOWER" else (small, total - small))
        return tuple(found)


@dataclass
class Moments:
    """Sums over rows: how many, the rows [group, columns], their outer products [group, columns, columns]."""

    count: int
    total: NDArray[np.float64]
    outer: NDArray[np.float64]

    @classmethod
    def empty(cls, patches: Patches) -> Moments:
        """Of no rows."""
        shape = (patches.group, patches.columns)
        return cls(0, np.zeros(shape), np.zeros((*shape, patches.columns)))

    def add(self, rows: NDArray[np.float64]) -> None:
        """Take in rows of shape [group, rows, columns]."""
        self.count += rows.shape[1]
        self.total += rows.sum(axis=1)
        self.outer += rows.transpose(0, 2, 1) @ rows

    def hessian(self, *, centered: bool) -> NDArray[np.float64]:
        """E[x x'], or the covariance where a bias takes the mean: [group, columns, columns].

        What is off the diagonal is shrunk by rows / (rows + columns): of few rows it is mostly chance, and
        weights fitted to that are worse on other data than the nearest ones.
        """
        found = self.outer / max(1, self.count)
        if centered:
            mean = self.mean()
            found -= mean[:, :, None] * mean[:, None, :]
        index = list(range(found.shape[1]))
        diagonal = found[:, index, index]
        found *= self.count / (self.count + len(index))
        found[:, index, index] = diagonal
        return found

    def mean(self) -> NDArray[np.float64]:
        """E[x]: [group, columns]."""
        return self.total / max(1, self.count)


def patches_of(node: Node) -> Patches | None:
    """How the rows of a Conv, Gemm or MatMul are cut; None when it is not known or it is none."""
    if not is_op(node, *LINEAR) or has_reference_attribute(node) or refuse_linear(node) is not None:
        return None
    x, weights = node.inputs[0], constant(node.inputs[1])
    if x is None or not x.name or weights is None:
        return None
    if node.op_type != "Conv":
        return Patches(x.name, weights.shape[1] if int_attr(node, "transB", 0) else weights.shape[0])
    kernel = weights.shape[2:]
    ones = [1] * len(kernel)
    pads = ints_attr(node, "pads") or [0] * (2 * len(kernel))
    return Patches(
        x.name,
        int(np.prod(weights.shape[1:])),
        int_attr(node, "group", 1),
        tuple(kernel),
        tuple(ints_attr(node, "strides") or ones),
        tuple(ints_attr(node, "dilations") or ones),
        tuple(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)),
        string_attr(node, "auto_pad", "NOTSET"),
    )


def patches_to_observe(model: Model, *, most_columns: int = 4096, budget: int = 1 << 30) -> list[Patches]:
    """The patches of the linear nodes of the main graph, each once, in graph order.

    Args:
        model: not changed.
        most_columns: wider rows are left out.
        budget: bytes of all second moments together; what would pass it is left out.
    """
    found: dict[Patches, None] = {}
    room = budget
    for node in model.graph:
        patches = patches_of(node)
        if patches is None or patches in found or patches.columns > most_columns or patches.size > room:
            continue
        found[patches] = None
        room -= patches.size
    return list(found)


def rounding_work(model: Model) -> int:
    """Multiplications of one sweep of rounding by second moments over all weights of the main graph."""
    total = 0
    for node in model.graph:
        weights = None if (patches := patches_of(node)) is None else constant(node.inputs[1])
        if patches is not None and weights is not None:
            total += int(weights.size) * patches.columns
    return total


def _drawn(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def _size(shape: tuple[int, ...] | list[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
