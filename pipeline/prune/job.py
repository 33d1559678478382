# SPDX-License-Identifier: Apache-2.0
"""What pruning is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...graph_ir import Model, UsageError
from .budget import Budget
from .select import Chosen, Limits

if TYPE_CHECKING:
    from ...analysis.coupling import Attention, Pinned
    from ...passes.prune.plan import PrunePlan
    from ..builder.result import Judgement

FAR_DB = 10.0  # of SQNR: a third of the outputs' size is noise


@dataclass(frozen=True)
class Job:
    """What is wanted.

    Attributes:
        budget: how much is to go.
        criterion: its name; None takes the default (`reconstruction` with data, `l2` without).
        limits: alignment and bounds.
        exclude: see `exclude.excluded`.
        rounds: how many.
        refit: whether to refit weights on the data after each round.
        seed: of the criterion and the refit.
        attention: what a decomposed attention loses: whole heads, or the same of every head's width.

    Raises:
        UsageError: no rounds.
    """

    budget: Budget
    criterion: str | None = None
    limits: Limits = field(default_factory=Limits)
    exclude: tuple[str, ...] = ()
    rounds: int = 1
    refit: bool = True
    seed: int = 0
    attention: Attention = "heads"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--rounds must be at least 1, not {self.rounds}")


@dataclass(frozen=True)
class Origin:
    """What is known of the original besides its graph.

    Attributes:
        bindings: sizes of named dims, for counting MACs.
        overhead_bytes: what its files hold besides weights.
    """

    bindings: Mapping[str, int] = field(default_factory=dict[str, int])
    overhead_bytes: int = 0


@dataclass(frozen=True)
class Round:
    """What came of one round.

    Attributes:
        number: from 1.
        left: share of the original's budgeted quantity that is left; measured for latency. None in a replay.
        wanted: what was wanted of it.
        judgement: against the original; None without anything to judge by.
        kept: whether the result goes on; the last one does not when it loses too much.
    """

    number: int
    left: float | None
    wanted: float | None
    judgement: Judgement | None
    kept: bool = True


@dataclass
class Pruned:
    """The outcome.

    Attributes:
        model: pruned.
        plan: for the original.
        criterion: that ranked the atoms.
        rounds: in order, one that was given up included.
        groups: what became of every group of the original, in its order.
        pinned: what cannot be cut, and why.
        stopped: why it ended before the last round; empty when it did not.
        notes: for people.
        held: whether there is a result to go on with: something was cut, and judged good enough.
        tried: what the round that was given up would have made of groups; empty when none was.
    """

    model: Model
    plan: PrunePlan
    criterion: str
    rounds: list[Round]
    groups: list[Chosen]
    pinned: tuple[Pinned, ...]
    stopped: str = ""
    notes: list[str] = field(default_factory=list[str])
    held: bool = True
    tried: list[Chosen] = field(default_factory=list["Chosen"])

    def far(self) -> list[str]:
        """A note where what is left answers so far from the original that it can hardly serve as it is."""
        judged = [each.judgement for each in self.rounds if each.kept and each.judgement is not None]
        if not judged or not judged[-1].fidelity or not judged[-1].sqnr_db < FAR_DB:
            return []
        distance = f"{judged[-1].sqnr_db:.1f} dB of SQNR"
        return [
            f"the outputs are far from the original's ({distance}): train the result again, or remove less"
        ]
