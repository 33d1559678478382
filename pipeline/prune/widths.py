# SPDX-License-Identifier: Apache-2.0
"""Widths that suit the hardware: how many atoms a group may keep.

onnxruntime's blocked float convolutions and int8 kernels work on 16 channels at a time and fall back to slow
ones where a width is not a multiple of 4; TensorRT's tensor cores take 8 or 16. A width of 62 is slower than
64 on either, so removing channels one by one can cost time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import Node, UsageError
from ...graph_ir.ops import int_attr, is_constant, is_op, static_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Group, GroupAxis

ALIGN = {"onnxruntime-cpu": 16, "tensorrt": 8}
LEAST = 4  # no kernel is quick on widths that are not a multiple of this


@dataclass(frozen=True)
class Steps:
    """The numbers of atoms a group may keep.

    Attributes:
        atoms: of the group.
        per_atom: channels that go with one atom, see `channels_per_atom`.
        step: multiple of atoms to keep; any lesser number than `atoms` is a multiple of it.
        least, most: bounds on what is kept, in atoms; `atoms` itself is always allowed within them.
        why: how the step came about.
        fixed: whether no lesser number than `atoms` comes into question.
    """

    atoms: int
    per_atom: int
    step: int
    least: int
    most: int
    why: str
    fixed: bool = False

    @property
    def width(self) -> int:
        """Of the group, in channels."""
        return self.atoms * self.per_atom

    @property
    def is_single(self) -> bool:
        """Whether it is one step wide, of which half might be kept."""
        wide = self.step * self.per_atom > LEAST and not self.fixed
        return wide and self.step == self.atoms > 1 and self.least <= self.atoms // 2

    def allowed(self) -> NDArray[np.int64]:
        """All numbers of atoms that may be kept, ascending; never empty, never 0."""
        most = min(self.most, self.atoms)
        steps = np.arange(self.step, most + 1, self.step, dtype=np.int64)
        found = steps[steps >= self.least]
        if most == self.atoms and (not found.size or found[-1] != self.atoms):
            found = np.append(found, self.atoms)
        return found if found.size else np.array([max(1, most)], np.int64)

    def nearest(self, ideal: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """The allowed number nearest to each ideal one; of two equally near ones the larger."""
        allowed = self.allowed()
        wanted = np.asarray(ideal, np.int64)
        above = np.searchsorted(allowed, wanted).clip(0, allowed.size - 1)
        below = (above - 1).clip(0)
        up = np.abs(allowed[above] - wanted) <= np.abs(wanted - allowed[below])
        return np.where(up, allowed[above], allowed[below])


def steps(
    group: Group, align: int, min_keep: float = 0.0, max_keep: float = 1.0, *, halve: bool = False
) -> Steps:
    """What a group may keep.

    A width of at least `align` becomes a multiple of it, or stays as it is: 20, 24 and 28 channels take the
    time of 32. What is narrower, or made of atoms of several channels and no multiple, goes in steps of the
    largest power of two that divides it, at least 4; but what is narrower than an `align` that no target has
    by itself stays as it is.

    Args:
        group: of a coupling.
        align: channels; 1 allows any width.
        min_keep: least share of the atoms to keep; one atom always stays.
        max_keep: largest share of the atoms to keep.
        halve: let a group that is a single step wide go down to half of it.

    Raises:
        UsageError: `align` is below 1, or the shares are out of order.
    """
    if align < 1:
        raise UsageError(f"--align must be at least 1, not {align}")
    if not 0 <= min_keep <= max_keep <= 1:
        raise UsageError(f"group {group.name!r}: to keep from {min_keep:g} to {max_keep:g} of it is no range")
    per_atom = channels_per_atom(group)
    width = group.atoms * per_atom
    fixed = width < align > max(ALIGN.values())
    channels, why = _step(width, align, per_atom, fixed=fixed)
    step = channels // gcd(channels, per_atom)
    if halve and not fixed and channels > LEAST and (channels <= width < 2 * channels or step >= group.atoms):
        why = f"half of its one step of {min(width, step * per_atom)}"
        step = channels // 2 // gcd(channels // 2, per_atom)
    least = max(1, int(np.ceil(min_keep * group.atoms - 1e-9)))
    most = max(least, int(np.floor(max_keep * group.atoms + 1e-9)))
    return Steps(group.atoms, per_atom, step, least, most, why, fixed)


def _step(width: int, align: int, per_atom: int, *, fixed: bool) -> tuple[int, str]:
    """The channels that go at a time, and why."""
    whole = "" if per_atom == 1 else f", {per_atom} channels at a time"
    if align == 1:
        return 1, f"any width{whole}"
    if fixed:
        return width, f"narrower than {align}"
    if width % align == 0 or (width > align and per_atom == 1):
        return align, f"multiples of {align}{whole}"
    power = width & -width  # the largest power of two that divides it
    step = min(align, max(power, LEAST))
    return step, f"multiples of {step}{whole}, as its width {width} is none of {align}"


def channels_per_atom(group: Group) -> int:
    """How many channels one atom takes up, of the narrowest activation that a layer makes or sums over.

    What lies between does not count: a head is one position of the attention's scores, but many channels.
    """
    active = [axis for axis in group.axes if not is_constant(axis.value)]
    near = {value for node in group.producers for value in node.outputs}
    near.update(value for node in group.consumers for value in node.inputs if value is not None)
    layers = [axis for axis in active if axis.value in near]
    # Axes of one space share their array.
    counted = {id(axis.atom_of): axis for axis in layers or active or group.axes}
    return min((multiplicity(group, axis) for axis in counted.values()), default=1)


def multiplicity(group: Group, axis: GroupAxis) -> int:
    """How many positions of the axis one atom takes up."""
    return max(1, int(np.count_nonzero(axis.atom_of >= 0)) // group.atoms)


def is_depthwise(node: Node | None) -> bool:
    """Whether the node is a convolution with one input channel in each of its several groups."""
    if node is None or not is_op(node, "Conv", "QLinearConv", "ConvInteger"):
        return False
    shape = static_shape(node.inputs[3 if node.op_type == "QLinearConv" else 1])
    return int_attr(node, "group", 1) > 1 and shape is not None and len(shape) > 1 and shape[1] == 1
