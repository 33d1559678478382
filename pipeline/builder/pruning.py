# SPDX-License-Identifier: Apache-2.0
"""The `prune` step of a recipe that a build follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from ...analysis.cost import cost
from ...analysis.observed import observed_sizes
from ...backends.base import Feed
from ...calibration.data import Feeds
from ...graph_ir import DataError, Model, UsageError, save, signature_of
from ...passes.base import Context
from ...passes.prune.plan import load_plan
from ..prune.job import Origin, Pruned
from ..prune.rounds import prune
from ..prune.step import PruneSpec
from ..prune.steps import replay
from ..prune.table import Table, cache_folder
from ..prune.timing import Clock
from ..tell import Tell
from .accuracy import Judge
from .model_facts import bindings_in, drawn
from .result import Candidate, Judgement

_NAMED = 8  # groups in one line


def pruned(
    model: Model,
    spec: PruneSpec,
    feeds: Feeds | None,
    context: Context,
    *,
    judge: Judge,
    work: Path,
    tell: Tell,
) -> Model:
    """Prune the model as it is at this step; budgets are shares of it.

    Args:
        model: left as it is, but for inferred shapes.
        spec: the step.
        feeds: data to score and refit with; None when there is none.
        context: told what came of every round.
        judge: of the build; a round that it does not accept is given up, and the rounds before it stay.
        work: a folder for the models judged and measured.
        tell: told how far it is.

    Returns:
        The pruned model; the model itself when even the first round was given up.

    Raises:
        UsageError: nothing can be pruned, the budget is out of reach, or the plan is for another model.
        DataError: the metric fails on a pruned model.
    """
    result = _prune(model, spec, feeds, judging(judge, work), work, tell)
    for each in result.rounds:
        judgement = each.judgement
        found = "" if each.left is None else f", {each.left:.1%} left of {each.wanted or 0:.1%} wanted"
        if judgement is not None and judgement.metric is not None:
            found += f", metric {judgement.metric:.4f}"
        elif judgement is not None and judgement.fidelity:
            found += f", {judgement.sqnr_db:.1f} dB"
        context.note(f"prune, round {each.number}{found}")
    for note in [*result.notes, result.stopped, _tried(result)]:
        if note:
            context.note(f"prune: {note}")
    return result.model if result.held else model


def _tried(result: Pruned) -> str:
    """What the round that was given up would have cut, the most first; empty when none was."""
    cut = sorted((g for g in result.tried if g.is_cut), key=lambda g: g.after / g.before)
    told = ", ".join(f"{g.group} from {g.before} to {g.after}" for g in cut[:_NAMED])
    more = f", and {len(cut) - _NAMED} more groups" if len(cut) > _NAMED else ""
    return f"given up was to cut {told}{more}" if cut else ""


def _prune(
    model: Model,
    spec: PruneSpec,
    feeds: Feeds | None,
    judge: Callable[[Model], Judgement],
    work: Path,
    tell: Tell,
) -> Pruned:
    if spec.job is None:
        assert spec.plan is not None
        return replay(model, load_plan(spec.plan), feeds=feeds, refit=spec.refit, judge=judge, seed=spec.seed)
    path = work / "unpruned.onnx"
    save(model, path)
    signature = signature_of(model)
    shown: list[Feed] = list(islice(feeds, 1)) if feeds is not None else drawn(path, signature, spec.job.seed)
    bindings = bindings_in(signature, shown)
    if shown:
        bindings = observed_sizes(model, bindings, shown[0])
    clock: Clock | None = None
    if spec.job.budget.kind == "latency":
        if not shown:
            raise UsageError("a latency budget needs inputs to run the model on; give --data")
        clock = Clock(path, shown[0], work, table=Table(cache_folder()), bindings=bindings)
    origin = Origin(bindings, overhead(model, path, bindings))
    return prune(model, spec.job, origin, feeds=feeds, judge=judge, clock=clock, tell=tell)


def overhead(model: Model, path: Path, bindings: Mapping[str, int]) -> int:
    """Bytes of a model's files that are not weights.

    Args:
        model: with inferred shapes, or without.
        path: where it is stored; weights may lie beside it.
        bindings: sizes of named dims.
    """
    weights = path.with_name(path.name + ".data")
    stored = path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)
    return max(0, stored - cost(model, bindings=bindings).parameter_bytes)


def judging(judge: Judge, work: Path) -> Callable[[Model], Judgement]:
    """What judges the model of a round: to lose too much ends the rounds, to fail is an error.

    Args:
        judge: of the original.
        work: a folder for the models judged.

    Returns:
        A function that raises DataError where the model cannot be run, or the metric fails on it or gives no
        finite number.
    """

    def judged(model: Model) -> Judgement:
        path = work / "round.onnx"
        save(model, path)
        judgement = judge.judge(Candidate("round", path))
        if judgement.failed:
            raise DataError(f"the pruned model cannot be judged: {judgement.reason}")
        return judgement

    return judged
