# SPDX-License-Identifier: Apache-2.0
"""The coupling graph: which channels of a model can only be removed together (docs/prune.md).

After Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", on ONNX itself, with two differences: ties
hold between positions, not whole axes, so concatenated tensors are cut apart; and an operator without a rule
pins its axes instead of being taken for an elementwise one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Graph, Model, Node, Value, gc_paused
from ...graph_ir.ops import STANDARD_DOMAINS, has_reference_attribute, has_subgraph, is_op, label, subgraphs
from ..liveness import reads
from ..shapes import infer_shapes
from .atoms import Island, classes, islands
from .choices import settle
from .facts import AxisKey, Facts
from .groups import Coupling, Group, GroupAxis, Pinned
from .spaces import Spaces
from .ties import Ties

_ONLY, _TOGETHER = "it is the only channel", "all of these channels can only go together"

Attention: TypeAlias = Literal["heads", "widths"]


def attention_of(text: object) -> Attention | None:
    """The way to cut attention that a text names; None when it names none."""
    return cast("Attention", text) if text in get_args(Attention) else None


def couple(model: Model, *, attention: Attention = "heads") -> Coupling:
    """Find what can be removed from a model; linear in nodes and channels.

    Args:
        model: not edited, but its values get their inferred types.
        attention: what a decomposed attention loses: whole heads, or the same of every head's width.
    """
    with gc_paused():
        infer_shapes(model)
        facts = _facts(model)
        spaces = Spaces(facts)
        settled = settle(
            facts.choices,
            facts.heads,
            spaces,
            whole_heads=attention == "heads",
            normalised=[axis for axis, _ in facts.normalisers],
            made=[axis for axis, _ in facts.producers],
            links=facts.links,
        )
        found = islands(facts.grouped, [*facts.links, *settled], spaces)
        return _Reader(facts, spaces).coupling(found)


def _facts(model: Model) -> Facts:
    from .rules import RULES

    facts = Facts()
    opsets = model.graph.opset_imports
    for node in _inside_out(model.graph):
        domain = _domain(node)
        ties = Ties(node, opsets.get(node.domain, opsets.get("ai.onnx", 1) if domain == "" else 1), facts)
        rule = RULES.get((domain, node.op_type))
        if rule is None and has_subgraph(node):
            for value in reads(node):
                ties.pin_value(value, f"a body of {node.op_type} {label(node)!r} reads it")
            ties.pin_node(f"{node.op_type} {label(node)!r} has bodies")
        elif has_reference_attribute(node) or rule is None:
            ties.pin_node(f"no rule is known for {domain + '.' if domain else ''}{node.op_type}")
        else:
            rule(ties)
            ties.close()
    for value in model.graph.inputs:
        _pin_value(facts, value, "it is an input of the model")
    for value in model.graph.outputs:
        _pin_value(facts, value, "it is an output of the model")
    return facts


def _domain(node: Node) -> str:
    return "" if node.domain in STANDARD_DOMAINS else node.domain


def _inside_out(graph: Graph) -> Iterator[Node]:
    """All nodes in the order in which they run, those of bodies in front of the node that holds them.

    Bodies of operators without a rule are left out: what they read is pinned as a whole.
    """
    from .rules import RULES

    stack = [iter(graph)]
    holders: list[Node] = []
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            if holders:
                yield holders.pop()
        elif has_subgraph(node) and (_domain(node), node.op_type) in RULES:
            holders.append(node)
            stack.append(n for body in subgraphs(node) for n in body)
        else:
            yield node


def _pin_value(facts: Facts, value: Value, reason: str) -> None:
    for axis in range(len(facts.sizes(value) or ())):
        if (value, axis) in facts.axes:
            facts.pins.setdefault((value, axis), reason)


class _Reader:
    """Reads groups and pins off the islands."""

    def __init__(self, facts: Facts, spaces: Spaces) -> None:
        self._facts = facts
        self._spaces = spaces
        self._names: dict[str, int] = {}
        self._producers = self._by_space(facts.producers)
        self._consumers = self._by_space(facts.consumers)
        self._normalisers = self._by_space(facts.normalisers)
        self._heads = {spaces.of(axis) for axis in facts.heads}
        for choice in facts.choices:
            if spaces.of(choice.axis) in self._heads:
                self._heads.update(spaces.of(factor) for factor in choice.factors)

    def _by_space(self, said: list[tuple[AxisKey, Node]]) -> dict[int, dict[Node, None]]:
        found: dict[int, dict[Node, None]] = {}
        for axis, node in said:
            found.setdefault(self._spaces.of(axis), {})[node] = None
        return found

    def coupling(self, found: list[Island]) -> Coupling:
        groups: list[Group] = []
        stays: dict[int, tuple[int, str]] = {}  # by space: how many positions must stay, and why
        for island in found:
            groups += self._groups(island)  # first, for it also says which lone positions stay
            for space in island.spaces:
                if space in self._producers:
                    atoms = island.at(space, self._spaces.size[space])
                    reasons: list[str] = [
                        r for a in atoms.tolist() if (r := island.stays[int(a)]) is not None
                    ]
                    if reasons:
                        stays[space] = len(reasons), reasons[0]
        for space, reason in self._spaces.pins.items():
            if space in self._producers:
                stays[space] = self._spaces.size[space], reason
        order: dict[Node, int] = {}  # by the first mention
        for _, node in self._facts.producers:
            order.setdefault(node, len(order))
        pinned = [self._pin(space, *stays[space]) for space in sorted(stays)]
        return Coupling(
            tuple(sorted(groups, key=lambda g: min(order[n] for n in g.producers))), tuple(pinned)
        )

    def _groups(self, island: Island) -> list[Group]:
        """The island's groups; positions that are alone in theirs are marked in `stays`."""
        found: list[Group] = []
        if not any(space in self._producers for space in island.spaces):
            return found
        size = self._spaces.size
        free = np.array([reason is None for reason in island.stays])
        kinds = np.where(free, classes(island, size), 0)  # 0: must stay
        number = _number_within(kinds)
        spaces_of: dict[int, list[int]] = {}
        for space in island.spaces:
            atoms = island.at(space, size[space])
            for kind in np.unique(kinds[atoms]).tolist():
                if kind:
                    spaces_of.setdefault(kind, []).append(space)
        members = np.split(np.argsort(kinds, kind="stable"), np.cumsum(np.bincount(kinds))[:-1])
        for kind, spaces in spaces_of.items():
            mine = members[kind]
            producers = _of(spaces, self._producers)
            if not producers:
                continue
            if len(mine) < 2:
                alone = all(size[space] == 1 for space in spaces if space in self._producers)
                island.stays[int(mine[0])] = _ONLY if alone else _TOGETHER
                continue
            homes = {
                space: np.where(kinds[atoms] == kind, number[atoms], -1).astype(np.int32)
                for space in spaces
                for atoms in (island.at(space, size[space]),)
            }
            found.append(
                Group(
                    self._name(homes, producers),
                    len(mine),
                    tuple(self._axes(homes)),
                    producers,
                    _of(spaces, self._consumers),
                    _of(spaces, self._normalisers),
                    heads=not self._heads.isdisjoint(spaces),
                )
            )
        return found

    def _axes(self, homes: Mapping[int, NDArray[np.int32]]) -> Iterator[GroupAxis]:
        for space, atoms in homes.items():
            for holder, axis in self._spaces.members[space]:
                if isinstance(holder, Value):
                    yield GroupAxis(holder, axis, atoms)

    def _carrier(self, spaces: Iterable[int], producers: Iterable[Node]) -> tuple[Value, int]:
        """The first of the values that layers make which carries the positions.

        Where none does, the first activation that carries them, or a weight.
        """
        carried = [(h, a) for s in spaces for h, a in self._spaces.members[s] if isinstance(h, Value)]
        axis_of = dict(reversed(carried))
        made = next((v for node in producers for v in node.outputs if v in axis_of), None)
        if made is not None:
            return made, axis_of[made]
        return next(((v, a) for v, a in carried if not _is_weight(v)), carried[0])

    def _name(self, homes: Mapping[int, NDArray[np.int32]], producers: Iterable[Node]) -> str:
        value, axis = self._carrier(homes, producers)
        name = f"{value.name}:{axis}"
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _pin(self, space: int, positions: int, reason: str) -> Pinned:
        node = next(iter(self._producers[space]))
        value, axis = self._carrier([space], self._producers[space])
        return Pinned(label(node), value.name or "", axis, self._spaces.size[space], positions, reason)


def _is_weight(value: Value) -> bool:
    producer = value.producer()
    return value.is_initializer() if producer is None else is_op(producer, "Constant")


def _number_within(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each atom, how many of its kind stand before it."""
    order = np.argsort(kinds, kind="stable")
    runs = np.bincount(kinds)
    number = np.empty(len(kinds), dtype=np.int64)
    number[order] = np.arange(len(kinds)) - np.repeat(np.cumsum(runs) - runs, runs)
    return number


def _of(homes: Iterable[int], said: Mapping[int, dict[Node, None]]) -> tuple[Node, ...]:
    return tuple(dict.fromkeys(node for space in homes for node in said.get(space, ())))
