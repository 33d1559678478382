# SPDX-License-Identifier: Apache-2.0
"""How many Transposes moving a region saves.

At each value on the border of a region:

    made inside:   Transposes that undo the permutation go; one is needed if anything else reads the value
    read inside:   a Transpose that made the value with this permutation goes, if only the region reads it;
                   any other value needs one, unless there is one already, or it is a constant

These counts are never too good: a move saves at least what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...graph_ir import Node, Value, is_constant
from ...graph_ir.ops import is_op
from .carry import Plan, words
from .perms import Perm, inverse, is_identity, perm_of
from .plans import may_carry

Region = Mapping[Node, Plan]

# Operators that only move or describe data: no reason to prefer one layout beside them.
_INDIFFERENT = frozenset(
    words(
        "Constant DepthToSpace Flatten GatherElements GatherND If Loop Reshape ScatterElements ScatterND "
        "Shape Size SpaceToDepth Transpose"
    )
)


def touched(node: Node, found: Plan) -> Iterator[tuple[Value, Perm]]:
    """The values a planned node moves, with their layouts: operands, then results."""
    for i in found.moved:
        value = node.inputs[i]
        if value is not None:
            yield value, found.perm
    yield from zip(node.outputs, found.outs, strict=True)


@dataclass(slots=True)
class Border:
    """What is known of one value that a region makes or reads.

    Attributes:
        perm: its layout.
        made: whether the region makes it.
        inside: reads by the region in the moved layout.
        plain: other reads, by anything but Transposes; 1 more for a graph output.
        undoing: Transposes of it that undo the permutation.
        others: other Transposes of it.
        source: the Transpose's permutation that makes it, None if it is not made by one outside the region.
    """

    perm: Perm
    made: bool = False
    inside: int = 0
    plain: int = 0
    undoing: int = 0
    others: int = 0
    source: Perm | None = None

    def cost(self) -> int:
        """Transposes after the move, less those before."""
        if is_identity(self.perm):
            return 0
        if self.made:
            return (1 if self.plain else 0) - self.undoing
        if not self.inside:
            return 0
        alone = not (self.plain or self.undoing or self.others)
        if self.source == self.perm:
            return -1 if alone else 0
        if self.undoing or (self.source is not None and alone):
            return 0
        return 1


class Borders:
    """The values at and inside the border of a region, kept while nodes are taken out of it."""

    def __init__(self, region: Region) -> None:
        self.region = dict(region)
        self._graph = next((node.graph for node in region), None)
        self.values: dict[Value, Border] = {}
        for node, found in region.items():
            for output, layout in zip(node.outputs, found.outs, strict=True):
                self.values[output] = Border(layout, made=True)
        for node, found in region.items():
            for i in found.moved:
                value = node.inputs[i]
                if value is not None and value not in self.values:
                    self.values[value] = Border(found.perm, source=self._source(value))
        for value, border in self.values.items():
            border.plain += value.is_graph_output()
            for user, index in value.uses():
                self._count(border, user, index)

    def _source(self, value: Value) -> Perm | None:
        producer = value.producer()
        if producer is None:
            return None
        x = producer.inputs[0] if producer.inputs else None
        # Of a Transpose of the region's own result nothing is saved here: it is counted there.
        inside = x is not None and x.producer() in self.region
        return None if inside or is_constant(x) else perm_of(producer)

    def _count(self, border: Border, user: Node, index: int) -> None:
        found = self.region.get(user)
        if found is not None and index in found.moved:
            border.inside += 1
        elif user.graph is not self._graph:
            border.plain += 1
        elif (perm := perm_of(user)) is not None:
            if perm == inverse(border.perm):
                border.undoing += 1
            else:
                border.others += 1
        elif not (border.made and is_op(user, "Shape")):
            border.plain += 1

    def cost(self) -> int:
        """Transposes after moving the whole region, less those before."""
        return sum(border.cost() for border in self.values.values())

    def _places(self, node: Node) -> Iterator[tuple[Border, bool]]:
        """The borders a node of the region is at: with whether it makes the value, once each read."""
        found = self.region[node]
        for i in found.moved:
            value = node.inputs[i]
            if value is not None:
                yield self.values[value], False
        for output in node.outputs:
            yield self.values[output], True

    def _take(self, node: Node, step: int) -> None:
        """Take the node out (-1) or in again (1), as far as the borders go."""
        for border, makes in self._places(node):
            if makes:
                border.made = step > 0
            else:
                border.inside += step
                border.plain -= step

    def gain(self, node: Node) -> int:
        """How much taking the node out raises the cost (below zero: lowers it)."""
        at = list({id(border): border for border, _ in self._places(node)}.values())
        before = sum(border.cost() for border in at)
        self._take(node, -1)
        after = sum(border.cost() for border in at)
        self._take(node, 1)
        return after - before

    def drop(self, node: Node) -> None:
        """Take the node out."""
        self._take(node, -1)
        del self.region[node]


def anchored(borders: Borders) -> int:
    """Edges to operators with a layout of their own that become direct by the move, less those that cease."""
    score = 0
    for value, border in borders.values.items():
        if is_identity(border.perm):
            continue
        producer = value.producer()
        users = [user for user, _ in value.uses()]
        if any(_anchors(user) for user in users if user not in borders.region):
            score -= 1
        if border.made:
            back = [u for u in users if perm_of(u) == inverse(border.perm)]
            score += sum(any(_anchors(user) for user, _ in u.outputs[0].uses()) for u in back)
        elif border.inside and producer is not None:
            x = producer.inputs[0] if border.source == border.perm else None
            made_by = x.producer() if x is not None else None
            score += made_by is not None and _anchors(made_by)
            score -= border.source is None and _anchors(producer)
    return score


def _anchors(node: Node) -> bool:
    return not may_carry(node) and node.op_type not in _INDIFFERENT
