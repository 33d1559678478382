# SPDX-License-Identifier: Apache-2.0
"""What the coupling graph says: groups of channels that can be removed, and channels that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Node, UsageError, Value

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
        name: the first value of it that a layer makes, and the axis; unique, and stable while names are.
        atoms: how many there are; numbered by first position. At least 2.
        axes: all axes it lives in, in the order of the nodes.
        producers: nodes that make the channels.
        consumers: nodes that sum over them.
        normalised: nodes whose statistics are of what is left when it is cut.
        heads: whether its atoms are heads of attention.
    """

    name: str
    atoms: int
    axes: tuple[GroupAxis, ...]
    producers: tuple[Node, ...]
    consumers: tuple[Node, ...]
    normalised: tuple[Node, ...]
    heads: bool = False


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
