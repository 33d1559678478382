# SPDX-License-Identifier: Apache-2.0
"""The layers that sum over a group's channels: what they read, and the weights they read it with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ....calibration.moments import second_moments
from ....calibration.visit import Progress
from ....graph_ir import Node, Value
from ....graph_ir.ops import is_op
from ....passes.linear.patches import Moments, Patches
from ....passes.linear.rows import OPS, RowView
from .base import Request
from .constants import computed

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from ....analysis.coupling import Group


MOST_CHANNELS = 4096  # for which the moments between channels are kept: 128 MiB
_MOST_BYTES = 512 << 20  # of these at once; of one group they are, whatever they take
_ROWS = 1024  # of one feed that go into moments between channels


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear node with constant weights that sums over an axis of the group.

    Attributes:
        node: Conv, ConvTranspose, Gemm, MatMul or a recurrence.
        x: the activation it reads.
        axis: the channels' axis in it.
        columns: ``[channels of x, weights each is multiplied with]``; in the weight's type, for a view of it
            takes no memory.
        atom_of: the group's atom per channel of x, -1 for none.
    """

    node: Node
    x: Value
    axis: int
    columns: NDArray[Any]
    atom_of: NDArray[np.int32]

    @property
    def patches(self) -> Patches:
        """How channels are cut out of x; a kernel's taps are not told apart."""
        return Patches(self.x.name or "", len(self.columns), axis=self.axis)


def measured(
    request: Request, name: str, *, between: bool
) -> Iterator[tuple[Group, list[Reader], Mapping[Patches, Moments]]]:
    """Each group that layers read, with these and the moments of the channels they read.

    Args:
        request: its data are gone through once for each portion of the groups whose moments fit in memory,
            and its seed draws rows. Its progress is told how far it is: a group counts once when its moments
            are known, and once when it is handed out.
        name: of the criterion.
        between: keep products of channels, of up to a fixed number of rows per feed and for activations of up
            to `MOST_CHANNELS` channels; without, all rows count.

    Raises:
        UsageError, DataError: see `Request.samples` and `second_moments`.
    """
    model, data = request.model, request.samples(name)
    # What only a body computes is seen by nobody outside.
    seen = {*model.graph.inputs, *(value for node in model.graph for value in node.outputs)}
    found = [(group, [r for r in readers(group) if r.x in seen]) for group in request.coupling.groups]
    found = [(group, each) for group, each in found if each]
    rows, widest = (_ROWS, MOST_CHANNELS) if between else (None, 0)
    progress = _silent if request.progress is None else request.progress
    done, whole = 0, 2 * len(found)
    for portion in _portions(found, widest):
        moments = second_moments(
            model,
            data,
            [reader.patches for _, each in portion for reader in each],
            rows=rows,
            widest=widest,
            seed=request.seed,
            apart=True,
            progress=partial(_advance, progress, done, len(portion), whole),
        )
        done += len(portion)
        for group, each in portion:
            progress(done, whole)
            yield group, each, moments
            done += 1
        moments.clear()  # who was given them may hold them still


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""


def _advance(progress: Progress, done: int, groups: int, whole: int, runs: int, of: int | None) -> None:
    """Tell how far the moments of some groups are, by the runs made for them."""
    if of:
        progress(done + groups * runs // of, whole)


def _portions(
    found: Iterable[tuple[Group, list[Reader]]], widest: int
) -> Iterator[list[tuple[Group, list[Reader]]]]:
    """Groups in a row whose moments between channels fit in memory together; at least one."""
    portion: list[tuple[Group, list[Reader]]] = []
    held: set[Patches] = set()
    for group, each in found:
        more = {r.patches for r in each if r.patches.columns <= widest}
        if portion and sum(patches.size for patches in held | more) > _MOST_BYTES:
            yield portion
            portion, held = [], set()
        portion.append((group, each))
        held |= more
    if portion:
        yield portion


def readers(group: Group) -> list[Reader]:
    """The group's consumers whose weights are constant, in the order of the nodes."""
    found: list[Reader] = []
    for node in group.consumers:
        seen = _columns(node)
        if seen is None:
            continue
        x, from_end, columns = seen
        for axis in group.axes:
            fits = axis.value is x and len(axis.atom_of) == len(columns)
            if fits and (x.shape is None or axis.axis in (from_end, len(x.shape) + from_end)):
                found.append(Reader(node, x, axis.axis, columns, axis.atom_of))
                break
    return found


def _columns(node: Node) -> tuple[Value, int, NDArray[Any]] | None:
    """What the node reads, the axis it sums over (negative: from the end), and its weights per channel."""
    if is_op(node, "LSTM", "GRU", "RNN") and (w := _weight(node, 1)) is not None:
        return _read(node, 0, 2, np.moveaxis(w, 2, 0))
    for slot in (1, 0) if is_op(node, "Gemm", "MatMul") else (1,) if is_op(node, *OPS) else ():
        if (w := _weight(node, slot)) is not None:
            read = RowView(node, w.shape, slot)
            return _read(node, 1 - slot, read.in_axis, read.by_input(w))
    return None


def _weight(node: Node, index: int) -> NDArray[Any] | None:
    value = node.inputs[index]
    array = None if value is None else computed(value)
    return None if array is None or array.ndim == 0 else array


def _read(node: Node, index: int, axis: int, columns: NDArray[Any]) -> tuple[Value, int, NDArray[Any]]:
    x = node.inputs[index]
    assert x is not None
    return x, axis, columns.reshape(len(columns), -1)
