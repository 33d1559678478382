# SPDX-License-Identifier: Apache-2.0
"""The coupling graph: which channels of a model can only be removed together (docs/prune.md).

After Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", on ONNX itself, with two differences: ties
hold between positions, not whole axes, so concatenated tensors are cut apart; and an operator without a rule
pins its axes instead of being taken for an elementwise one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Model, Node, UsageError, Value, gc_paused
from ...graph_ir.ops import STANDARD_DOMAINS, has_reference_attribute, has_subgraph, is_op, label
from ..liveness import reads
from ..shapes import infer_shapes
from .atoms import Island, classes, islands
from .choices import settle
from .spaces import Spaces
from .ties import AxisKey, Facts, Ties

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupAxis:
    """An axis a group lives in.

    Attributes:
        value: an activation, or a weight.
        axis: which of its axes.
        atom_of: for each position, the group's atom that stands there; -1 where another group's does, or what
            must stay.
    """

    value: Value
    axis: int
    atom_of: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Group:
    """Atoms that live in the same axes, equally often: what budgets, widths and plans speak of.

    Attributes:
        name: the first value that carries it, and the axis; unique, and stable while the model's names are.
        atoms: how many there are; numbered by first position. At least 2.
        axes: all axes it lives in, in the order of the nodes.
        producers: nodes that make the channels.
        consumers: nodes that sum over them.
        normalised: nodes whose statistics are of what is left when it is cut.
    """

    name: str
    atoms: int
    axes: tuple[GroupAxis, ...]
    producers: tuple[Node, ...]
    consumers: tuple[Node, ...]
    normalised: tuple[Node, ...]


@dataclass(frozen=True)
class Pinned:
    """Channels a layer makes that cannot be removed.

    Attributes:
        node: label of the layer.
        value: what carries them.
        axis: which of its axes.
        size: positions of the axis.
        positions: how many of them must stay.
        reason: why.
    """

    node: str
    value: str
    axis: int
    size: int
    positions: int
    reason: str


class Coupling:
    """What can be removed from a model, and what cannot.

    Attributes:
        groups: in the order of the nodes.
        pinned: why channels must stay, one entry per set of channels.
    """

    def __init__(self, groups: tuple[Group, ...], pinned: tuple[Pinned, ...]) -> None:
        self.groups = groups
        self.pinned = pinned
        self._by_name = {group.name: group for group in groups}

    def group(self, name: str) -> Group:
        """The group of that name.

        Raises:
            UsageError: there is none; names the nearest.
        """
        found = self._by_name.get(name)
        if found is None:
            near = get_close_matches(name, self._by_name, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the model has {len(self.groups)} groups"
            raise UsageError(f"the model has no group {name!r}; {hint}")
        return found

    def masks(self, kept: Mapping[str, Mask]) -> dict[tuple[Value, int], Mask]:
        """What stays of each axis that loses positions.

        Args:
            kept: for each group to cut, which of its atoms stay, `[atoms]`.

        Raises:
            UsageError: an unknown group, a mask of the wrong length, or one that keeps nothing.
        """
        found: dict[tuple[Value, int], Mask] = {}
        for name, mask in kept.items():
            group = self.group(name)
            if mask.shape != (group.atoms,):
                raise UsageError(f"group {name!r} has {group.atoms} atoms, the mask is for {mask.size}")
            if not mask.any():
                raise UsageError(f"nothing would be left of group {name!r}; keep at least one atom")
            if mask.all():
                continue
            for axis in group.axes:
                stays = (axis.atom_of < 0) | mask[axis.atom_of]
                key = axis.value, axis.axis
                found[key] = found[key] & stays if key in found else stays
        return found


def couple(model: Model, *, infer: bool = True) -> Coupling:
    """Find what can be removed from a model; linear in nodes and channels.

    Args:
        model: not edited, but its values get their inferred types.
        infer: infer shapes first; False when that has just been done.
    """
    with gc_paused():
        if infer:
            infer_shapes(model)
        facts = _facts(model)
        spaces = Spaces(facts)
        links = [*facts.links, *settle(facts.choices, facts.heads, spaces)]
        return _Reader(facts, spaces).coupling(islands(facts.grouped, links, spaces))


def _facts(model: Model) -> Facts:
    from .rules import RULES

    facts = Facts()
    opsets = model.graph.opset_imports
    for node in model.graph:
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        ties = Ties(node, opsets.get(node.domain, opsets.get("ai.onnx", 1) if domain == "" else 1), facts)
        rule = RULES.get((domain, node.op_type))
        if has_subgraph(node):
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


def _pin_value(facts: Facts, value: Value, reason: str) -> None:
    for axis in range(len(facts.sizes(value) or ())):
        if (value, axis) in facts.axes:
            facts.pins[value, axis] = reason


class _Reader:
    """Reads groups and pins off the islands."""

    def __init__(self, facts: Facts, spaces: Spaces) -> None:
        self._facts = facts
        self._spaces = spaces
        self._names: dict[str, int] = {}
        self._producers = self._by_space(facts.producers)
        self._consumers = self._by_space(facts.consumers)
        self._normalisers = self._by_space(facts.normalisers)

    def _by_space(self, said: list[tuple[AxisKey, Node]]) -> dict[int, dict[Node, None]]:
        found: dict[int, dict[Node, None]] = {}
        for axis, node in said:
            found.setdefault(self._spaces.of(axis), {})[node] = None
        return found

    def coupling(self, found: list[Island]) -> Coupling:
        groups: list[Group] = []
        stays: dict[int, tuple[int, str]] = {}  # by space: how many positions must stay, and why
        for island in found:
            groups += self._groups(island)
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
        order = {node: i for i, node in enumerate(n for _, n in self._facts.producers)}
        pinned = [self._pin(space, *stays[space]) for space in sorted(stays)]
        return Coupling(
            tuple(sorted(groups, key=lambda g: min(order[n] for n in g.producers))), tuple(pinned)
        )

    def _groups(self, island: Island) -> Iterator[Group]:
        if not any(space in self._producers for space in island.spaces):
            return
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
                island.stays[int(mine[0])] = "all of these channels can only go together"
                continue
            homes = {
                space: np.where(kinds[atoms] == kind, number[atoms], -1).astype(np.int32)
                for space in spaces
                for atoms in (island.at(space, size[space]),)
            }
            yield Group(
                self._name(homes),
                len(mine),
                tuple(self._axes(homes)),
                producers,
                _of(spaces, self._consumers),
                _of(spaces, self._normalisers),
            )

    def _axes(self, homes: Mapping[int, NDArray[np.int32]]) -> Iterator[GroupAxis]:
        for space, atoms in homes.items():
            for holder, axis in self._spaces.members[space]:
                if isinstance(holder, Value):
                    yield GroupAxis(holder, axis, atoms)

    def _carrier(self, spaces: Iterable[int]) -> tuple[Value, int]:
        """The first activation that carries the positions; a weight where none does."""
        carried = [(h, a) for s in spaces for h, a in self._spaces.members[s] if isinstance(h, Value)]
        return next(((v, a) for v, a in carried if not _is_weight(v)), carried[0])

    def _name(self, homes: Mapping[int, NDArray[np.int32]]) -> str:
        value, axis = self._carrier(homes)
        name = f"{value.name}:{axis}"
        self._names[name] = self._names.get(name, 0) + 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _pin(self, space: int, positions: int, reason: str) -> Pinned:
        value, axis = self._carrier([space])
        node = next(iter(self._producers[space]))
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
