# SPDX-License-Identifier: Apache-2.0
"""Measures what passes ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ...analysis.evaluate import Feed
from ...calibration.channels import channel_maxima
from ...calibration.collect import choose, survey
from ...calibration.moments import second_moments
from ...graph_ir import Model
from ...passes.precision.half import ToHalf, values_to_guard
from ...passes.quantize.bias_correction import values_for_means
from ...passes.quantize.facts import MAXIMA, MEANS, MOMENTS, RANGES
from ...passes.quantize.patches import patches_to_observe
from ...passes.quantize.plan import tensors_to_observe
from ...passes.quantize.smooth_quant import values_for_maxima
from ..spec import Pipeline


def measure(
    model: Model, feeds: Iterable[Feed], observer: str, wanted: Collection[str] = (), *, guard: bool = False
) -> dict[str, Any]:
    """Facts about a model, by name: ranges and channel means, and of the others those that are wanted.

    Args:
        model: shapes inferred; not changed.
        feeds: gone through several times, so no iterator.
        observer: the rule for ranges.
        wanted: of `MAXIMA` and `MOMENTS` those to measure, too.
        guard: measure the extremes of all float values, for `to-half`.

    Raises:
        DataError: as `calibration.collect`.
    """
    names = tensors_to_observe(model)
    if guard:
        names = list(dict.fromkeys([*names, *values_to_guard(model)]))
    histograms, means = survey(model, feeds, names, values_for_means(model), threads=0)
    facts: dict[str, Any] = {RANGES: choose(histograms, observer).values, MEANS: means}
    if MAXIMA in wanted:
        facts[MAXIMA] = channel_maxima(model, feeds, values_for_maxima(model), threads=0)
    if MOMENTS in wanted:
        facts[MOMENTS] = second_moments(model, feeds, patches_to_observe(model), threads=0)
    return facts


def wanted_by(pipelines: Iterable[Pipeline]) -> tuple[set[str], bool]:
    """Which facts the passes of pipelines read, and whether one of them wants all extremes."""
    passes = [spec.pass_ for pipeline in pipelines for spec in pipeline.passes()]
    return {fact for p in passes for fact in p.needs_facts}, any(isinstance(p, ToHalf) for p in passes)
