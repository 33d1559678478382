# SPDX-License-Identifier: Apache-2.0
"""Which atoms go: scores, a budget and limits make a plan.

All atoms of all groups stand in one line, the least important first, and the first `p` of them are asked to
go; each group rounds what is left to a width it may have. What remains of the model shrinks with `p`, so the
smallest `p` that meets the budget is found by bisection; what its last step saved too much goes back. Nothing
is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from .choice import Chosen, Kept, Left, Limits, OutOfReachError
from .line import Line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling

__all__ = [
    "Chosen",
    "Kept",
    "Left",
    "Limits",
    "OutOfReachError",
    "Rule",
    "select",
    "share_of_each",
    "to_reach",
]

Rule: TypeAlias = "Callable[[Line], tuple[Kept, Kept]]"
"""How many atoms the groups keep: ideally, and within their limits."""


def select(
    coupling: Coupling,
    scores: Mapping[str, NDArray[np.float64]],
    rule: Rule,
    limits: Limits,
    *,
    criterion: str = "score",
    excluded: Mapping[str, str] | None = None,
    shares: Mapping[str, float] | None = None,
    costs: NDArray[np.float64] | None = None,
    gains: NDArray[np.float64] | None = None,
) -> list[Chosen]:
    """Choose the atoms that stay.

    Args:
        coupling: of the model.
        scores: group name -> [atoms], higher is more important; across groups they are compared after
            `normalise`. Groups left out stay whole.
        rule: says how many atoms the groups keep: `to_reach` or `share_of_each`.
        limits: alignment and bounds.
        criterion: name of the scores, for the reasons.
        excluded: group name -> why it stays whole.
        shares: group name -> how much of the original model's group it is, 1 when left out.
        costs: what an atom of each group takes of what the budget counts, for scores that are losses: atoms
            of all groups then go by loss per cost.
        gains: by group, what it saves of the time over what it saves of the budget (`effort.gains`); groups
            that save more give up more. 1 for all when left out.

    Returns:
        One entry for each group, in the order of the coupling.

    Raises:
        OutOfReachError: the budget cannot be reached.
        UsageError: a limit is impossible, or a score is not finite.
    """
    line = Line(coupling, scores, limits, excluded or {}, shares or {}, costs=costs, gains=gains)
    ideal, kept = rule(line)
    return [line.chosen(i, int(ideal[i]), int(kept[i]), criterion) for i in range(len(coupling.groups))]


def to_reach(left: Left, target: float) -> Rule:
    """Remove as little as brings `left` down to the target; it must not grow when fewer atoms are kept."""

    def rule(line: Line) -> tuple[Kept, Kept]:
        ideal = line.ideal(line.shortest(left, target))
        return ideal, line.evened(line.refilled(ideal, left, target), left, target)

    return rule


def share_of_each(share: float) -> Rule:
    """Keep this share of every group, as it was in the original model.

    Groups that are a single step wide stay; where that leaves far too much, the budget is out of reach unless
    they may be halved.
    """

    def rule(line: Line) -> tuple[Kept, Kept]:
        ideal = line.share(share)
        kept = line.snapped(ideal)
        if line.is_stuck(ideal, kept):
            raise OutOfReachError(
                f"{share:.1%} of the channels cannot be reached while groups of a single aligned step stay "
                "whole; lower --align or remove less"
            )
        return ideal, kept

    return rule
