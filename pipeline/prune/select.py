# SPDX-License-Identifier: Apache-2.0
"""Which atoms go: scores, a budget and limits make a plan.

All atoms of all groups stand in one line, the least important first, and the first `p` of them are asked to
go; each group rounds what is left to a width it may have. What remains of the model shrinks with `p`, so the
smallest `p` that meets the budget is found by bisection. Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...graph_ir import UsageError
from .criteria import normalise
from .widths import ALIGN, Steps, channels_per_atom, steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling, Group

Kept: TypeAlias = "NDArray[np.int64]"
"""How many atoms each group keeps, in the order of the coupling."""

Left: TypeAlias = "Callable[[Kept], float]"
"""The share of the original that is then left of what the budget counts."""

_SLACK = 1e-9


class OutOfReachError(UsageError):
    """No choice of widths within the limits meets the budget."""


@dataclass(frozen=True)
class Limits:
    """What a plan must respect.

    Attributes:
        align: widths are multiples of this where they were before; 1 allows any.
        min_keep, max_keep: least and largest share of its channels each group keeps.
        keep: (glob over group names, least, largest) for single groups; the last that fits counts.
        whole_model: compare atoms across groups; otherwise each group loses about the same share, unless the
            scores are losses and the budget is no ratio (`criteria.predicts_loss`).
        halve: let groups that are a single step wide go down to half of it.
    """

    align: int = ALIGN["onnxruntime-cpu"]
    min_keep: float = 0.1
    max_keep: float = 1.0
    keep: tuple[tuple[str, float, float], ...] = ()
    whole_model: bool = False
    halve: bool = False

    def of(self, group: Group, share: float = 1.0) -> tuple[float, float]:
        """Least and largest share of the group to keep.

        Args:
            group: as it is now.
            share: how much of the group of the original model that is.
        """
        least, most = self.min_keep, self.max_keep
        for glob, low, high in self.keep:
            if fnmatchcase(group.name, glob):
                least, most = low, high
        return min(1.0, least / share), min(1.0, most / share)


@dataclass(frozen=True)
class Chosen:
    """What becomes of one group; widths are in channels of its narrowest activation.

    Attributes:
        group: its name.
        atoms: of the group.
        kept: sorted numbers of the atoms that stay.
        before: width before.
        ideal: width the scores and the budget ask for.
        after: width after alignment and limits.
        why: a few words.
    """

    group: str
    atoms: int
    kept: tuple[int, ...]
    before: int
    ideal: int
    after: int
    why: str

    @property
    def is_cut(self) -> bool:
        """Whether anything goes."""
        return len(self.kept) < self.atoms


def select(
    coupling: Coupling,
    scores: Mapping[str, NDArray[np.float64]],
    rule: Callable[[Line], Kept],
    limits: Limits,
    *,
    criterion: str = "score",
    excluded: Mapping[str, str] | None = None,
    shares: Mapping[str, float] | None = None,
    costs: NDArray[np.float64] | None = None,
) -> list[Chosen]:
    """Choose the atoms that stay.

    Args:
        coupling: of the model.
        scores: group name -> [atoms], higher is more important; across groups they are compared after
            `normalise`. Groups left out stay whole.
        rule: says how many atoms the groups ideally keep: `to_reach` or `share_of_each`.
        limits: alignment and bounds.
        criterion: name of the scores, for the reasons.
        excluded: group name -> why it stays whole.
        shares: group name -> how much of the original model's group it is, 1 when left out.
        costs: what an atom of each group takes of what the budget counts, for scores that are losses: atoms
            of all groups then go by loss per cost.

    Returns:
        One entry for each group, in the order of the coupling.

    Raises:
        OutOfReachError: the budget cannot be reached.
        UsageError: a limit is impossible, or a score is not finite.
    """
    line = Line(coupling, scores, limits, excluded or {}, shares or {}, costs)
    ideal = rule(line)
    kept = line.snapped(ideal)
    return [line.chosen(i, int(ideal[i]), int(kept[i]), criterion) for i in range(len(coupling.groups))]


def to_reach(left: Left, target: float) -> Callable[[Line], Kept]:
    """Remove as little as brings `left` down to the target; it must not grow when fewer atoms are kept."""
    return lambda line: line.ideal(line.shortest(left, target))


def share_of_each(share: float) -> Callable[[Line], Kept]:
    """Keep this share of every group, as it was in the original model."""
    return lambda line: line.share(share)


class Line:
    """All atoms that may go, in the order in which they go; see `select` for the arguments."""

    def __init__(
        self,
        coupling: Coupling,
        scores: Mapping[str, NDArray[np.float64]],
        limits: Limits,
        excluded: Mapping[str, str],
        shares: Mapping[str, float],
        costs: NDArray[np.float64] | None = None,
    ) -> None:
        self._groups = coupling.groups
        self._atoms = np.array([group.atoms for group in self._groups], np.int64)
        self._offsets = np.cumsum(self._atoms + 1) - (self._atoms + 1)
        self._ordered: dict[int, NDArray[np.int64]] = {}
        self._stays: dict[int, str] = {}
        self._steps: dict[int, Steps] = {}
        normalised = normalise(dict(scores))
        snaps: list[NDArray[np.int64]] = []
        columns: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]] = []
        for i, group in enumerate(self._groups):
            given = scores.get(group.name)
            reason = excluded.get(group.name)
            if reason is None and given is None:
                reason = "the criterion has no score for it"
            if reason is not None or given is None:
                self._stays[i] = reason or ""
                snaps.append(np.full(group.atoms + 1, group.atoms, np.int64))
                continue
            _check(group, given)
            bounds = limits.of(group, shares.get(group.name, 1.0))
            self._steps[i] = steps(group, limits.align, *bounds, halve=limits.halve)
            snaps.append(self._steps[i].nearest(np.arange(group.atoms + 1)))
            order = np.argsort(given, kind="stable")
            self._ordered[i] = order
            relative = normalised[group.name][order] if costs is None else _per_cost(given[order], costs[i])
            columns.append(
                ((np.arange(group.atoms) + 0.5) / group.atoms, relative, np.full(group.atoms, i, np.int64))
            )
        self._snap = np.concatenate(snaps) if snaps else np.zeros(0, np.int64)
        ranks = np.concatenate([c[0] for c in columns]) if columns else np.zeros(0)
        relative = np.concatenate([c[1] for c in columns]) if columns else np.zeros(0)
        owner = np.concatenate([c[2] for c in columns]) if columns else np.zeros(0, np.int64)
        # Equal shares are settled by the score and equal scores by the share, then by the group's place.
        by_score = limits.whole_model or costs is not None
        keys = (owner, ranks, relative) if by_score else (owner, relative, ranks)
        line = np.lexsort(keys)
        self._owner = owner[line]
        self._shares = np.array([shares.get(group.name, 1.0) for group in self._groups])

    def ideal(self, place: int) -> Kept:
        """What each group keeps when the first `place` atoms go."""
        return self._atoms - np.bincount(self._owner[:place], minlength=self._atoms.size)

    def share(self, share: float) -> Kept:
        """What each group keeps of a share of what it was in the original model; at least one atom."""
        wanted = np.rint(self._atoms * np.minimum(1.0, share / self._shares)).astype(np.int64)
        stays = np.isin(np.arange(self._atoms.size), list(self._stays))
        return np.where(stays, self._atoms, np.maximum(1, wanted))

    def snapped(self, ideal: Kept) -> Kept:
        """The nearest numbers of atoms that the groups may keep."""
        return self._snap[self._offsets + ideal]

    def shortest(self, left: Left, target: float) -> int:
        """The least number of atoms that must be asked to go to reach the target."""
        low, high = 0, self._owner.size
        least = left(self.snapped(self.ideal(high)))
        if least > target + _SLACK:
            raise OutOfReachError(
                f"{target:.1%} of the original cannot be reached: with every group at its least width "
                f"{least:.1%} is left; lower --min-keep or --align, exclude less, or ask for less"
            )
        while low < high:
            middle = (low + high) // 2
            if left(self.snapped(self.ideal(middle))) <= target + _SLACK:
                high = middle
            else:
                low = middle + 1
        return low

    def chosen(self, index: int, ideal: int, kept: int, criterion: str) -> Chosen:
        """What becomes of one group."""
        group = self._groups[index]
        per_atom = channels_per_atom(group)
        widths = (group.atoms * per_atom, ideal * per_atom, kept * per_atom)
        if index in self._stays:
            return Chosen(group.name, group.atoms, tuple(range(group.atoms)), *widths, self._stays[index])
        stays = np.sort(self._ordered[index][group.atoms - kept :])
        return Chosen(
            group.name,
            group.atoms,
            tuple(int(k) for k in stays),
            *widths,
            self._why(index, ideal, kept, criterion),
        )

    def _why(self, index: int, ideal: int, kept: int, criterion: str) -> str:
        group, rule = self._groups[index], self._steps[index]
        if kept == group.atoms == ideal:
            return "nothing in it is among the least important"
        if kept == group.atoms:
            return f"stays: {rule.why}" if rule.allowed().size > 1 else f"cannot be narrower: {rule.why}"
        text = f"highest {criterion}"
        if kept == ideal:
            return text
        if ideal < rule.least:
            return f"{text}; at least {rule.least} of {group.atoms} are kept"
        if ideal > rule.most:
            return f"{text}; at most {rule.most} of {group.atoms} are kept"
        return f"{text}; {rule.why}"


def _per_cost(losses: NDArray[np.float64], cost: float) -> NDArray[np.float64]:
    """What is lost per unit of the budget; what saves nothing goes last."""
    return losses / cost if cost > 0.0 else np.full_like(losses, np.inf)


def _check(group: Group, scores: NDArray[np.float64]) -> None:
    if scores.shape != (group.atoms,):
        raise UsageError(f"group {group.name!r} has {group.atoms} atoms and scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise UsageError(f"group {group.name!r} has a score that is not finite; are its weights?")
