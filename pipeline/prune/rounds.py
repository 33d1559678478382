# SPDX-License-Identifier: Apache-2.0
"""Pruning in rounds: score, select, apply, refit, judge; the last round that holds is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.coupling import couple
from ...graph_ir import Model, UsageError, fingerprint
from ...passes.prune.compose import compose, continued
from ...passes.prune.plan import PrunePlan
from ..tell import Tell, silent
from . import steps
from .criteria import Request, Samples, Scores, predicts_loss
from .effort import WORTH, Effort
from .exclude import excluded
from .job import Job, Origin, Pruned, Round
from .refitting import refitted
from .select import Chosen, Left, Limits, OutOfReachError, select, share_of_each, to_reach
from .spend import Spend
from .to_time import NEAR, to_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling
    from ..builder.result import Judgement
    from .select import Kept
    from .timing import Clock

_HALVED = "groups of one aligned step were cut to half of it, as the budget was out of reach; that saves less"


def prune(
    original: Model,
    job: Job,
    origin: Origin | None = None,
    *,
    feeds: Samples | None = None,
    judge: Callable[[Model], Judgement] | None = None,
    clock: Clock | None = None,
    start: PrunePlan | None = None,
    tell: Tell = silent,
    keep: Callable[[PrunePlan], None] | None = None,
) -> Pruned:
    """Prune a model in rounds.

    Args:
        original: left as it is, but for inferred shapes.
        job: what is wanted.
        origin: what is known of the original besides.
        feeds: for criteria that look at activations, and for the refit.
        judge: says how good a model is; a round it does not accept is the last and is given up.
        clock: measures latency; needed for a latency budget.
        start: a plan for the original to begin with; its rounds count as done.
        tell: told how far it is.
        keep: given the plan so far after every round that holds.

    Raises:
        UsageError: nothing can be pruned, or the budget, the plan or an option does not fit the model.
    """
    work = _Work(original, job, origin or Origin(), feeds, clock, tell)
    if start is not None:
        work.begin_with(start)
    for number in range(work.plan.rounds + 1, job.rounds + 1):
        tell(f"round {number} of {job.rounds}", number - 1, job.rounds)
        try:
            made = work.round(number)
        except OutOfReachError as error:
            if not work.plan.cuts:
                raise
            work.stopped = f"round {number} was not made: {error}"
            break
        if made is None:
            continue
        judgement = None if judge is None else judge(made.model)
        kept = judgement is None or judgement.accepted
        work.rounds.append(Round(number, made.left, job.budget.after(number, job.rounds), judgement, kept))
        if not kept:
            work.give_up(made, f"round {number} was given up: {judgement.reason if judgement else ''}")
            break
        work.accept(made)
        if keep is not None:
            keep(work.plan)
    return work.result()


@dataclass(eq=False)
class _Work:
    """The model so far, and the plan that makes it of the original."""

    _original: Model
    _job: Job
    _origin: Origin
    _feeds: Samples | None
    _clock: Clock | None
    _tell: Tell

    def __post_init__(self) -> None:
        original, job = self._original, self._job
        self._coupling = couple(original, attention=job.attention)
        steps.check_groups(self._coupling, job)
        self._first = self._coupling
        self._groups: dict[str, Chosen] = {}
        self._left = 1.0
        self.model = original
        self._mark = fingerprint(original)
        self._unseen: tuple[steps.Made, set[str]] | None = None
        self.plan = PrunePlan(self._mark, (), 0, job.attention)
        self.rounds: list[Round] = []
        self.stopped = ""
        self._tried: dict[str, Chosen] = {}
        self.notes: list[str] = []
        self._criterion = steps.criterion_of(job, data=self._feeds is not None, clock=self._clock is not None)

    def begin_with(self, plan: PrunePlan) -> None:
        """Start from what a plan for the original leaves."""
        steps.check_start(plan, self._job)
        plan.check(self._original, self._coupling)
        spend = self._spend(excluded(self._original, self._coupling, self._job.exclude))
        chosen = steps.replayed(self._coupling, plan)
        now = np.array([len(c.kept) for c in chosen])
        model = self._refit(steps.applied(self._original, plan, self._coupling), plan)
        left = self._measured(model) if self._kind == "latency" else spend.left(self._kind, now)
        self.accept(steps.Made(model, plan, chosen, left))
        self.plan = plan

    def round(self, number: int) -> steps.Made | None:
        """Cut once more; None when nothing more need go, or widths do not allow it."""
        wanted = self._job.budget.after(number, self._job.rounds)
        if wanted >= self._left or not self._look_again().groups:
            return None
        left_alone = excluded(self.model, self._coupling, self._job.exclude)
        if len(left_alone) == len(self._coupling.groups):
            raise UsageError("nothing can be pruned: --exclude leaves out every group")
        tell = partial(self._tell, f"scoring channels by {self._criterion.name}")
        tell(0, None)
        scores = self._criterion.score(Request(self.model, self._coupling, self._feeds, self._job.seed, tell))
        if self._kind == "latency":
            made = self._by_latency(scores, left_alone, wanted)
        else:
            spend = self._spend(left_alone)

            def left(kept: Kept) -> float:
                return self._left * spend.left(self._kind, kept)

            chosen = self._by_count(spend, scores, left_alone, left, wanted)
            share = left(np.array([len(c.kept) for c in chosen]))
            if self._kind == "ratio":  # of all groups of the original, also those cut no further
                alone = excluded(self._original, self._first, self._job.exclude)
                share = steps.channels_left(self._first, alone, [*self._groups.values(), *chosen])
            made = self._make(chosen, share)
            if made is not None and number == self._job.rounds and self._kind != "ratio":
                made.notes = steps.overshoot(self._job, self._coupling.groups, chosen, left)
        if made is not None:
            plan = compose(self.plan, made.plan) if self.plan.cuts else made.plan
            made.model = self._refit(made.model, plan)
        return made

    def accept(self, made: steps.Made) -> None:
        """Go on from a round's result."""
        self.plan = compose(self.plan, made.plan)
        was, now = ({value.name or "" for value in steps.values(m)} for m in (self.model, made.model))
        self._unseen = made, now - was
        self.model, self._left, self.notes = made.model, made.left, [*self.notes, *made.notes]
        self._groups = steps.along(self._groups, made.chosen)

    def give_up(self, made: steps.Made, why: str) -> None:
        """Stop at what there was before a round; what it would have cut is told."""
        self.stopped = why
        self._tried = steps.along(self._groups, made.chosen)

    def _look_again(self) -> Coupling:
        """Find what can be cut of what the last round left; only another round needs to know."""
        if self._unseen is not None:
            made, added = self._unseen
            self._unseen = None
            again = couple(made.model, attention=self._job.attention)
            self._coupling = continued(self._coupling, made.plan, again, added)
            self.notes += steps.otherwise_tied(made, self._coupling)
            self._mark = fingerprint(made.model)
        return self._coupling

    def result(self) -> Pruned:
        """What has been reached."""
        if not self.rounds and not self.plan.cuts:
            raise steps.NothingCutError(self._job.limits.align)
        if not self.stopped:
            self.notes += steps.missed(self._job.budget, self._left, NEAR)
        groups = steps.told(self._first, self._groups, self.stopped)
        tried = steps.told(self._first, self._tried) if self._tried else []
        return Pruned(
            self.model, self.plan, self._criterion.name, self.rounds, groups, self._first.pinned,
            self.stopped, list(dict.fromkeys(self.notes)), held=bool(self.plan.cuts), tried=tried,
        )  # fmt: skip

    # -- steps --------------------------------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return self._job.budget.kind

    def _spend(self, left_alone: Mapping[str, str]) -> Spend:
        overhead = self._origin.overhead_bytes
        bindings = self._origin.bindings
        return Spend(self.model, self._coupling, bindings=bindings, overhead=overhead, left_alone=left_alone)

    def _select(
        self,
        scores: Scores,
        left_alone: Mapping[str, str],
        left: Left,
        target: float,
        costs_of: Callable[[], NDArray[np.float64]],
        lean: NDArray[np.float64] | None = None,
    ) -> list[Chosen]:
        limits = self._job.limits
        each = self._kind == "ratio" and not limits.whole_model
        costs = costs_of() if predicts_loss(self._criterion.name) and not each else None

        def chosen(limits: Limits) -> list[Chosen]:
            return select(
                self._coupling,
                scores,
                share_of_each(target) if each else to_reach(left, target),
                limits,
                criterion=self._criterion.name,
                excluded=left_alone,
                shares={name: len(c.kept) / c.atoms for name, c in self._groups.items()},
                costs=costs,
                gains=lean,
            )

        try:
            return chosen(limits)
        except OutOfReachError:
            found = chosen(replace(limits, halve=True))
            self.notes.append(_HALVED)
            return found

    def _by_count(
        self, spend: Spend, scores: Scores, left_alone: Mapping[str, str], left: Left, wanted: float
    ) -> list[Chosen]:
        """Select by what can be counted; with an eye on time where that is foreseen to be worth it."""

        def select(lean: NDArray[np.float64] | None = None) -> list[Chosen]:
            return self._select(scores, left_alone, left, wanted, lambda: spend.costs(self._kind), lean)

        plain = select()
        if self._kind != "macs" or self._job.limits.aim != "time":
            return plain
        effort = Effort(spend, self.model, self._job.limits.align, self._origin.bindings)
        leaning = select(effort.gains())
        times = [effort.left(np.array([len(c.kept) for c in chosen])) for chosen in (leaning, plain)]
        return leaning if times[0] <= (1 - WORTH) * times[1] else plain

    def _make(self, chosen: list[Chosen], left: float) -> steps.Made | None:
        plan = steps.plan_of(self._mark, chosen, self._job.attention)
        if not plan.cuts:
            return None
        return steps.Made(steps.applied(self.model, plan, self._coupling), plan, chosen, left)

    def _by_latency(self, scores: Scores, left_alone: Mapping[str, str], wanted: float) -> steps.Made | None:
        assert self._clock is not None
        predictor = self._clock.predictor(self.model, self._coupling, self._job.limits.align)
        self.notes += [note] if (note := self._clock.note()) else []

        def left(kept: Kept) -> float:
            return self._left * predictor.left(kept)

        def measured(made: steps.Made, attempt: int, attempts: int) -> float:
            self._tell("timing the pruned model", attempt, attempts)
            return self._measured(made.model)

        return to_time(
            lambda goal: self._select(scores, left_alone, left, goal, predictor.costs),
            lambda chosen: self._make(chosen, 1.0),
            left,
            measured,
            start=self._left,
            wanted=wanted,
        )

    def _measured(self, model: Model) -> float:
        assert self._clock is not None
        return self._clock.ratio(model)

    def _refit(self, model: Model, plan: PrunePlan) -> Model:
        if not self._job.refit or self._feeds is None:
            return model
        seed, tell = self._job.seed, self._tell
        model, note = refitted(self._original, model, plan, self._first, self._feeds, seed, tell=tell)
        self.notes += [note] if note and note not in self.notes else []
        return model
