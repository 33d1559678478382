# SPDX-License-Identifier: Apache-2.0
"""Which atoms can go together so that a convolution loses equally many channels of each of its groups.

Atoms are of one type when they weigh on the groups alike. Where each takes one position of one group of
each of two convolutions, a perfect matching of the groups of the one and those of the other says which go
together; there is one as long as the groups are evenly joined (Birkhoff 1946). Else of each type so many
are taken that all groups are even; types are added one by one, the one first that fills most of what is
missing and adds least beyond it. Where that finds nothing, the atoms must stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .facts import Positions

MOST = 256  # atoms of a bundle, enough for any shuffle
WORK = 10**8  # numbers looked at in search of bundles, about half a second


@dataclass(frozen=True)
class Blocks:
    """Positions that are as many equal blocks as a convolution has groups.

    Attributes:
        start: where they begin.
        size: how many there are; a multiple of `groups`.
        groups: of the convolution.
    """

    start: int
    size: int
    groups: int


def balanced(
    atom: Positions, free: NDArray[np.bool_], blocks: Sequence[Blocks]
) -> tuple[list[Positions], Positions]:
    """Bundles of atoms that take equally many positions of every block, as few atoms each as are found.

    Args:
        atom: the atom at each position.
        free: for each atom, whether it may go.
        blocks: of all convolutions.

    Returns:
        The bundles of two and more atoms (one that is even by itself is none), and the free atoms that no
        bundle could be found for.
    """
    uneven = np.concatenate([_uneven(atom, len(free), each) for each in blocks], axis=1)
    bounds = np.concatenate([[0], np.cumsum([each.groups for each in blocks])])
    parts = [slice(low, high) for low, high in pairwise(bounds.tolist())]
    concerned = np.flatnonzero(free & uneven.any(axis=1))
    if not concerned.size:
        return [], concerned
    types, kind = np.unique(uneven[concerned], axis=0, return_inverse=True)
    waiting = [concerned[kind.reshape(-1) == t] for t in range(len(types))]
    bundles = _matchings(types, waiting, parts)
    odd: list[Positions] = []
    tries = WORK // (MOST * types.size)
    while any(map(len, waiting)):
        seed = max(range(len(types)), key=lambda t: len(waiting[t]))
        tries -= 1
        taken = _bundle(types, np.array(list(map(len, waiting))), seed, parts) if tries >= 0 else None
        if taken is None:
            odd.append(waiting[seed])
            waiting[seed] = waiting[seed][:0]
            continue
        used = np.flatnonzero(taken)
        for _ in range(min(len(waiting[t]) // taken[t] for t in used)):
            bundles.append(np.concatenate([waiting[t][: taken[t]] for t in used]))
            for t in used:
                waiting[t] = waiting[t][taken[t] :]
    return bundles, np.concatenate([*odd, concerned[:0]])


def _matchings(types: NDArray[np.int64], waiting: list[Positions], parts: Sequence[slice]) -> list[Positions]:
    """Bundles of one atom for each group of two convolutions; what they hold is taken out of `waiting`."""
    by_part = {types[:, p].tobytes(): types[:, p] for p in parts}  # convolutions that weigh alike are one
    sides = list(by_part.values())
    ones = all((side.sum(axis=1) == 1).all() for side in sides)
    if len(sides) != 2 or not ones or sides[0].shape != sides[1].shape or sides[0].shape[1] > MOST:
        return []
    row, column = (side.argmax(axis=1).tolist() for side in sides)
    bundles: list[Positions] = []
    while True:
        # By row, the type that joins it to a column.
        cells: list[dict[int, int]] = [{} for _ in range(sides[0].shape[1])]
        for t, left in enumerate(waiting):
            if len(left):
                cells[row[t]][column[t]] = t
        used = _matching(cells)
        if not used:
            return bundles
        for _ in range(min(len(waiting[t]) for t in used)):
            bundles.append(np.concatenate([waiting[t][:1] for t in used]))
            for t in used:
                waiting[t] = waiting[t][1:]


def _matching(cells: Sequence[Mapping[int, int]]) -> list[int]:
    """Types that join every row to a column of its own; none where there is no such matching."""
    import networkx as nx

    count = len(cells)
    net: nx.Graph[int] = nx.Graph()
    net.add_edges_from((row, count + column) for row, cell in enumerate(cells) for column in cell)
    rows = [row for row, cell in enumerate(cells) if cell]
    column_of = nx.bipartite.hopcroft_karp_matching(net, rows)
    if any(row not in column_of for row in range(count)):
        return []
    return sorted(cells[row][column_of[row] - count] for row in range(count))


def _uneven(atom: Positions, count: int, blocks: Blocks) -> NDArray[np.int64]:
    """Positions of each block that an atom takes beyond those it takes of every block; [atoms, blocks]."""
    at = atom[blocks.start : blocks.start + blocks.size]
    block = np.arange(blocks.size) // (blocks.size // blocks.groups)
    taken = np.bincount(at * blocks.groups + block, minlength=count * blocks.groups)
    taken = taken.reshape(count, blocks.groups)
    return taken - taken.min(axis=1, keepdims=True)


def _bundle(
    types: NDArray[np.int64], left: NDArray[np.int64], seed: int, parts: Sequence[slice]
) -> NDArray[np.int64] | None:
    """How many atoms of each type make the blocks even, one of a type among them; None when none do."""
    taken = np.zeros(len(types), np.int64)
    total = np.zeros(types.shape[1], np.int64)
    chosen = seed
    for _ in range(MOST):
        taken[chosen] += 1
        total = total + types[chosen]
        missing = np.concatenate([total[p].max() - total[p] for p in parts])
        if not missing.any():
            return taken
        filled = np.minimum(types, missing).sum(axis=1)
        gain = np.where(taken < left, 2 * filled - types.sum(axis=1), np.iinfo(np.int64).min)
        chosen = int(np.argmax(gain))
        if taken[chosen] >= left[chosen]:
            return None
    return None
