# SPDX-License-Identifier: Apache-2.0
"""Small trained-looking models, data with structure, and a plan's cut and refit in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tersor.analysis.coupling import couple
from tersor.analysis.evaluate import Evaluator
from tersor.graph_ir import Model, fingerprint, parse
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_plan
from tersor.passes.prune.plan import Cut, PrunePlan
from tersor.pipeline.prune.reconstruct import Refitted, refit

Feeds = list[dict[str, NDArray[np.float32]]]


def images(count: int, shape: Sequence[int], seed: int = 0) -> Feeds:
    """Feeds `x` whose channels and places are correlated, as in pictures."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((shape[1], 2))
    feeds: Feeds = []
    for _ in range(count):
        base = rng.standard_normal((shape[0], 2, *shape[2:]))
        for axis in range(2, len(shape)):
            base = base + np.roll(base, 1, axis)
        mixed = np.moveaxis(np.tensordot(mix, base, ([1], [1])), 0, 1)
        feeds.append({"x": (mixed + 0.1 * rng.standard_normal(shape)).astype(np.float32)})
    return feeds


def plan_for(model: Model, kept: Mapping[str, Sequence[int]]) -> PrunePlan:
    """Keep these atoms of these groups."""
    coupling = couple(model)
    cuts = tuple(Cut(n, coupling.group(n).atoms, tuple(atoms), "by hand") for n, atoms in kept.items())
    return PrunePlan(fingerprint(model), cuts)


def cut(text: str, kept: Mapping[str, Sequence[int]], seed: int = 0) -> Model:
    """The model of the text, plainly sliced."""
    model = parse(text, seed)
    assert apply_plan(model, plan_for(model, kept), Context())
    return model


def refitted(
    text: str, kept: Mapping[str, Sequence[int]], feeds: Feeds, seed: int = 0
) -> tuple[Model, list[Refitted]]:
    """The model of the text, sliced and refitted."""
    original = parse(text, seed)
    coupling = couple(original)
    pruned = cut(text, kept, seed)
    report = refit(original, pruned, plan_for(original, kept).masks(coupling), feeds)
    return pruned, report


def error(original: Model, pruned: Model, feeds: Feeds, axis: int = 1) -> float:
    """Squared difference of the first outputs, as a share of the variance within the channels of the axis."""
    one, two = Evaluator(original), Evaluator(pruned)
    name = one.outputs[0]
    wanted = np.stack([one.run(feed)[name] for feed in feeds]).astype(np.float64)
    off = wanted - np.stack([two.run(feed)[name] for feed in feeds])
    others = tuple(i for i in range(wanted.ndim) if i != axis % (wanted.ndim - 1) + 1)
    return float(np.square(off).sum() / np.square(wanted - wanted.mean(axis=others, keepdims=True)).sum())
