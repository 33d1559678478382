# SPDX-License-Identifier: Apache-2.0
"""Spaces: axes that are position for position the same, and which of them are pinned as a whole.

A factor of an axis is known by how many positions stand outside of it and by its own size: two Reshapes, of
which one merges batch and heads and the other parts them again, speak of the same batch and the same heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

from .facts import AxisKey, Choice, Facts

if TYPE_CHECKING:
    from networkx.utils import UnionFind


class Spaces:
    """The spaces of a model.

    Args:
        facts: what the rules said.

    Attributes:
        members: axes of each space, in order of mention; spaces are numbered in that order, too.
        size: positions of each space.
        pins: reason, for each space nothing may be removed from.
    """

    def __init__(self, facts: Facts) -> None:
        self._of: dict[AxisKey, int] = {}
        self.members: list[list[AxisKey]] = []
        self.size: list[int] = []
        self.pins: dict[int, str] = {}
        self._unite(facts)
        self._pin_by_itself(facts)

    def of(self, axis: AxisKey) -> int:
        """The space an axis belongs to."""
        return self._of[axis]

    def _unite(self, facts: Facts) -> None:
        from networkx.utils import UnionFind

        number = {axis: i for i, axis in enumerate(facts.axes)}
        union: UnionFind[int] = UnionFind()
        for one, other in facts.same:
            union.union(number[one], number[other])
        while self._unite_factors(facts, number, union) or self._part_factors(facts, number, union):
            pass  # factors have factors
        spaces: dict[int, int] = {}
        for axis, i in number.items():
            root = union[i]
            space = spaces.setdefault(root, len(spaces))
            if space == len(self.members):
                self.members.append([])
            self.members[space].append(axis)
            self._of[axis] = space

    @staticmethod
    def _unite_factors(facts: Facts, number: dict[AxisKey, int], union: UnionFind[int]) -> bool:
        """Make equal factors of one axis the same; False when they were already."""
        seen: dict[tuple[int, int, int], int] = {}
        changed = False
        for choice in facts.choices:
            outer, axis = 1, union[number[choice.axis]]
            for factor, size in zip(choice.factors, choice.sizes, strict=True):
                mine = number[factor]
                first = seen.setdefault((axis, outer, size), mine)
                if union[first] != union[mine]:
                    union.union(first, mine)
                    changed = True
                outer *= size
        return changed

    @staticmethod
    def _part_factors(facts: Facts, number: dict[AxisKey, int], union: UnionFind[int]) -> bool:
        """Say of factors that another Reshape of the same axis parts further what they are made of.

        False when all is said already. Patches taken out of a picture (32 channels x 9 pixels) are read by
        head (4 x 8 x 9): 32 is 4 x 8.
        """
        by_axis: dict[int, dict[tuple[int, ...], Choice]] = {}
        for choice in facts.choices:
            by_axis.setdefault(union[number[choice.axis]], {}).setdefault(choice.sizes, choice)
        found: list[Choice] = []
        for alike in list(by_axis.values()):
            for coarse, fine in permutations(alike.values(), 2):
                ends = {end: i for i, end in enumerate(_ends(fine.sizes))}
                outer = 1
                for factor, size in zip(coarse.factors, coarse.sizes, strict=True):
                    first, last = ends.get(outer, -1), ends.get(outer * size, -1)
                    sizes = fine.sizes[first:last] if 0 <= first < last else ()
                    if len(sizes) > 1 and sizes not in by_axis.get(union[number[factor]], {}):
                        found.append(Choice(factor, fine.factors[first:last], sizes))
                    outer *= size
        facts.choices += found
        return bool(found)

    def _pin_by_itself(self, facts: Facts) -> None:
        for axis, reason in facts.pins.items():
            self.pins.setdefault(self._of[axis], reason)
        for space, members in enumerate(self.members):
            sizes = {facts.axes[axis] for axis in members}
            known = max((s for s in sizes if s is not None), default=0)
            self.size.append(known)
            if None in sizes:
                self.pins.setdefault(space, "its size is not known")
            elif len(sizes) > 1:
                self.pins.setdefault(space, "it meets an axis of another size")


def _ends(sizes: Sequence[int]) -> list[int]:
    """How many positions stand outside of each factor, and in all."""
    found = [1]
    for size in sizes:
        found.append(found[-1] * size)
    return found
