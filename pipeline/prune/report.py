# SPDX-License-Identifier: Apache-2.0
"""What a run of the pruner has to say: groups, what is pinned, rounds, and the figures before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .budget import UNITS, Budget
from .job import Pruned, Round

if TYPE_CHECKING:
    from ...backends.onnxruntime.latency import Latency
    from ..builder.result import Facts, Judgement
    from .select import Chosen
    from .sparsify import SparsityReport


_MUCH = 0.01  # so far apart the given model and the simplified one are worth a word


def counted_from(budget: Budget | None, given: Facts, start: Facts) -> list[str]:
    """A note where a budget is a share of something else than the figures before.

    Args:
        budget: what was asked for.
        given: figures of the file.
        start: of the model that channels are removed from (`presets.PRUNE_READY`).
    """
    if budget is None or budget.kind not in ("params", "macs", "size"):
        return []
    was, now = (
        {"params": facts.parameters, "macs": facts.macs, "size": facts.size}[budget.kind]
        for facts in (given, start)
    )
    if abs(now - was) <= _MUCH * was:
        return []
    return [f"the share is of {now} {UNITS[budget.kind]}: so many are left once the model is simplified"]


@dataclass(frozen=True, repr=False)
class PruneReport:
    """Everything there is to say.

    Attributes:
        pruned: what came of it; None when only single weights were set to zero.
        budget: what was asked for; None in a replay.
        before: the file that was given.
        after: the result.
        times: `original` and `pruned`, measured turn by turn; empty when the model could not be run.
        threads: of the measured runs.
        reference: the metric of the original; None without one.
        written: whether a model was written.
        sparsity: what masks did.
        judgement: of a model with masks; None without anything to judge by.
        notes: for people.
    """

    pruned: Pruned | None
    budget: Budget | None
    before: Facts
    after: Facts
    times: Mapping[str, Latency]
    threads: int
    reference: float | None
    written: bool
    sparsity: SparsityReport | None = None
    judgement: Judgement | None = None
    notes: Sequence[str] = field(default_factory=list[str])

    def __repr__(self) -> str:
        before, after = self.before, self.after
        sizes = f"parameters {before.parameters} -> {after.parameters}, MACs {before.macs} -> {after.macs}"
        return f"PruneReport({sizes}, held={self.held}, written={self.written}; see to_dict(), notes)"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        latency = {
            name: {"median_ms": t.median_ms, "p10_ms": t.p10_ms, "p90_ms": t.p90_ms}
            for name, t in self.times.items()
        }
        found: dict[str, Any] = {
            "written": self.written,
            "before": vars(self.before),
            "after": vars(self.after),
            "latency": {"threads": self.threads, **latency},
            "metric": {"before": self.reference, "after": self.metric_after},
            "notes": list(self.notes),
        }
        if self.sparsity is not None:
            found["sparsity"] = self.sparsity.to_json()
            found["stopped"] = self.stopped
        if self.pruned is not None:
            found |= _pruned(self.pruned)
        if self.budget is not None:
            found["budget"] = {self.budget.kind: self.budget.value}
        return found

    @property
    def held(self) -> bool:
        """Whether there is a result that keeps within the limits."""
        if self.judgement is not None:
            return self.judgement.accepted
        return self.pruned is None or self.pruned.held

    @property
    def stopped(self) -> str:
        """Why it ended early; empty when it did not."""
        if self.judgement is not None:
            return self.judgement.reason
        return "" if self.pruned is None else self.pruned.stopped

    @property
    def metric_after(self) -> float | None:
        """The metric of the last round that held, or with masks; None without one."""
        if self.judgement is not None:
            return self.judgement.metric
        kept = [] if self.pruned is None else [r for r in self.pruned.rounds if r.kept and r.judgement]
        return kept[-1].judgement.metric if kept and kept[-1].judgement is not None else None


def _pruned(pruned: Pruned) -> dict[str, Any]:
    return {
        "criterion": pruned.criterion,
        "fingerprint": pruned.plan.fingerprint,
        "stopped": pruned.stopped,
        "rounds": [round_facts(each) for each in pruned.rounds],
        "groups": [_group(g) for g in pruned.groups],
        "tried": [_group(g) for g in pruned.tried],
        "pinned": [vars(pin) for pin in pruned.pinned],
    }


def _group(group: Chosen) -> dict[str, Any]:
    return {
        "group": group.group,
        "atoms": group.atoms,
        "heads": group.heads,
        "kept": len(group.kept),
        "width": {"before": group.before, "ideal": group.ideal, "after": group.after},
        "why": group.why,
    }


def round_facts(each: Round) -> dict[str, Any]:
    """One round as plain data."""
    judgement = each.judgement
    sqnr = None if judgement is None or not judgement.fidelity else judgement.sqnr_db
    return {
        "round": each.number,
        "left": each.left,
        "wanted": each.wanted,
        "metric": None if judgement is None else judgement.metric,
        "drop": None if judgement is None else judgement.drop,
        "sqnr_db": None if sqnr is None or math.isnan(sqnr) else sqnr,
        "kept": each.kept,
        "reason": "" if judgement is None else judgement.reason,
    }
