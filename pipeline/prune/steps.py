# SPDX-License-Identifier: Apache-2.0
"""Single steps of pruning: plan from a choice, apply, refit, replay; and why nothing can be pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...analysis.coupling import Coupling, couple
from ...graph_ir import Model, UsageError, fingerprint, gc_paused
from ...passes.base import Context
from ...passes.prune.apply import apply_plan
from ...passes.prune.plan import Cut, PrunePlan, Widths
from .job import Pruned, Round
from .refitting import refitted
from .select import Chosen
from .widths import channels_per_atom

if TYPE_CHECKING:
    from ...analysis.coupling import Attention, Group, Pinned
    from ..build.result import Judgement
    from .criteria import Samples

_NAMED = 4  # reasons in one line


@dataclass
class Made:
    """The result of a round, not yet accepted: model, plan, what became of each group, share that is left."""

    model: Model
    plan: PrunePlan
    chosen: list[Chosen]
    left: float


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
    model, note = applied(original, plan), ""
    if refit and feeds is not None:
        model, note = refitted(original, model, plan, coupling, feeds, seed)
    notes = [note] if note else []
    judgement = None if judge is None else judge(model)
    kept = judgement is None or judgement.accepted
    rounds = [] if judgement is None else [Round(plan.rounds, None, None, judgement, kept)]
    stopped = "" if judgement is None or kept else f"the plan does not hold here: {judgement.reason}"
    return Pruned(model, plan, "", rounds, replayed(coupling, plan), coupling.pinned, stopped, notes, kept)


def plan_of(model: Model, chosen: Sequence[Chosen], attention: Attention) -> PrunePlan:
    """The plan for one round; without cuts when every group stays whole."""
    cuts = [
        Cut(c.group, c.atoms, c.kept, c.why, Widths(c.before, c.ideal, c.after)) for c in chosen if c.is_cut
    ]
    return PrunePlan(fingerprint(model), tuple(cuts), attention=attention)


def applied(model: Model, plan: PrunePlan) -> Model:
    """A copy of the model with a plan applied."""
    with gc_paused():
        copy = model.clone()
        apply_plan(copy, plan, Context())
    return copy


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
        found.append(Chosen(group.name, group.atoms, cut.kept, width, ideal, after, cut.why))
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
    return Chosen(group.name, group.atoms, tuple(range(group.atoms)), width, width, width, why)


def joined(first: Chosen, second: Chosen) -> Chosen:
    """Two rounds as one: `second` counts the atoms that `first` left."""
    kept = tuple(first.kept[i] for i in second.kept)
    why = second.why if second.is_cut or not first.is_cut else first.why
    return Chosen(first.group, first.atoms, kept, first.before, second.ideal, second.after, why)


class NothingToPruneError(UsageError):
    """The model has no group: every layer must stay as it is.

    The line names the commonest reasons; all of them are in `pinned`.
    """

    def __init__(self, pinned: Sequence[Pinned]) -> None:
        self.pinned = tuple(pinned)
        super().__init__(f"nothing can be pruned{_why(pinned)}")


def _why(pinned: Sequence[Pinned]) -> str:
    if not pinned:
        return ": the model has no layer that makes channels"
    reasons = Counter(p.reason for p in pinned)
    first = {p.reason: p.node for p in reversed(pinned)}
    told = [f"{first[reason]!r}: {reason}" for reason, _ in reasons.most_common(_NAMED)]
    more = len(pinned) - len(told)
    rest = f"; --explain lists the other {more}" if more else ""
    noun = "its only layer" if len(pinned) == 1 else f"all {len(pinned)} layers"
    return f", {noun} must stay: {'; '.join(told)}{rest}"
