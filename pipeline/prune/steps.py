# SPDX-License-Identifier: Apache-2.0
"""Single steps of pruning: plan from a choice, apply, refit, replay; and why nothing can be pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.coupling import Coupling, couple
from ...graph_ir import Model, UsageError, Value, gc_paused
from ...graph_ir.ops import walk_graphs
from ...passes.base import Context
from ...passes.prune.apply import apply_masks
from ...passes.prune.plan import Cut, PrunePlan, Widths
from .budget import FAR, UNITS, Budget
from .criteria import DEFAULT_WITH_DATA, DEFAULT_WITHOUT_DATA, get
from .job import Job, Pruned, Round
from .refitting import refitted
from .select import Chosen
from .widths import LEAST, channels_per_atom, steps

if TYPE_CHECKING:
    from ...analysis.coupling import Attention, Group, Pinned
    from ..builder.result import Judgement
    from .criteria import Criterion, Samples
    from .select import Left

_NAMED = 4  # reasons in one line
_FAR_FROM_TIME = 0.1  # so much less time than was wanted is worth a word


@dataclass
class Made:
    """The result of a round, not yet accepted: model, plan, what became of each group, share that is left."""

    model: Model
    plan: PrunePlan
    chosen: list[Chosen]
    left: float
    notes: list[str] = field(default_factory=list[str])


def replay(
    original: Model,
    plan: PrunePlan,
    *,
    feeds: Samples | None = None,
    refit: bool = True,
    judge: Callable[[Model], Judgement] | None = None,
    seed: int = 0,
) -> Pruned:
    """Apply a plan that was made before.

    Raises:
        UsageError: it is not for this model.
    """
    coupling = couple(original, attention=plan.attention)
    plan.check(original, coupling)
    model, note = applied(original, plan, coupling), ""
    if refit and feeds is not None:
        model, note = refitted(original, model, plan, coupling, feeds, seed)
    notes = [note] if note else []
    judgement = None if judge is None else judge(model)
    kept = judgement is None or judgement.accepted
    rounds = [] if judgement is None else [Round(plan.rounds, None, None, judgement, kept)]
    stopped = "" if judgement is None or kept else f"the plan does not hold here: {judgement.reason}"
    return Pruned(model, plan, "", rounds, replayed(coupling, plan), coupling.pinned, stopped, notes, kept)


def criterion_of(job: Job, *, data: bool, clock: bool) -> Criterion:
    """The criterion that a job names, or the default.

    Raises:
        UsageError: there is none of that name, or the job needs data and there is none.
    """
    found = get(job.criterion or (DEFAULT_WITH_DATA if data else DEFAULT_WITHOUT_DATA))
    if found.needs_data and not data:
        raise UsageError(f"criterion {found.name!r} looks at activations; give --data")
    if job.budget.kind == "latency" and not clock:
        raise UsageError("a latency budget needs inputs to run the model on; give --data")
    return found


def check_start(plan: PrunePlan, job: Job) -> None:
    """Whether a run can go on from a plan.

    Raises:
        UsageError: it sums up all the rounds there are to be, or cuts attention otherwise.
    """
    if plan.rounds >= job.rounds:
        raise UsageError(
            f"the plan sums up {plan.rounds} rounds; to go on from it give more than that by --rounds"
        )
    if plan.attention != job.attention:
        raise UsageError(f"the plan cuts {plan.attention}: give --attention {plan.attention}, too")


def check_groups(coupling: Coupling, job: Job) -> None:
    """Whether there is anything to prune, and what the job's bounds are for.

    Raises:
        UsageError: not so.
    """
    if not coupling.groups:
        raise NothingToPruneError(coupling.pinned)
    job.limits.check(coupling.groups)


def plan_of(mark: str, chosen: Sequence[Chosen], attention: Attention) -> PrunePlan:
    """The plan for one round of the model with a fingerprint; without cuts when every group stays whole."""
    cuts = [
        Cut(c.group, c.atoms, c.kept, c.why, Widths(c.before, c.ideal, c.after)) for c in chosen if c.is_cut
    ]
    return PrunePlan(mark, tuple(cuts), attention=attention)


def applied(model: Model, plan: PrunePlan, coupling: Coupling) -> Model:
    """A copy of the model with a plan applied.

    Args:
        model: as `couple` left it.
        plan: for this model; that is not looked into again.
        coupling: of the model.
    """
    with gc_paused():
        copy = model.clone()
        twins = dict(zip(values(model), values(copy), strict=True))
        masks = plan.masks(coupling)
        apply_masks(copy, {(twins[value], axis): mask for (value, axis), mask in masks.items()}, Context())
    return copy


def values(model: Model) -> Iterator[Value]:
    """What the graphs hold and compute, in an order that is the same for a copy."""
    for graph in walk_graphs(model):
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs


def replayed(coupling: Coupling, plan: PrunePlan) -> list[Chosen]:
    """What a plan makes of every group."""
    found: list[Chosen] = []
    cuts = {cut.group: cut for cut in plan.cuts}
    for group in coupling.groups:
        cut = cuts.get(group.name)
        if cut is None:
            found.append(whole(group, "the plan leaves it whole"))
            continue
        per_atom = channels_per_atom(group)
        width, after = group.atoms * per_atom, len(cut.kept) * per_atom
        ideal = after if cut.widths is None else cut.widths.ideal
        found.append(Chosen(group.name, group.atoms, cut.kept, width, ideal, after, cut.why, group.heads))
    return found


def channels_left(first: Coupling, alone: Container[str], chosen: Iterable[Chosen]) -> float:
    """The share of the original's channels that is left.

    Args:
        first: the coupling of the original.
        alone: groups that do not count.
        chosen: what became of groups, the latest last; the others are whole.
    """
    before = {g.name: g.atoms * channels_per_atom(g) for g in first.groups if g.name not in alone}
    now = {c.group: c.after for c in chosen}
    return sum(now.get(name, width) for name, width in before.items()) / sum(before.values())


def whole(group: Group, why: str) -> Chosen:
    """A group that loses nothing."""
    width = group.atoms * channels_per_atom(group)
    return Chosen(group.name, group.atoms, tuple(range(group.atoms)), width, width, width, why, group.heads)


def missed(budget: Budget, left: float, near: float) -> list[str]:
    """A note when more is left than was wanted, by more than does not matter, or far less of the time."""
    unit = UNITS[budget.kind]
    if budget.kind != "latency":
        more = left > budget.left * (1 + near)
        return [f"{left:.1%} of the {unit} are left where {budget.left:.1%} were wanted"] if more else []
    if budget.left * (1 - _FAR_FROM_TIME) <= left <= budget.left * (1 + near):
        return []
    tried = "faster" if left > budget.left else "nearer"
    return [
        f"{left:.1%} of the {unit} is left where {budget.left:.1%} was wanted: no widths tried are {tried}"
    ]


def overshoot(job: Job, groups: Sequence[Group], chosen: Sequence[Chosen], left: Left) -> list[str]:
    """A note when much less is left than was wanted, since the next width of a group leaves too much.

    Args:
        job: what was wanted.
        groups: of the model that was cut.
        chosen: what became of each.
        left: the share of the original that is left when the groups keep so many atoms.
    """
    wanted, align = job.budget.left, job.limits.align
    kept = np.array([len(c.kept) for c in chosen], np.int64)
    now = left(kept)
    wider: list[tuple[float, Chosen, int, int]] = []
    for i, (group, c) in enumerate(zip(groups, chosen, strict=True)):
        if c.is_cut and wanted - now > FAR:
            more = np.array(kept, np.int64)
            step = steps(group, align).step
            more[i] = min(group.atoms, kept[i] + step)
            wider.append((left(more), c, int(more[i]) * channels_per_atom(group), step))
    none = 0.0, None, 0, 1
    then, tight, width, step = min((w for w in wider if w[0] > wanted), key=lambda w: w[0], default=none)
    if tight is None:
        return []
    lower = f"; an alignment below {align} comes closer, at widths that are slower"
    return [
        f"{now:.1%} of the {UNITS[job.budget.kind]} are left where {wanted:.1%} were wanted: {tight.group!r} "
        f"keeps {tight.after} channels, and with {width}, its next width, {then:.1%} would be left"
        + (lower if align > LEAST and step > 1 else "")
    ]


def told(coupling: Coupling, groups: Mapping[str, Chosen], why: str = "") -> list[Chosen]:
    """What became of every group, in order; those not named are whole, and why."""
    return [groups.get(group.name) or whole(group, why) for group in coupling.groups]


def along(groups: Mapping[str, Chosen], chosen: Iterable[Chosen]) -> dict[str, Chosen]:
    """What became of groups with one more round."""
    later = {c.group: _joined(groups[c.group], c) if c.group in groups else c for c in chosen}
    return {**groups, **later}


def otherwise_tied(made: Made, left: Coupling) -> list[str]:
    """A note when groups that a round cut are no groups any more."""
    lost = {c.group for c in made.chosen if len(c.kept) > 1} - {g.name for g in left.groups}
    return [f"{len(lost)} groups hang together otherwise once cut, and were cut no further"] if lost else []


def _joined(first: Chosen, second: Chosen) -> Chosen:
    """Two rounds as one: `second` counts the atoms that `first` left."""
    kept = tuple(first.kept[i] for i in second.kept)
    why = second.why if second.is_cut or not first.is_cut else first.why
    return Chosen(first.group, first.atoms, kept, first.before, second.ideal, second.after, why, first.heads)


class NothingToPruneError(UsageError):
    """The model has no group: every layer must stay as it is.

    The line names the commonest reasons; all of them are in `pinned`.
    """

    def __init__(self, pinned: Sequence[Pinned]) -> None:
        self.pinned = tuple(pinned)
        super().__init__(f"nothing can be pruned{_why(pinned)}")


class NothingCutError(UsageError):
    """Every group would keep its width."""

    def __init__(self, align: int) -> None:
        super().__init__(
            f"nothing is cut: every group rounds back to the width it has with --align {align}; "
            "give a smaller --align or remove more"
        )


def _why(pinned: Sequence[Pinned]) -> str:
    if not pinned:
        return ": the model has no layer that makes a known number of channels"
    reasons = Counter(p.reason for p in pinned)
    first = {p.reason: p.node for p in reversed(pinned)}
    told = [f"{first[reason]!r}: {reason}" for reason, _ in reasons.most_common(_NAMED)]
    more = len(pinned) - len(told)
    rest = f"; --explain lists the other {more}" if more else ""
    noun = "its only layer" if len(pinned) == 1 else f"all {len(pinned)} layers"
    return f", {noun} must stay: {'; '.join(told)}{rest}"
