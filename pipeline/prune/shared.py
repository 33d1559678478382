# SPDX-License-Identifier: Apache-2.0
"""Widths of axes that several groups share: a Concat of three parts of 8 channels is 24 wide.

Each group by itself has a width that suits the kernels, or is too narrow for one; what counts behind a Concat
or in a shuffle is their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import is_constant
from .products import Axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling
    from .choice import Kept, Left

_SLACK = 1e-9


class SharedAxes:
    """Activations' axes that are a multiple of the alignment and that several groups live in.

    Args:
        coupling: of the model.
        align: what widths should be multiples of.
    """

    def __init__(self, coupling: Coupling, align: int) -> None:
        self._align = align
        self._axes = Axes(coupling)
        owners: dict[int, dict[int, float]] = {}
        for number, group in enumerate(coupling.groups):
            for axis in group.axes:
                if not is_constant(axis.value):
                    row = self._axes.index[axis.value, axis.axis]
                    taken = np.count_nonzero(axis.atom_of >= 0) / group.atoms
                    owners.setdefault(row, {})[number] = taken
        whole = self._axes.original
        rows = [row for row, groups in owners.items() if len(groups) > 1 and whole[row] % align == 0]
        self._rows = np.array(rows, np.int64)
        self.groups: list[list[int]] = [list(owners[row]) for row in rows]
        """Of each axis."""
        places: dict[int, list[tuple[int, float]]] = {}
        for place, row in enumerate(rows):
            for number, taken in owners[row].items():
                places.setdefault(number, []).append((place, taken))
        self._places = {
            number: (np.array([p for p, _ in found], np.int64), np.array([t for _, t in found]))
            for number, found in places.items()
        }

    def sizes(self, kept: Kept) -> NDArray[np.float64]:
        """Widths of the axes; [axes]."""
        return self._axes.sizes(kept)[self._rows]

    def lacking(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many channels widths lack to the next multiple of the alignment."""
        return np.ceil(sizes / self._align) * self._align - sizes

    def gained(self, sizes: NDArray[np.float64], group: int, more: int) -> float:
        """How many channels fewer all axes together lack when a group has `more` atoms."""
        places, taken = self._places[group]
        before = sizes[places]
        return float((self.lacking(before) - self.lacking(before + taken * more)).sum())


def evened(
    shared: SharedAxes, allowed: Mapping[int, NDArray[np.int64]], kept: Kept, left: Left, target: float
) -> Kept:
    """Move groups to other widths they may have where sums of widths are no multiple and then are.

    One axis after the other; of the changes to its groups that leave fewer channels lacking over all axes,
    and hold the target, the one that brings most for the share of the group it moves goes first.

    Args:
        shared: the axes.
        allowed: by number of a group, the numbers of atoms it may keep; groups left out stay.
        kept: atoms kept by group.
        left: says what is left of what the budget counts.
        target: what may be left.
    """
    sizes = shared.sizes(kept)
    for place, groups in enumerate(shared.groups):
        moving = [group for group in groups if group in allowed]
        for _ in moving:
            if not shared.lacking(sizes[place : place + 1]).any():
                break
            changes: list[tuple[float, int, int]] = []
            for group in moving:
                for atoms in allowed[group]:
                    more = int(atoms) - int(kept[group])
                    brings = shared.gained(sizes, group, more) if more else 0.0
                    if brings > 0:
                        changes.append((-brings * float(allowed[group][-1]) / abs(more), group, int(atoms)))
            for _, group, atoms in sorted(changes):
                then = np.array(kept, np.int64)
                then[group] = atoms
                if left(then) <= target + _SLACK:
                    kept, sizes = then, shared.sizes(then)
                    break
            else:
                break
    return kept
