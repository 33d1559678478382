# SPDX-License-Identifier: Apache-2.0
"""What layers should give: the original's outputs at some places, for many layers in one pass over data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ...graph_ir import DataError, Model
from .schedule import Step
from .walk import Walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_KEPT = 256 << 20  # bytes of outputs kept at once; one level is, whatever it takes
_ROWS_PER_FEATURE = 8  # at least so many rows per unknown of an output, where the data has them
_LEAST_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class Sample:
    """What one layer should give for one feed.

    Attributes:
        rows: the places that count, flat indices into `places`; sorted.
        places: the shape of the output without its channels.
        wanted: ``[rows, outputs]`` of the original.
        branch: the same of the residual branch, as seen at the layer's output; None without one.
        shape: of the branch.
    """

    rows: NDArray[np.int64]
    places: tuple[int, ...]
    wanted: Array
    branch: Array | None
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Originals:
    """The original model and what is run through it.

    Attributes:
        model: left unchanged.
        kept: what stays of each axis, by name.
        walk: through the model, over the calibration samples.
        count: how many samples.
        seed: draws places.
    """

    model: Model
    kept: Mapping[tuple[str, int], NDArray[np.bool_]]
    walk: Walk
    count: int
    seed: int

    def gather(self, steps: Sequence[Step]) -> dict[Step, list[Sample]]:
        """One sample per feed for each layer, in one pass.

        Raises:
            DataError: a feed does not fit, or a layer's channels are not the original's.
        """
        # Outputs that are left out have no name; nor has the branch of a layer without one.
        known = {value.name for node in self.model.graph for value in node.outputs if value.name}
        branches = {step: branch_name(step) for step in steps if branch_name(step) in known}
        made = [step.linear.y.name or "" for step in steps]
        found: dict[Step, list[Sample]] = {step: [] for step in steps}
        for index, values in enumerate(self.walk.values(list(dict.fromkeys([*made, *branches.values()])))):
            for step, name in zip(steps, made, strict=True):
                branch = branches.get(step)
                other = None if branch is None else self._sliced(branch, values[branch])
                found[step].append(self._sample(step, index, self._sliced(name, values[name]), other))
        return found

    def _sample(self, step: Step, index: int, target: Array, branch: Array | None) -> Sample:
        linear = step.linear
        if target.shape[1 if linear.node.op_type == "Conv" else -1] != linear.outputs:
            raise DataError(f"{linear.y.name!r} does not have the channels the pruned layer makes")
        places = linear.places(target)
        number = int(np.prod(places))
        rows = np.arange(number)
        most = rows_per_feed(step, self.count)
        if number > most:
            rng = np.random.default_rng([self.seed, crc32((linear.y.name or "").encode()), index])
            rows = np.sort(rng.choice(number, most, replace=False))
        wanted = linear.targets(target, rows).astype(target.dtype)
        if branch is None:
            return Sample(rows, places, wanted, None, ())
        return Sample(rows, places, wanted, at_output(step, branch, target.shape, rows), branch.shape)

    def _sliced(self, name: str, array: Array) -> Array:
        for axis in range(array.ndim):
            if (mask := self.kept.get((name, axis))) is not None:
                array = np.compress(mask, array, axis=axis)
        return array


def branch_name(step: Step) -> str:
    """The name of a layer's residual branch; empty without one."""
    return "" if step.branch is None else step.branch.name or ""


def at_output(
    step: Step, branch: Array, shape: tuple[int, ...], rows: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """A branch's values at some places of the layer's output; None when it has another shape there."""
    for undo in step.undo:
        branch = undo(branch)
    return step.linear.targets(branch, rows) if branch.shape == shape else None


def rows_per_feed(step: Step, feeds: int) -> int:
    """How many places of each feed count, at most."""
    return -(-max(_LEAST_ROWS, _ROWS_PER_FEATURE * step.linear.features) // feeds)


def portions(levels: Sequence[list[Step]], feeds: int) -> Iterator[list[list[Step]]]:
    """Levels in a row whose samples fit in `MOST_KEPT` together; at least one."""
    portion: list[list[Step]] = []
    room = MOST_KEPT
    for level in levels:
        rows = [feeds * rows_per_feed(step, feeds) * step.linear.outputs for step in level]
        bytes_each = [4 if step.branch is None else 12 for step in level]
        size = sum(n * each for n, each in zip(rows, bytes_each, strict=True))
        if portion and size > room:
            yield portion
            portion, room = [], MOST_KEPT
        portion.append(level)
        room -= size
    if portion:
        yield portion
