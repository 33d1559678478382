# SPDX-License-Identifier: Apache-2.0
"""Sums of products of the sizes of axes, as functions of how many atoms each group keeps.

The size of an axis is linear in the numbers of kept atoms; sums are evaluated with a few numpy calls,
whatever the number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...analysis.cost import Branches
from ...graph_ir import Node, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling

Axis: TypeAlias = "tuple[Value, int]"
Product: TypeAlias = "list[Axis]"


@dataclass
class Axes:
    """Sizes of the axes that groups live in, as linear functions of the numbers of kept atoms.

    Args:
        coupling: its groups number the unknowns, in order.
    """

    coupling: Coupling
    index: dict[Axis, int] = field(default_factory=dict["Axis", int])

    def __post_init__(self) -> None:
        rows: list[int] = []
        groups: list[int] = []
        counts: list[float] = []
        sizes: list[int] = []
        fixed: list[float] = []
        for number, group in enumerate(self.coupling.groups):
            counted: dict[int, int] = {}  # axes of one space share their array
            for axis in group.axes:
                key = (axis.value, axis.axis)
                row = self.index.setdefault(key, len(self.index))
                if row == len(sizes):
                    sizes.append(axis.atom_of.size)
                    fixed.append(float(axis.atom_of.size))
                taken = counted.get(id(axis.atom_of))
                if taken is None:
                    taken = counted[id(axis.atom_of)] = int(np.count_nonzero(axis.atom_of >= 0))
                fixed[row] -= taken
                rows.append(row)
                groups.append(number)
                counts.append(taken / group.atoms)
        self._rows = np.array(rows, np.int64)
        self._groups = np.array(groups, np.int64)
        self._counts = np.array(counts, np.float64)
        self._fixed = np.array(fixed, np.float64)
        self.original: NDArray[np.float64] = np.array(sizes, np.float64)

    def sizes(self, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """The size of each axis when group i keeps `kept[i]` atoms; [axes]."""
        grown = np.bincount(self._rows, self._counts * kept[self._groups], minlength=self.original.size)
        return self._fixed + grown

    def without(self, kept: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Sizes of axes when one group alone keeps `kept` atoms: rows of axes and their sizes; [entries].

        There is an entry for each axis of each group; `summed` adds such entries up by group.
        """
        atoms = np.array([group.atoms for group in self.coupling.groups], np.float64)
        return self._rows, self.original[self._rows] - self._counts * (atoms - kept)[self._groups]

    def summed(self, entries: NDArray[np.float64]) -> NDArray[np.float64]:
        """Entries in the order of `without`, added up by group; [groups]."""
        return np.bincount(self._groups, entries, minlength=len(self.coupling.groups)).astype(np.float64)

    def by_group(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of the weights of the channels one atom of each group has; [groups].

        Args:
            weights: of a channel of each axis, [axes].
        """
        return self.summed(self._counts * weights[self._rows])


class Products:
    """A sum of products of axis sizes, each with a coefficient; of the branches of an If, the largest sum.

    Args:
        axes: of the model.
        terms: the value of each product in the original, and the axes it is a product of (any others, and
            those that no group lives in, do not change and count as part of the coefficient).
        within: in which branches the terms are; empty when all are in none.
    """

    def __init__(
        self, axes: Axes, terms: Iterable[tuple[float, Product]], within: Sequence[Branches] = ()
    ) -> None:
        self._axes = axes
        numbers: dict[Branches, int] = {(): 0}  # of branches; 0 is what is in none
        for branches in within:
            for depth in range(1, len(branches) + 1):
                numbers.setdefault(branches[:depth], len(numbers))
        self._ifs = _ifs(numbers)
        self._constants: NDArray[np.float64] = np.zeros(len(numbers), np.float64)
        values: list[float] = []
        starts: list[int] = []
        factors: list[int] = []
        places: list[int] = []
        for number, (value, product) in enumerate(terms):
            moving = [axes.index[key] for key in product if key in axes.index]
            place = numbers[within[number]] if within else 0
            if not moving:
                self._constants[place] += value
                continue
            values.append(value)
            starts.append(len(factors))
            factors += moving
            places.append(place)
        self._values = np.array(values, np.float64)
        self._starts = np.array(starts, np.int64)
        self._factors = np.array(factors, np.int64)
        self._place = np.array(places, np.int64)

    def total(self, kept: NDArray[np.int64]) -> float:
        """The sum when group i keeps `kept[i]` atoms."""
        sums = np.array(self._constants, np.float64)
        if self._values.size:
            shares = self._axes.sizes(kept) / np.maximum(self._axes.original, 1)
            products = np.multiply.reduceat(shares[self._factors], self._starts) * self._values
            sums += np.bincount(self._place, products, minlength=self._constants.size)
        for outer, branches in self._ifs:
            sums[outer] += sums[branches].max()
        return float(sums[0])

    def slopes(self) -> NDArray[np.float64]:
        """By how much the sum falls with the first atom of each group, every branch counted; [groups]."""
        lengths = np.diff(np.append(self._starts, self._factors.size))
        values = np.repeat(self._values, lengths)
        through = np.bincount(self._factors, values, minlength=self._axes.original.size)
        return self._axes.by_group(through / np.maximum(self._axes.original, 1))


def _ifs(numbers: Mapping[Branches, int]) -> list[tuple[int, list[int]]]:
    """Of each If, inner ones first: the number of what it is in, and those of its branches."""
    found: dict[tuple[Branches, Node], list[int]] = {}
    for branches, number in numbers.items():
        if branches:
            found.setdefault((branches[:-1], branches[-1][0]), []).append(number)
    inner_first = sorted(found.items(), key=lambda item: -len(item[0][0]))
    return [(numbers[outer], inner) for (outer, _), inner in inner_first]
