# SPDX-License-Identifier: Apache-2.0
"""Settles which factor an axis is cut through.

A Reshape that merges (or splits) axes gives its long axis several factors, and only one of them can be cut:
removing index c of C from (C, H, W) flattened removes C's block of H * W, and needs H and W whole. Pins are
followed through these choices to a fixed point before one is made:

- a pinned product pins its factors; a product all of whose factors are pinned is pinned;
- a choice with one factor left is settled; of several, one that counts heads (it batches a product of two
  activations) goes first - or last, where heads are to get narrower instead of fewer -; where several do, for
  queries share heads of keys and values, these go, each with its queries, if there are at least `SHARED`;
  then one of at least `PLENTY` positions that no statistics are taken over (the groups of a GroupNorm, of
  which whole ones go, as of the operator of that name), then the longest, then the outermost; the others are
  pinned. What layers make goes before what they do not: windows of an image, steps of an unrolled loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...graph_ir import Node
from ...graph_ir.ops import label
from .facts import AxisKey, Choice, Link
from .spaces import Spaces

SHARED = 4  # heads of keys and values, enough for whole ones to go
PLENTY = 8  # positions of a factor, enough for it to be cut before longer ones


def settle(
    choices: Sequence[Choice],
    heads: Sequence[AxisKey],
    spaces: Spaces,
    *,
    whole_heads: bool = True,
    normalised: Sequence[AxisKey] = (),
    made: Sequence[AxisKey] = (),
    links: Sequence[Link] = (),
) -> list[Link]:
    """Settle all choices; the spaces of the factors not chosen are pinned.

    Args:
        choices: in the order of the nodes.
        heads: axes that count heads.
        spaces: its pins are added to.
        whole_heads: heads go as a whole; else each loses the same of its width.
        normalised: axes that statistics are taken over.
        made: axes whose positions layers make.
        links: ties between axes of other shapes.

    Returns:
        How each axis that can be cut hangs on its factor.
    """
    over = {spaces.of(axis) for axis in normalised}
    over |= {spaces.of(factor) for c in choices if spaces.of(c.axis) in over for factor in c.factors}
    work = _Settling(choices, {spaces.of(axis) for axis in heads}, spaces, whole_heads, over)
    work.follow_making(made, links)
    work.follow_pins()
    # Those with one factor left first, then heads: they may settle others.
    for decides in (work.is_single, work.has_heads, work.is_open):
        for choice in choices:
            if decides(choice):
                work.choose(choice)
    return [choice.link(i) for choice in choices if work.is_open(choice) for i in work.free(choice)]


class _Settling:
    def __init__(
        self, choices: Sequence[Choice], heads: set[int], spaces: Spaces, whole: bool, normalised: set[int]
    ) -> None:
        self._spaces = spaces
        self._normalised = normalised
        self._whole = whole
        self._made: dict[int, int | None] = {}
        self._touching: dict[int, list[Choice]] = {}
        for choice in choices:
            for axis in (choice.axis, *choice.factors):
                self._touching.setdefault(spaces.of(axis), []).append(choice)
        self._heads = self._with_factors(heads)
        self._queue = deque(space for space in self._touching if space in spaces.pins)

    def free(self, choice: Choice) -> list[int]:
        """The factors that may be cut."""
        return [
            i for i, factor in enumerate(choice.factors) if self._spaces.of(factor) not in self._spaces.pins
        ]

    def is_open(self, choice: Choice) -> bool:
        return self._spaces.of(choice.axis) not in self._spaces.pins

    def is_single(self, choice: Choice) -> bool:
        return self.is_open(choice) and len(self.free(choice)) == 1

    def has_heads(self, choice: Choice) -> bool:
        return self.is_open(choice) and any(self._counts_heads(choice, i) for i in self.free(choice))

    def choose(self, choice: Choice) -> None:
        """Pin all factors but the best."""
        free = self.free(choice)
        first = self._best_made(choice, [i for i in free if self._counts_heads(choice, i) is self._whole])
        shared = [i for i in first if choice.sizes[i] >= SHARED] if self._whole else []
        made = self._best_made(choice, free)
        calm = [i for i in made if choice.sizes[i] >= PLENTY and not self._is_normalised(choice, i)]
        if shared:  # keys and values have no part in the other factor
            chosen = max(shared, key=lambda i: (self._products(choice, i), choice.sizes[i], -i))
        else:
            chosen = max(first or calm or made, key=lambda i: (choice.sizes[i], -i))
        for i in free:
            if i != chosen:
                self._pin(choice.factors[i], f"{_where(choice)} joins it with an axis that is cut instead")
        self.follow_pins()

    def follow_making(self, made: Sequence[AxisKey], links: Sequence[Link]) -> None:
        """Find what comes of what layers make: not the other factors of a product that one factor makes."""
        of = self._spaces.of
        beside: dict[int, list[int]] = {}
        for link in links:
            one, other = of(link.source), of(link.result)
            beside.setdefault(one, []).append(other)
            beside.setdefault(other, []).append(one)
        self._made = dict.fromkeys((of(axis) for axis in made), None)
        queue = deque(self._made)
        while queue:
            space = queue.popleft()
            reached: list[tuple[int, int | None]] = [(other, None) for other in beside.get(space, ())]
            for choice in self._touching.get(space, ()):
                factors = [of(factor) for factor in choice.factors]
                if of(choice.axis) != space:
                    reached.append((of(choice.axis), space))
                elif self._made[space] not in factors:
                    reached += [(factor, None) for factor in factors]
            for other, through in reached:
                if other not in self._made:
                    self._made[other] = through
                    queue.append(other)

    def follow_pins(self) -> None:
        """Bring pins from products to factors and back until nothing changes."""
        pins = self._spaces.pins
        while self._queue:
            for choice in self._touching.get(self._queue.popleft(), ()):
                whole = pins.get(self._spaces.of(choice.axis))
                if whole is not None:
                    for factor in choice.factors:
                        self._pin(factor, whole)
                elif not self.free(choice):
                    self._pin(choice.axis, pins[self._spaces.of(choice.factors[0])])

    def _best_made(self, choice: Choice, factors: list[int]) -> list[int]:
        """Those of the factors that come of what layers make; all where none does."""
        return [i for i in factors if self._spaces.of(choice.factors[i]) in self._made] or factors

    def _with_factors(self, heads: set[int]) -> set[int]:
        """The spaces, and those of the factors of their axes: shared heads, and the queries of each."""
        found, stack = set(heads), list(heads)
        while stack:
            space = stack.pop()
            for choice in self._touching.get(space, ()):
                if self._spaces.of(choice.axis) == space:
                    more = {self._spaces.of(factor) for factor in choice.factors} - found
                    found |= more
                    stack += more
        return found

    def _products(self, choice: Choice, factor: int) -> int:
        """Of how many axes it is a factor."""
        return len(self._touching[self._spaces.of(choice.factors[factor])])

    def _counts_heads(self, choice: Choice, factor: int) -> bool:
        return self._spaces.of(choice.factors[factor]) in self._heads

    def _is_normalised(self, choice: Choice, factor: int) -> bool:
        return self._spaces.of(choice.factors[factor]) in self._normalised

    def _pin(self, axis: AxisKey, reason: str) -> None:
        space = self._spaces.of(axis)
        if space not in self._spaces.pins:
            self._spaces.pins[space] = reason
            self._queue.append(space)


def _where(choice: Choice) -> str:
    holder = choice.factors[0][0]
    return f"{holder.op_type} {label(holder)!r}" if isinstance(holder, Node) else "a Reshape"
