# SPDX-License-Identifier: Apache-2.0
"""Refit the layers of a pruned model so that they give what they gave before.

After He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv:1707.06168), section
3.1, and Luo et al. 2017, "ThiNet" (arXiv:1707.06342): layer by layer, in the order of the graph, minimise

    sum over places p: || t_p - (W x_p + b) ||^2 + ridge || W - W_0 ||^2

with x what the layer reads in the *pruned* model, all layers before it refitted already, W_0 the sliced
weights, and t what the layer gave in the *original*. Where the layer is the last before a residual Add, t
also holds what the other branch is off (He et al., section 3.2). The sums are kept, not the data, so memory
does not grow with it. How strong the ridge is, or that a layer is better left as it is, is decided on data
held out (`normal`).

Layers with other inputs than before but nothing cut (depthwise convolutions, say) are refitted as well: their
inputs have shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from ...analysis.evaluate import Evaluator
from ...calibration.data import Feeds
from ...graph_ir import DataError, Model, Rewriter, Value
from ...graph_ir.ops import label
from .normal import Fit, NormalEquations
from .schedule import Step, schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Masks = Mapping[tuple[Value, int], NDArray[np.bool_]]
    Progress = Callable[[int, int], None]

MOST_BYTES = 1 << 30  # of sums kept at once
_ROWS_PER_FEATURE = 8  # at least so many rows per unknown of an output, where the data has them
_LEAST_ROWS = 20_000


@dataclass(frozen=True)
class Refitted:
    """What became of one layer.

    Attributes:
        node: its label.
        output: name of its result.
        before: error of the sliced layer, as a share of the variance of what it should give; NaN if unknown.
        after: the same once refitted, on data it was not fitted on; `before` where it was left as it was.
        strength: of the ridge; 0 where it was left.
        reason: why it was left; empty where it was refitted.
    """

    node: str
    output: str
    before: float
    after: float
    strength: float
    reason: str


def refit(
    original: Model,
    pruned: Model,
    masks: Masks,
    feeds: Iterable[Mapping[str, Any]],
    *,
    seed: int = 0,
    threads: int = 1,
    rewriter: Rewriter | None = None,
    progress: Progress | None = None,
) -> list[Refitted]:
    """Refit every layer that reads other values than in the original, in place.

    Each level of layers (those that do not hang on each other) takes one pass over the data, through both
    models as far as the level.

    Args:
        original: the model before pruning; left unchanged.
        pruned: the sliced model, whose values have the original's names; edited.
        masks: what stays of each axis of the original that lost positions (`Coupling.masks`).
        feeds: calibration samples; gone through once per level, so no iterator. Some dozens do.
        seed: draws the places of large activations that count.
        threads: threads used inside operators.
        rewriter: of the pruned model.
        progress: called with (levels done, levels in all).

    Returns:
        One entry per layer looked at, in the order they were refitted, those left out before looking last.

    Raises:
        DataError: a feed does not fit, or there are fewer than two rows of data.
    """
    if isinstance(feeds, Iterator):
        raise DataError("the feeds are an iterator, spent after one pass; give a list or open_feeds")
    kept = {(value.name or "", axis): mask for (value, axis), mask in masks.items()}
    steps, left = schedule(pruned, {name for name, _ in kept})
    known = {value.name for node in original.graph for value in node.outputs}
    known |= {value.name for value in original.graph.inputs}
    lost = [step for step in steps if step.linear.y.name not in known]
    left |= {step.linear.y.name or "": "the original has no such value" for step in lost}
    todo = [list(each) for _, each in groupby((s for s in steps if s not in lost), lambda step: step.level)]
    rewriter = rewriter or Rewriter(pruned)
    done: list[Refitted] = []
    job = _Job(original, pruned, kept, feeds, _count(feeds), seed, threads)
    for number, level in enumerate(todo):
        for batch in _batches(level, left):
            done += job.refit(batch, rewriter)
        if progress is not None:
            progress(number + 1, len(todo))
    labels = {output.name: label(node) for node in pruned.graph for output in node.outputs}
    nan = float("nan")
    done += [Refitted(labels.get(name, name), name, nan, nan, 0.0, reason) for name, reason in left.items()]
    return done


def _count(feeds: Iterable[Mapping[str, Any]]) -> int:
    if isinstance(feeds, Feeds) and feeds.count is not None:
        return feeds.count
    count = len(feeds) if isinstance(feeds, Sequence) else sum(1 for _ in feeds)
    if not count:
        raise DataError("there are no feeds to refit with")
    return count


def _batches(level: list[Step], left: dict[str, str]) -> Iterator[list[Step]]:
    """Steps in portions whose sums fit in memory; those that alone would not are left."""
    batch: list[Step] = []
    room = MOST_BYTES
    for step in level:
        linear = step.linear
        groups, outputs, features = linear.matrix.shape
        size = NormalEquations.bytes_needed(groups, outputs, features)
        if size > MOST_BYTES:
            left[linear.y.name or ""] = f"an output sums over {features} numbers, too many to refit"
            continue
        if size > room:
            yield batch
            batch, room = [], MOST_BYTES
        batch.append(step)
        room -= size
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class _Job:
    """What stays the same from level to level; `kept` are the masks by name."""

    original: Model
    pruned: Model
    kept: Mapping[tuple[str, int], NDArray[np.bool_]]
    feeds: Iterable[Mapping[str, Any]]
    count: int
    seed: int
    threads: int

    def refit(self, steps: list[Step], rewriter: Rewriter) -> list[Refitted]:
        """Refit some layers that do not hang on each other."""
        known = {value.name for node in self.original.graph for value in node.outputs}
        branches = {step: _branch_name(step, known) for step in steps}
        taps = [name for name in branches.values() if name]
        made = [step.linear.y.name or "" for step in steps]
        read = [step.linear.x.name or "" for step in steps]
        before = Evaluator(self.original, outputs=[*made, *taps], threads=self.threads)
        after = Evaluator(self.pruned, outputs=[*read, *taps], threads=self.threads)
        sums = {step: _Sums(step, self.count, self.seed) for step in steps}
        for index, feed in enumerate(self.feeds):
            wanted = {
                name: _sliced(name, array, self.kept) for name, array in before.run(feed, index=index).items()
            }
            found = after.run(feed, index=index)
            for step, x, y in zip(steps, read, made, strict=True):
                off = None
                if (name := branches[step]) and wanted[name].shape == found[name].shape:
                    off = wanted[name].astype(np.float64) - found[name]
                sums[step].add(index, found[x], wanted[y], off)
        del before, after  # they lend the weights that now change
        return [sums[step].write(rewriter) for step in steps]


def _branch_name(step: Step, known: set[str | None]) -> str:
    return step.branch.name or "" if step.branch is not None and step.branch.name in known else ""


def _sliced(name: str, array: Array, kept: Mapping[tuple[str, int], NDArray[np.bool_]]) -> Array:
    for axis in range(array.ndim):
        if (mask := kept.get((name, axis))) is not None:
            array = np.compress(mask, array, axis=axis)
    return array


class _Sums:
    """Collects the rows of one layer."""

    def __init__(self, step: Step, feeds: int, seed: int) -> None:
        self._step = step
        self._linear = linear = step.linear
        groups, outputs, features = linear.matrix.shape
        self._normal = NormalEquations(groups, outputs, features, intercept=linear.bias is not None)
        self._wanted = -(-max(_LEAST_ROWS, _ROWS_PER_FEATURE * features) // feeds)
        self._several = feeds > 1
        self._seed = [seed, crc32((linear.y.name or "").encode())]

    def add(self, index: int, x: Array, target: Array, off: Array | None) -> None:
        """Add one feed: what the layer reads now, what it should give, what the branch is off."""
        linear = self._linear
        if target.shape[1 if linear.node.op_type == "Conv" else -1] != linear.outputs:
            raise DataError(f"{linear.y.name!r} does not have the channels the pruned layer makes")
        if off is not None:
            for undo in self._step.undo:
                off = undo(off)
            off = off if off.shape == target.shape else None
        places = linear.places(target)
        number = int(np.prod(places))
        rows = np.arange(number)
        if number > self._wanted:
            rng = np.random.default_rng([*self._seed, index])
            rows = np.sort(rng.choice(number, self._wanted, replace=False))
        features = linear.inputs(x, places, rows)
        targets = linear.targets(target, rows)
        if off is not None:
            targets += linear.targets(off, rows)
        made = np.matmul(features, np.moveaxis(linear.matrix, 1, 2))
        residuals = targets - np.moveaxis(made, 0, 1).reshape(len(rows), -1)
        if linear.bias is not None:
            residuals -= linear.bias
        halves = self._halves(index, places, rows)
        for half in (0, 1):
            mine = halves == half
            self._normal.add(half, features[:, mine], residuals[mine], targets[mine])

    def _halves(self, index: int, places: tuple[int, ...], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which half each row belongs to: whole samples where there are several, since places are alike."""
        each = int(np.prod(places[1:]))
        if self._several or rows[-1] >= each:
            return (index + rows // max(each, 1)) % 2
        return np.arange(len(rows)) % 2

    def write(self, rewriter: Rewriter) -> Refitted:
        """Solve, and put the new weights into the model where they are better."""
        linear = self._linear
        fit = self._normal.solve()
        name, where = label(linear.node), linear.y.name or ""
        if fit is None:
            before = self._normal.error()
            return Refitted(name, where, before, before, 0.0, "no refit does better on data held out")
        self._apply(fit, rewriter)
        return Refitted(name, where, fit.before, fit.after, fit.strength, "")

    def _apply(self, fit: Fit, rewriter: Rewriter) -> None:
        linear = self._linear
        bias = None if linear.bias is None else linear.bias + fit.change[:, :, -1].reshape(-1)
        linear.write(linear.matrix + fit.change[:, :, :-1], bias, rewriter)
