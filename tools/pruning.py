# SPDX-License-Identifier: Apache-2.0
"""`tersor prune` over files: open, prepare, prune, measure, write."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from ..analysis.observed import observed_sizes
from ..backends.base import BackendError, Feed
from ..backends.onnxruntime.latency import Latency
from ..calibration import Feeds, open_feeds
from ..graph_ir import DataError, Model, UsageError, load, save, signature_of
from ..passes.base import Context
from ..passes.prune.plan import PrunePlan, load_plan
from ..pipeline import manager
from ..pipeline.amounts import metric_share
from ..pipeline.builder.accuracy import Judge
from ..pipeline.builder.model_facts import bindings_in, drawn, facts_of, is_quantized, sized
from ..pipeline.builder.pruning import judging, overhead
from ..pipeline.builder.result import Candidate, Facts, Judgement
from ..pipeline.builder.settings import MAX_DROP, BuildSettings
from ..pipeline.instruments import Verify
from ..pipeline.outputs import made_folder, save_over
from ..pipeline.presets import PRUNE_READY
from ..pipeline.prune.job import Job, Origin, Pruned
from ..pipeline.prune.report import PruneReport, counted_from
from ..pipeline.prune.rounds import prune
from ..pipeline.prune.sparsify import SparsityOptions, SparsityReport, sparsify
from ..pipeline.prune.steps import replay
from ..pipeline.prune.table import Table, cache_folder
from ..pipeline.prune.timing import Clock
from ..pipeline.spec import parse
from ..pipeline.tell import Tell, silent
from .prune_paths import refuse_paths, refuse_weights

JUDGING_FEEDS = 32
ORIGINAL = "original.onnx"


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        model: read only.
        out: where the result goes; None writes nothing.
        job: what to prune; None replays `plan`, or only sets weights to zero.
        plan: a plan to replay, or, with a job, to go on from.
        save_plan: where the plan goes; written after every round that holds.
        sparsity: single weights to set to zero, instead of a job.
        refit: whether a replay refits weights.
        data: see `calibration.open_feeds`.
        samples: how many of the feeds are used at most.
        metric: `module:function`.
        max_drop: share of the metric that may be lost; None takes that of a build.
        cache: folder for measured tables; None takes the user's.
        threads: of measured runs.
        seed: of criteria, the refit and drawn inputs.
        tell: told how far it is.
    """

    model: Path
    out: Path | None = None
    job: Job | None = None
    plan: Path | None = None
    save_plan: Path | None = None
    sparsity: SparsityOptions | None = None
    refit: bool = True
    data: str | None = None
    samples: int = 64
    metric: str | None = None
    max_drop: float | None = None
    cache: Path | None = None
    threads: int = 1
    seed: int = 0
    tell: Tell = silent

    def check(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            UsageError: naming the option.
        """
        if self.samples < 1:
            raise UsageError(f"--samples must be at least 1, not {self.samples}")
        if self.threads < 0:
            raise UsageError(f"--threads must not be negative, not {self.threads}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, not {self.seed}")
        if self.max_drop is not None and self.metric is None:
            raise UsageError("--max-drop is a share of the metric; give --metric too")
        metric_share(0.0 if self.max_drop is None else self.max_drop)
        if self.cache is not None and (self.job is None or self.job.budget.kind != "latency"):
            raise UsageError("--cache holds what --latency measures; leave it out or give --latency")
        if self.job is None and self.plan is None and self.sparsity is None:
            raise UsageError("say how much is to go: --ratio 0.3, --macs 0.5, --latency 0.6, or a --plan")


@dataclass
class _Subject:
    """The prepared model with what it is judged by."""

    model: Model
    path: Path
    feeds: Feeds | None
    shown: Sequence[Feed]
    folder: Path
    notes: list[str] = field(default_factory=list[str])

    def bindings(self, *, inputs: bool = False) -> dict[str, int]:
        """Sizes of the names that the inputs have, and unless told so of those that only a run tells."""
        found = bindings_in(signature_of(self.model), self.shown)
        return observed_sizes(self.model, found, self.shown[0]) if self.shown and not inputs else found


def prune_file(settings: Settings) -> PruneReport:
    """Prune a model file into another one.

    The output is written beside and renamed at the end; on an error nothing is left but the plan of the
    rounds that held, if that was asked for. Where the first round, or setting weights to zero, already loses
    too much, no model is written.

    Raises:
        UsageError: an option is wrong, nothing can be pruned, or the plan is for another model.
        ModelError, DataError: wrong input, or a metric that fails.
    """
    settings.check()
    refuse_paths(
        settings.model,
        out=settings.out,
        save_plan=settings.save_plan,
        plan=settings.plan,
        data=settings.data,
        metric=settings.metric,
        cache=settings.cache,
    )
    plan = None if settings.plan is None else load_plan(settings.plan)
    model = load(settings.model)
    refuse_weights(model, out=settings.out, save_plan=settings.save_plan)
    with tempfile.TemporaryDirectory(prefix="tersor-prune-") as folder:
        try:
            subject = _prepared(model, settings, Path(folder))
            return _run(subject, settings, plan)
        except (BackendError, DataError) as error:  # the caller knows the model by its own name only
            said = str(error).replace(str(Path(folder) / ORIGINAL), str(settings.model))
            if said == str(error):
                raise
            raise type(error)(said) from error


def _prepared(model: Model, settings: Settings, folder: Path) -> _Subject:
    """Bring the model into the form channels are removed from: see `presets.PRUNE_READY`."""
    context = Context(seed=settings.seed)
    manager.run(parse(PRUNE_READY), model, context, [Verify()])
    path = folder / ORIGINAL
    save(model, path)
    signature = signature_of(model)
    feeds = None if settings.data is None else open_feeds(settings.data, model, limit=settings.samples)
    shown: Sequence[Feed] = (
        list(islice(feeds, JUDGING_FEEDS)) if feeds is not None else drawn(path, signature, settings.seed)
    )
    notes = [*context.notes, *(() if feeds is None else feeds.notes)]
    return _Subject(model, path, feeds, shown, folder, notes)


def _run(subject: _Subject, settings: Settings, plan: PrunePlan | None) -> PruneReport:
    clock = _clock(subject, settings)
    judge, reference = _judge(subject, settings)
    pruned: Pruned | None = None
    zeros: SparsityReport | None = None
    judgement: Judgement | None = None
    result = subject.model
    if settings.sparsity is not None:
        result = subject.model.clone()
        zeros = sparsify(result, settings.sparsity, subject.feeds)
        judgement = None if judge is None else judge(result)
    elif settings.job is None:
        assert plan is not None
        pruned = replay(
            subject.model, plan, feeds=subject.feeds, refit=settings.refit, judge=judge, seed=settings.seed
        )
    else:
        bindings = subject.bindings()
        origin = Origin(bindings, overhead(subject.model, subject.path, bindings))
        pruned = prune(
            subject.model,
            settings.job,
            origin,
            feeds=subject.feeds,
            judge=judge,
            clock=clock,
            start=plan,
            tell=settings.tell,
            keep=None if settings.save_plan is None else _saver(settings.save_plan),
        )
    if pruned is not None:
        result = pruned.model
        if settings.save_plan is not None and pruned.plan.cuts:
            _saver(settings.save_plan)(pruned.plan)
    times: Mapping[str, Latency] = {}
    if clock is not None:
        settings.tell("timing", 0, None)
        times = clock.times(result)
    before, start, after = _facts(subject, settings.model, result)
    budget = None if settings.job is None else settings.job.budget
    report = PruneReport(
        pruned=pruned,
        budget=budget,
        before=before,
        after=after,
        times=times,
        threads=settings.threads,
        reference=reference,
        written=False,
        sparsity=zeros,
        judgement=judgement,
        notes=[*counted_from(budget, before, start), *_notes(subject, settings, pruned, timed=bool(times))],
    )
    if settings.out is None or not report.held:
        return report
    save_over(result, settings.out)
    return replace(report, written=True)


def _facts(subject: _Subject, given: Path, result: Model) -> list[Facts]:
    """Figures of the file that was given, of the model it was made into, and of the result."""
    save(result, path := subject.folder / "pruned.onnx")
    bindings = subject.bindings(inputs=True)
    return [facts_of(file, bindings, *subject.shown[:1]) for file in (given, subject.path, path)]


def _notes(subject: _Subject, settings: Settings, pruned: Pruned | None, *, timed: bool) -> list[str]:
    found = [*subject.notes, *([] if pruned is None else [*pruned.notes, *pruned.far()])]
    found += sized(subject.bindings(inputs=True)) if settings.data is None else []
    if is_quantized(subject.model):
        found.append(
            "the model is quantized already, and its scales stay as they were measured; better prune the "
            "float model and quantize the result"
        )
    if not timed:
        found.append("no input could be drawn that the model runs on, so nothing was timed; give data")
    if settings.metric is None:
        found.append("without a metric the accuracy was not judged: nothing says how much of it is left")
    if settings.data is None and pruned is not None:
        found.append(
            "without data no weights were refitted to make up for what was removed; expect to train the "
            "result again, or give data"
        )
    return found


def _clock(subject: _Subject, settings: Settings) -> Clock | None:
    if not subject.shown:
        return None
    progress = partial(settings.tell, "timing layers")
    table = Table(cache_folder(settings.cache), settings.threads, progress=progress)
    return Clock(
        subject.path,
        subject.shown[0],
        subject.folder,
        table=table,
        threads=settings.threads,
        bindings=subject.bindings(),
    )


def _judge(subject: _Subject, settings: Settings) -> tuple[Callable[[Model], Judgement] | None, float | None]:
    """What says how good a round is, and the original's own figure; closeness alone never stops a run."""
    if settings.metric is None and settings.data is None:
        return None, None
    wanted = BuildSettings(
        settings.model,
        Path(),
        metric=settings.metric,
        max_drop=MAX_DROP if settings.max_drop is None else settings.max_drop,
        min_sqnr_db=-math.inf,
    )
    shown: Sequence[Feed] = subject.shown if settings.data is not None else ()
    judge = Judge(Candidate("original", subject.path), shown, wanted)
    judge_round = judging(judge, subject.folder)

    def judged(model: Model) -> Judgement:
        settings.tell("judging", 0, None)
        return judge_round(model)

    return judged, judge.reference


def _saver(path: Path) -> Callable[[PrunePlan], None]:
    def save_plan(plan: PrunePlan) -> None:
        with made_folder(path.parent):
            plan.save(path)

    return save_plan
