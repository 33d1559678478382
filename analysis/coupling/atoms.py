# SPDX-License-Identifier: Apache-2.0
"""Atoms: the smallest sets of positions that must go together, and the groups they fall into.

Spaces that links tie are worked on together, position by position. Convolutions in groups are first taken to
lose whole groups; one whose input channels all hang together that way loses relative positions instead, and
one whose channels still do equally many of each group, whichever they are (`balance`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .balance import Blocks, balanced
from .facts import Grouped, Link, Positions, spread_indices
from .spaces import Spaces

Pair = tuple[int, Positions, int, Positions]
"""A space and positions of it, and the positions of another (or the same) space they are tied to."""

Pin = tuple[Positions, str]
"""Positions of a space that must stay, and why."""


@dataclass
class Island:
    """Spaces tied to each other and to no others.

    Attributes:
        spaces: their numbers, ascending.
        start: where each one's positions begin in `atom`.
        atom: for each position of all spaces in a row, its atom, numbered by first position.
        stays: for each atom, the reason it must stay, or None.
    """

    spaces: list[int]
    start: dict[int, int]
    atom: Positions
    stays: list[str | None]

    def at(self, space: int, size: int) -> Positions:
        """The atoms at the positions of a space."""
        return self.atom[self.start[space] : self.start[space] + size]


@dataclass
class _Ties:
    """What holds under one reading of the grouped convolutions."""

    pairs: list[Pair] = field(default_factory=list[Pair])
    pins: dict[int, list[Pin]] = field(default_factory=dict[int, "list[Pin]"])
    blocks: dict[int, list[int]] = field(default_factory=dict[int, "list[int]"])  # equal numbers of each go


def islands(grouped: Sequence[Grouped], links: Sequence[Link], spaces: Spaces) -> list[Island]:
    """All islands of spaces that are not wholly pinned, in order of their first space."""
    by_position: set[Grouped] = {
        g for g in grouped if any(spaces.of(axis) in spaces.pins for axis in (g.inputs, g.outputs))
    }
    by_count: set[Grouped] = set()
    while True:
        found = list(_connect(_collect(grouped, links, spaces, by_position, by_count), spaces))
        stuck = _stuck(found, grouped, spaces)
        if stuck - by_position:
            by_position |= stuck
        elif loose := {conv for conv in stuck if conv.own} - by_count:
            by_count |= loose
        else:
            return found


def _stuck(found: Sequence[Island], grouped: Sequence[Grouped], spaces: Spaces) -> set[Grouped]:
    """The grouped convolutions none of whose input channels can go, or only all of them."""
    home = {space: island for island in found for space in island.spaces}
    stuck: set[Grouped] = set()
    for conv in grouped:
        island = home.get(spaces.of(conv.inputs))
        if island is not None:
            space = spaces.of(conv.inputs)
            atoms = np.unique(island.at(space, spaces.size[space]))
            if sum(island.stays[a] is None for a in atoms) < 2:
                stuck.add(conv)
    return stuck


def _collect(
    grouped: Sequence[Grouped],
    links: Sequence[Link],
    spaces: Spaces,
    by_position: set[Grouped],
    by_count: set[Grouped],
) -> _Ties:
    ties = _Ties()
    for link in links:
        _add(ties, spaces, _pair(link, spaces))
    for conv in grouped:
        inputs, outputs = spaces.of(conv.inputs), spaces.of(conv.outputs)
        weight = None if conv.weight_in is None else spaces.of(conv.weight_in)
        ins, outs = spaces.size[inputs] // conv.groups, spaces.size[outputs] // conv.groups
        if conv not in by_position:
            # Every input and output channel of a group hangs on the group's first output channel.
            first = np.arange(conv.groups, dtype=np.int64) * outs
            for space, each in ((inputs, ins), (outputs, outs)):
                here = np.arange(each * conv.groups, dtype=np.int64)
                _add(ties, spaces, (outputs, np.repeat(first, each), space, here))
            if weight is not None:
                _pin(ties, weight, np.arange(spaces.size[weight]), "whole groups of the convolution go")
            continue
        if conv in by_count:
            for space in (inputs, outputs):
                ties.blocks.setdefault(space, []).append(conv.groups)
            if weight is not None:  # its columns are put in the order of the first group's
                first = np.arange(ins, dtype=np.int64)
                _add(ties, spaces, (weight, first, inputs, first))
            continue
        for space, each in ((inputs, ins), (outputs, outs)):
            here = np.arange(each * conv.groups, dtype=np.int64)
            _add(ties, spaces, (space, here % each, space, here))
        if weight is not None:
            indices = spread_indices(ins, conv.groups, 1)
            _add(ties, spaces, (weight, indices, inputs, np.arange(len(indices), dtype=np.int64)))
    return ties


def _pair(link: Link, spaces: Spaces) -> Pair:
    positions = np.arange(len(link.indices), dtype=np.int64)
    return spaces.of(link.source), link.indices, spaces.of(link.result), positions


def _add(ties: _Ties, spaces: Spaces, pair: Pair) -> None:
    one, here, other, there = pair
    if one in spaces.pins:
        _pin(ties, other, there, spaces.pins[one])
    elif other in spaces.pins:
        _pin(ties, one, here, spaces.pins[other])
    else:
        ties.pairs.append(pair)


def _pin(ties: _Ties, space: int, positions: Positions, reason: str) -> None:
    ties.pins.setdefault(space, []).append((positions, reason))


def _connect(ties: _Ties, spaces: Spaces) -> Iterator[Island]:
    import networkx as nx

    net: nx.Graph[int] = nx.Graph()
    net.add_nodes_from(s for s in range(len(spaces.size)) if s not in spaces.pins)
    net.add_edges_from((one, other) for one, _, other, _ in ties.pairs)
    members = sorted(sorted(c) for c in nx.connected_components(net))
    island_of = {space: i for i, island in enumerate(members) for space in island}
    pairs: list[list[Pair]] = [[] for _ in members]
    for pair in ties.pairs:
        pairs[island_of[pair[0]]].append(pair)
    for island, tied in zip(members, pairs, strict=True):
        yield _island(island, tied, ties, spaces)


def _island(members: list[int], pairs: Sequence[Pair], ties: _Ties, spaces: Spaces) -> Island:
    start: dict[int, int] = {}
    total = 0
    for space in members:
        start[space] = total
        total += spaces.size[space]
    ones = [here + start[one] for one, here, _, _ in pairs]
    others = [there + start[other] for _, _, other, there in pairs]
    atom = _label(total, ones, others)
    stays = _reasons(atom, members, start, ties)
    blocks = [Blocks(start[s], spaces.size[s], groups) for s in members for groups in ties.blocks.get(s, ())]
    if not blocks:
        return Island(members, start, atom, stays)
    free = np.array([reason is None for reason in stays])
    bundles, left = balanced(atom, free, blocks)
    first = np.unique(atom, return_index=True)[1]
    ones += [np.full(len(bundle) - 1, first[bundle[0]]) for bundle in bundles]
    others += [first[bundle[1:]] for bundle in bundles]
    odd = first[left]
    atom = _label(total, ones, others)
    stays = _reasons(atom, members, start, ties)
    for a in np.unique(atom[odd]).tolist():
        stays[a] = stays[a] or "without it the groups of a convolution would not be equal"
    return Island(members, start, atom, stays)


def _reasons(
    atom: Positions, members: Sequence[int], start: Mapping[int, int], ties: _Ties
) -> list[str | None]:
    """Why each atom must stay."""
    stays: list[str | None] = [None] * (int(atom.max()) + 1 if atom.size else 0)
    for space in members:
        for positions, reason in ties.pins.get(space, ()):
            for a in np.unique(atom[positions + start[space]]).tolist():
                stays[a] = stays[a] or reason
    return stays


def _label(total: int, ones: Sequence[Positions], others: Sequence[Positions]) -> Positions:
    """Connected components of the positions, numbered by their first position.

    On arrays, because there are as many positions as channels in the model: each round hooks every component
    to its lowest neighbour, then shortens the chains (Shiloach and Vishkin 1982).
    """
    lowest = np.arange(total, dtype=np.int64)
    if not ones:
        return lowest
    one, other = np.concatenate(ones), np.concatenate(others)
    while True:
        left, right = lowest[one], lowest[other]
        if np.array_equal(left, right):
            break
        low = np.minimum(left, right)
        np.minimum.at(lowest, left, low)
        np.minimum.at(lowest, right, low)
        while True:
            shorter = lowest[lowest]
            if np.array_equal(shorter, lowest):
                break
            lowest = shorter
    return np.unique(lowest, return_inverse=True)[1].astype(np.int64).reshape(-1)


def classes(island: Island, sizes: Sequence[int]) -> NDArray[np.int64]:
    """A number per atom, equal for atoms that stand in the same spaces equally often."""
    kind = np.zeros(len(island.stays), dtype=np.int64)
    fresh = 1
    for space in island.spaces:
        atoms, counts = np.unique(island.at(space, sizes[space]), return_counts=True)
        kinds, mine = np.unique(np.stack([kind[atoms], counts]), axis=1, return_inverse=True)
        kind[atoms] = fresh + mine.reshape(-1)
        fresh += kinds.shape[1]
    return kind
