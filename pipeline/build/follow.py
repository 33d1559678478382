# SPDX-License-Identifier: Apache-2.0
"""Following a recipe: its steps in order make one candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from ...calibration.data import Feeds
from ...graph_ir import Model, UsageError, load, save
from ...passes.base import Context
from .. import manager
from ..instruments import Verify
from ..presets import FREEZE, PRUNE_READY
from ..recipe import CalibrateStep, PassesStep, PruneStep, Recipe, Step, check_order
from ..spec import parse
from .accuracy import Judge
from .facts import is_quantized
from .measured import measure, wanted_by
from .pruning import pruned
from .result import Candidate
from .settings import BuildSettings


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
    """The settings with the tightest limits that any step of the recipe accepts."""
    accepts = [s.accept for s in recipe.steps if not isinstance(s, CalibrateStep) and s.accept is not None]
    drops = [a.max_drop for a in accepts if a.max_drop is not None]
    levels = [a.sqnr_db for a in accepts if a.sqnr_db is not None]
    return replace(
        settings,
        max_drop=min([settings.max_drop, *drops]),
        min_sqnr_db=max([settings.min_sqnr_db, *levels]),
    )


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
            model = pruned(model, spec, data, context, judge=judge, work=work, tell=settings.progress)
            texts.append(f"{PRUNE_READY},prune")
        else:
            manager.run(step.pipeline, model, context, [Verify()])
            texts.append(str(step.pipeline))
    path = work / "recipe.onnx"
    save(model, path, provenance=True)
    words = f"what recipe {recipe.name!r} makes"
    made = Candidate("recipe", path, ",".join(texts), rule, quantized=is_quantized(model), words=words)
    return made, context.notes


def _calibrate(model: Model, data: Feeds, observer: str, context: Context, later: Sequence[Step]) -> None:
    """Measure what the steps up to the next calibration read."""
    steps = takewhile(lambda step: not isinstance(step, CalibrateStep), later)
    wanted, guard = wanted_by(step.pipeline for step in steps if isinstance(step, PassesStep))
    manager.run(parse("infer-shapes"), model)
    context.facts.update(measure(model, data, observer, wanted, guard=guard))
