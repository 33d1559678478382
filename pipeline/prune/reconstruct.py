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

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ...calibration.data import Feeds
from ...calibration.visit import Progress
from ...graph_ir import DataError, Model, Rewriter, Value
from ...graph_ir.ops import label
from .normal import Fit, NormalEquations
from .schedule import Step, schedule
from .targets import Originals, Sample, at_output, branch_name, portions
from .walk import Walk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Masks = Mapping[tuple[Value, int], NDArray[np.bool_]]

MOST_BYTES = 1 << 30  # of sums kept at once


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
    progress: Progress | None = None,
) -> list[Refitted]:
    """Refit every layer that reads other values than in the original, in place.

    Each level of layers (those that do not hang on each other) takes one pass over the data, through the
    pruned model from the level before as far as this one (`Walk`); the original is run for as many levels at
    once as fit in memory.

    Args:
        original: the model before pruning; left unchanged.
        pruned: the sliced model, whose values have the original's names; edited.
        masks: what stays of each axis of the original that lost positions (`Coupling.masks`).
        feeds: calibration samples; gone through once per level, so no iterator. Give a hundred or more: with
            two dozen, a deep network as a whole may come out worse than sliced, though each layer is closer.
        seed: draws the places of large activations that count.
        threads: threads used inside operators.
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
    found = groupby((s for s in steps if s not in lost), lambda step: step.level)
    levels = [_small_enough(list(each), left) for _, each in found]
    rewriter = Rewriter(pruned)
    done: list[Refitted] = []
    originals = Originals(original, kept, Walk(original, feeds, threads), count_of(feeds), seed)
    walk = Walk(pruned, feeds, threads)
    number = 0
    for portion in portions(levels, originals.count):
        samples = originals.gather([step for level in portion for step in level])
        for level in portion:
            for batch in _batches(level):
                mine = {step: samples.pop(step) for step in batch}
                done += _refit(mine, walk, rewriter)
            number += 1
            if progress is not None:
                progress(number, len(levels))
    labels = {output.name: label(node) for node in pruned.graph for output in node.outputs}
    nan = float("nan")
    done += [Refitted(labels.get(name, name), name, nan, nan, 0.0, reason) for name, reason in left.items()]
    return done


def count_of(feeds: Iterable[Mapping[str, Any]]) -> int:
    """How many feeds there are; they are only gone through where nothing says so.

    Raises:
        DataError: there are none.
    """
    if isinstance(feeds, Feeds) and feeds.count is not None:
        return feeds.count
    count = len(feeds) if isinstance(feeds, Sized) else sum(1 for _ in feeds)
    if not count:
        raise DataError("there are no feeds to refit with")
    return count


def _small_enough(level: list[Step], left: dict[str, str]) -> list[Step]:
    """The steps whose sums fit in memory; the others are left."""
    found: list[Step] = []
    for step in level:
        if NormalEquations.bytes_needed(*step.linear.matrix.shape) <= MOST_BYTES:
            found.append(step)
        else:
            reason = f"an output sums over {step.linear.features} numbers, too many to refit"
            left[step.linear.y.name or ""] = reason
    return found


def _batches(level: list[Step]) -> Iterator[list[Step]]:
    """Steps in portions whose sums fit in memory."""
    batch: list[Step] = []
    room = MOST_BYTES
    for step in level:
        size = NormalEquations.bytes_needed(*step.linear.matrix.shape)
        if size > room:
            yield batch
            batch, room = [], MOST_BYTES
        batch.append(step)
        room -= size
    if batch:
        yield batch


def _refit(samples: Mapping[Step, list[Sample]], walk: Walk, rewriter: Rewriter) -> list[Refitted]:
    """Refit some layers that do not hang on each other."""
    wanted = [step.linear.x.name or "" for step in samples]
    wanted += [branch_name(step) for step, each in samples.items() if each[0].branch is not None]
    sums = {step: _Sums(step, several=len(each) > 1) for step, each in samples.items()}
    for index, found in enumerate(walk.values(wanted)):
        for step, each in samples.items():
            sums[step].add(index, found[step.linear.x.name or ""], each[index], found.get(branch_name(step)))
    return [each.write(rewriter) for each in sums.values()]


class _Sums:
    """Collects the rows of one layer."""

    def __init__(self, step: Step, *, several: bool) -> None:
        self._step = step
        self._linear = step.linear
        self._matrix = step.linear.matrix.astype(np.float64)
        intercept = step.linear.bias is not None
        self._normal = NormalEquations(*self._matrix.shape, intercept=intercept)
        self._several = several

    def add(self, index: int, x: Array, sample: Sample, branch: Array | None) -> None:
        """Add one feed: what the layer reads now, what it should give, what the branch gives now."""
        linear, rows = self._linear, sample.rows
        features = linear.inputs(x, rows)
        targets = sample.wanted.astype(np.float64)
        if sample.branch is not None and branch is not None and branch.shape == sample.shape:
            conv = linear.node.op_type == "Conv"
            shape = (*sample.places, linear.outputs)
            shape = (shape[0], shape[-1], *shape[1:-1]) if conv else shape
            now = at_output(self._step, branch, shape, rows)
            targets += 0.0 if now is None else sample.branch - now
        made = np.matmul(features, np.moveaxis(self._matrix, 1, 2))
        residuals = targets - np.moveaxis(made, 0, 1).reshape(len(rows), -1)
        if linear.bias is not None:
            residuals -= linear.bias
        halves = self._halves(index, sample.places, rows)
        for half in (0, 1):
            mine = halves == half
            if mine.all():
                self._normal.add(half, features, residuals, targets)
            elif mine.any():
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
        linear.write(self._matrix + fit.change[:, :, :-1], bias, rewriter)
