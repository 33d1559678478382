# SPDX-License-Identifier: Apache-2.0
"""A float model that candidates are quantized from, and what was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ...calibration.channels import channel_maxima
from ...calibration.collect import Histograms, choose, survey
from ...calibration.data import Feeds
from ...calibration.moments import second_moments
from ...graph_ir import Model, UsageError, load, save
from ...passes.base import Context
from ...passes.linear.patches import Moments, Patches
from ...passes.quantize.bias_correction import values_for_means
from ...passes.quantize.facts import MAXIMA, MOMENTS
from ...passes.quantize.insert_qdq import InsertQdq
from ...passes.quantize.linear_form import Grids, least_squares_grids
from ...passes.quantize.patches import patches_to_observe, rounding_work
from ...passes.quantize.plan import plan, tensors_to_observe
from ...passes.quantize.quant_plan import QuantPlan
from ...passes.quantize.rounding import WeightRounding
from ...passes.quantize.smooth_quant import SmoothQuant, values_for_maxima
from .. import manager
from ..instruments import Verify
from ..spec import Pipeline, parse, spec_of
from .form import Form
from .measured import wanted_by
from .settings import BuildSettings

METHOD_FEEDS = 16  # second moments need rows, of which each feed has many
METHOD_ROWS = 128
MOST_WORK = 3e9  # multiplications of one sweep over the weights; above it rounding takes minutes


class Ground:
    """A float model with its measurements, each made when first asked for.

    Args:
        path: of the model; nothing else writes to it.
        feeds: what it is measured on; None when there is no data.
        settings: of the build.
    """

    def __init__(self, path: Path, feeds: Feeds | None, settings: BuildSettings) -> None:
        self.path = path
        self._feeds = feeds
        self._settings = settings
        self._ranges: dict[str, Mapping[str, Any]] = {}
        self._grids: dict[int, Grids] = {}

    def model(self) -> Model:
        """A fresh copy, shapes inferred."""
        model = load(self.path)
        manager.run(parse("infer-shapes"), model)
        return model

    def ranges(self, form: Form) -> Mapping[str, Any]:
        """Ranges by a form's rules (see `calibration.observers.observer`)."""
        found = dict(self._by_rule(form.observer))
        for value, rule in form.picked:
            if value in found:
                found[value] = self._by_rule(rule)[value]
        return found

    def plan(self, model: Model, form: Form) -> QuantPlan:
        """What of a copy of the model a form quantizes."""
        return plan(model, self.ranges(form), form.options.plan_options)

    def fitted(self, method: str, form: Form) -> str:
        """An accuracy method, as text, that rounds no weights which the form leaves float.

        They would gain nothing by it: their rounding would be noise on top.
        """
        (spec,) = parse(method).passes()
        if not isinstance(spec.pass_, WeightRounding):
            return method
        decisions = self.plan(self.model(), form).decisions
        floats = tuple(decision.node for decision in decisions if not decision.int8)
        return str(spec_of(replace(spec.pass_, exclude=floats)))

    def _by_rule(self, observer: str) -> Mapping[str, Any]:
        if observer not in self._ranges:
            self._ranges[observer] = choose(self._surveyed[0], observer).values
        return self._ranges[observer]

    @property
    def means(self) -> Mapping[str, Any]:
        """The mean of each channel of what linear nodes read."""
        return self._surveyed[1]

    @cached_property
    def _surveyed(self) -> tuple[Histograms, Mapping[str, Any]]:
        """Histograms of all values that may be int8, and the means; the data is gone through once."""
        tell, model = self._settings.progress, self.model()
        return survey(
            model,
            self._data(),
            tensors_to_observe(model),
            values_for_means(model),
            threads=0,
            progress=lambda done, total: tell("calibrating", done, total),
        )

    @cached_property
    def _moments(self) -> Mapping[Patches, Moments]:
        """Second moments of what linear nodes read."""
        model, some = self.model(), list(islice(self._data(), METHOD_FEEDS))
        return second_moments(model, some, patches_to_observe(model), rows=METHOD_ROWS, threads=0)

    def grids(self, options: InsertQdq) -> Grids:
        """The grids of weights that `mse_weights` chooses; empty where it is not asked for."""
        if not options.mse_weights:
            return {}
        if options.bits not in self._grids:
            self._grids[options.bits] = least_squares_grids(self.model(), options.bits)
        return self._grids[options.bits]

    def after(self, methods: Pipeline, path: Path) -> Ground | None:
        """What accuracy methods make of it, with what they read measured on it and written to a path.

        None when they change nothing, or would take too long.
        """
        model = self.model()
        wanted, _ = wanted_by([methods])
        facts: dict[str, Any] = {}
        self._settings.progress(f"trying {methods}", 0, None)
        if MAXIMA in wanted:
            smooth = [spec.pass_ for spec in methods.passes() if isinstance(spec.pass_, SmoothQuant)]
            axes = values_for_maxima(model, between_layers=any(p.between_layers for p in smooth))
            facts[MAXIMA] = channel_maxima(model, self._data(), axes, threads=0)
        if MOMENTS in wanted:
            if rounding_work(model) > MOST_WORK:
                return None
            facts[MOMENTS] = self._moments
        context = Context(seed=self._settings.seed, facts=facts)
        if not manager.run(methods, model, context, [Verify()]).changed:
            return None
        save(model, path, provenance=True)
        made = Ground(path, self._feeds, self._settings)
        if not any(spec.pass_.drops_facts for spec in methods.passes()):  # the same values but for rounding
            made.__dict__["_surveyed"] = self._surveyed
            made._ranges = self._ranges
        return made

    def _data(self) -> Feeds:
        if self._feeds is None:
            raise UsageError("static quantization needs calibration data; give --data")
        return self._feeds
