# SPDX-License-Identifier: Apache-2.0
"""Following a recipe: its steps in order make one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from ...calibration.data import Feeds
from ...graph_ir import Model, UsageError, load, save
from ...passes.base import Context
from .. import manager
from ..instruments import Verify
from ..presets import FREEZE, PRUNE_READY
from ..recipe import CalibrateStep, PassesStep, PruneStep, Recipe, Step, check_order
from ..recipe_fields import placed
from ..spec import parse
from .accuracy import Judge
from .measured import measure, wanted_by
from .model_facts import is_quantized
from .pruning import pruned
from .result import Candidate, Judgement
from .settings import BuildSettings

NAME = "recipe"  # of the candidate


def recipe_feeds(recipe: Recipe, given: Feeds | None, model: Model) -> Feeds | None:
    """The feeds a recipe's candidate is judged on: the command line's, or those of its first data section.

    Raises:
        UsageError: a step calibrates on the command line's data, and there is none.
    """
    if given is None and recipe.needs_data:
        raise UsageError(f"recipe {recipe.name!r} calibrates on the command line's data; give --data")
    if given is not None or not recipe.data:
        return given
    return next(iter(recipe.data.values())).open(model)


def limits_of(recipe: Recipe, settings: BuildSettings) -> BuildSettings:
    """The settings with the tightest limits that any step of the recipe accepts.

    Raises:
        UsageError: one is a share of the metric, and there is none.
    """
    accept = recipe.accept
    if accept is None:
        return settings
    drop, level = accept.max_drop, accept.sqnr_db
    if drop is not None and settings.metric is None:
        raise UsageError(f"recipe {recipe.name!r} accepts a share of the metric (`max_drop`); give --metric")
    return replace(
        settings,
        max_drop=settings.max_drop if drop is None else min(settings.max_drop, drop),
        min_sqnr_db=settings.min_sqnr_db if level is None else max(settings.min_sqnr_db, level),
    )


def held(recipe: Recipe, judgement: Judgement) -> Judgement:
    """The judgement of what a recipe made, refused where outputs are further off than the recipe accepts.

    A metric stands in for the limit of the command line, but for none that a recipe names.
    """
    level = None if recipe.accept is None else recipe.accept.sqnr_db
    if level is None or not judgement.accepted or judgement.sqnr_db >= level:
        return judgement
    return replace(
        judgement, accepted=False, reason=f"an output has {judgement.sqnr_db:.1f} dB, allowed {level:.1f} dB"
    )


def unmet(recipe: Recipe | None, judged: Mapping[str, tuple[Candidate, Judgement]]) -> str:
    """Why what a recipe made is not what it says to accept; empty where it is, or says nothing."""
    if recipe is None or recipe.accept is None or NAME not in judged:  # it changes nothing, then
        return ""
    return judged[NAME][1].reason


def follow(
    recipe: Recipe, settings: BuildSettings, feeds: Feeds | None, work: Path, judge: Judge
) -> tuple[Candidate, list[str]]:
    """Run the steps over the original.

    Args:
        recipe: already checked by itself; what its passes require is checked against the model here.
        settings: of the build.
        feeds: the command line's data, for steps that name none.
        work: where the candidate is written.
        judge: of the build; says after which round pruning has gone too far.

    Returns:
        The candidate, and notes of the passes.

    Raises:
        UsageError: a pass requires what neither an earlier step nor the model gives.
    """
    model = load(settings.model)
    check_order(recipe.steps, f"recipe {recipe.name!r}", model)
    context = Context(seed=settings.seed)
    manager.run(parse(FREEZE), model, context, [Verify()])
    texts = [FREEZE]
    rule = ""
    for number, step in enumerate(recipe.steps, 1):
        settings.progress(f"recipe step {number}", number - 1, len(recipe.steps))
        if isinstance(step, CalibrateStep):
            data = feeds if step.data is None else recipe.data[step.data].open(model)
            if data is None:
                raise UsageError(f"recipe {recipe.name!r}, step {number} needs --data")
            _calibrate(model, data, step.observer, context, recipe.steps[number:])
            rule = step.observer
        elif isinstance(step, PruneStep):
            spec = step.spec
            data = feeds if spec.data is None else recipe.data[spec.data].open(model)
            manager.run(parse(PRUNE_READY), model, context, [Verify()])
            cut = partial(pruned, model, spec, data, context, judge=judge, work=work, tell=settings.progress)
            model = placed(f"recipe {recipe.name!r}, step {number}", cut)
            texts.append(f"{PRUNE_READY},prune")
        else:
            run = partial(manager.run, step.pipeline, model, context, [Verify()])
            placed(f"recipe {recipe.name!r}, step {number}", run)
            texts.append(str(step.pipeline))
    path = work / "recipe.onnx"
    save(model, path, provenance=True)
    words = f"what recipe {recipe.name!r} makes"
    made = Candidate(NAME, path, ",".join(texts), rule, quantized=is_quantized(model), words=words)
    return made, context.notes


def _calibrate(model: Model, data: Feeds, observer: str, context: Context, later: Sequence[Step]) -> None:
    """Measure what the steps up to the next calibration read."""
    steps = takewhile(lambda step: not isinstance(step, CalibrateStep), later)
    wanted, guard = wanted_by(step.pipeline for step in steps if isinstance(step, PassesStep))
    manager.run(parse("infer-shapes"), model)
    context.facts.update(measure(model, data, observer, wanted, guard=guard))
