# SPDX-License-Identifier: Apache-2.0
"""All atoms of all groups in the order in which they go, and how groups round what they keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...graph_ir import UsageError
from .budget import FAR
from .choice import Chosen, Kept, Left, Limits, OutOfReachError
from .criteria import normalise
from .shared import SharedAxes, evened
from .widths import Steps, channels_per_atom, steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling, Group

_OFF = 0.05  # so many channels more than wanted are left where groups of one step stay whole
LEAN = 1.5  # how far the shares of groups differ where one saves more of the time than another
_SLACK = 1e-9
_CLOSE = 0.002  # of the original: so near a target nothing is given back
_WORTH = 0.01  # `FAR` below it also groups not rounded down are given back steps of so much of the original
_REFILLS = 512  # groups that are tried


class Line:
    """All atoms that may go, in the order in which they go; see `select` for the arguments."""

    def __init__(
        self,
        coupling: Coupling,
        scores: Mapping[str, NDArray[np.float64]],
        limits: Limits,
        excluded: Mapping[str, str],
        shares: Mapping[str, float],
        *,
        costs: NDArray[np.float64] | None = None,
        gains: NDArray[np.float64] | None = None,
    ) -> None:
        self._coupling = coupling
        self._groups = coupling.groups
        self._align = limits.align
        self._halve = limits.halve
        self._atoms = np.array([group.atoms for group in self._groups], np.int64)
        self._offsets = np.cumsum(self._atoms + 1) - (self._atoms + 1)
        self._ordered: dict[int, NDArray[np.int64]] = {}
        self._stays: dict[int, str] = {}
        self._steps: dict[int, Steps] = {}
        self._keys: dict[int, NDArray[np.float64]] = {}  # where in the line each atom stands
        normalised = normalise(dict(scores))
        snaps: list[NDArray[np.int64]] = []
        columns: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]] = []
        by_score = limits.whole_model or costs is not None
        lean = np.ones(len(self._groups)) if gains is None else gains
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
            relative = normalised[group.name][order] if costs is None else _per(given[order], costs[i])
            # All groups are left with one share, to the power of what `LEAN` makes of their gain.
            depth = -np.log1p(-(np.arange(group.atoms) + 0.5) / group.atoms)
            depth, relative = _per(depth, lean[i] ** LEAN), _per(relative, lean[i])
            self._keys[i] = relative if by_score else depth
            columns.append((depth, relative, np.full(group.atoms, i, np.int64)))
        self._snap = np.concatenate(snaps) if snaps else np.zeros(0, np.int64)
        ranks = np.concatenate([c[0] for c in columns]) if columns else np.zeros(0)
        relative = np.concatenate([c[1] for c in columns]) if columns else np.zeros(0)
        owner = np.concatenate([c[2] for c in columns]) if columns else np.zeros(0, np.int64)
        # Equal shares are settled by the score and equal scores by the share, then by the group's place.
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

    def is_stuck(self, ideal: Kept, kept: Kept) -> bool:
        """Whether too much is left, and groups of a single step, which may not be halved, are why."""
        single = [i for i, rule in self._steps.items() if rule.is_single and kept[i] > ideal[i]]
        each = np.array([channels_per_atom(group) for group in self._groups], np.int64)
        return not self._halve and bool(single) and float(each @ kept) > (1 + _OFF) * float(each @ ideal)

    def snapped(self, ideal: Kept) -> Kept:
        """The nearest numbers of atoms that the groups may keep."""
        return self._snap[self._offsets + ideal]

    def refilled(self, ideal: Kept, left: Left, target: float) -> Kept:
        """The nearest numbers, and where the target still holds, the next one for what was rounded down.

        The last step on the way to a target may overshoot it. Nothing grows beyond the step above its ideal,
        for channels that cost little of what the budget counts are not free of time or memory; but where
        steps are so coarse that the target is far, what went last comes back, a coarse step at a time.
        """
        kept = self.snapped(ideal)
        short = [i for i in self._steps if kept[i] < ideal[i]]
        short.sort(key=lambda i: (float(kept[i] - ideal[i]) / int(self._atoms[i]), i))
        kept, now = self._widened(kept, left, target, short[:_REFILLS])
        tried = 0
        while target - now > FAR and tried < _REFILLS:
            cut = [i for i in self._steps if kept[i] < self._atoms[i]]
            cut.sort(key=lambda i: (-float(self._keys[i][self._atoms[i] - kept[i] - 1]), i))
            tried += len(cut)
            before = now
            kept, now = self._widened(kept, left, target, cut, least=_WORTH)
            if now == before:
                break
        return kept

    def _widened(
        self, kept: Kept, left: Left, target: float, groups: list[int], least: float = 0.0
    ) -> tuple[Kept, float]:
        """Give each group in turn one step more, where that is `least` or more and the target still holds."""
        now = left(kept)
        for index in groups:
            if target - now <= _CLOSE:
                break
            wider = [int(n) for n in self._steps[index].allowed() if n > kept[index]]
            if not wider:
                continue
            more = np.array(kept, np.int64)
            more[index] = wider[0]
            then = left(more)
            if now + least <= then <= target + _SLACK:
                kept, now = more, then
        return kept, now

    def evened(self, kept: Kept, left: Left, target: float) -> Kept:
        """Numbers whose sums suit the hardware, too, where narrow groups share axes."""
        narrow = {i: rule.allowed() for i, rule in self._steps.items() if rule.width % self._align}
        return evened(SharedAxes(self._coupling, self._align), narrow, kept, left, target) if narrow else kept

    def shortest(self, left: Left, target: float) -> int:
        """The least number of atoms that must be asked to go to reach the target."""
        low, high = 0, self._owner.size
        narrowest = self.snapped(self.ideal(high))
        least = left(narrowest)
        if least > 1 - _SLACK and (narrowest < self._atoms).any():
            raise OutOfReachError(
                f"{target:.1%} of the original cannot be reached: nothing that can be cut counts towards it "
                "(of bodies, neither MACs nor time are known); give --params, --size or --ratio"
            )
        if least > target + _SLACK:
            raise OutOfReachError(
                f"{target:.1%} of the original cannot be reached: with every group at its least width "
                f"{least:.1%} is left; lower --min-keep or --align, exclude less, or ask for less",
                least,
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
            whole = tuple(range(group.atoms))
            return Chosen(group.name, group.atoms, whole, *widths, self._stays[index], group.heads)
        stays = np.sort(self._ordered[index][group.atoms - kept :])
        return Chosen(
            group.name,
            group.atoms,
            tuple(int(k) for k in stays),
            *widths,
            self._why(index, ideal, kept, criterion),
            group.heads,
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


def _per(losses: NDArray[np.float64], saved: float) -> NDArray[np.float64]:
    """What is lost per unit that is saved; what saves nothing goes last."""
    return losses / saved if saved > 0.0 else np.full_like(losses, np.inf)


def _check(group: Group, scores: NDArray[np.float64]) -> None:
    if scores.shape != (group.atoms,):
        raise UsageError(f"group {group.name!r} has {group.atoms} atoms and scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise UsageError(f"group {group.name!r} has a score that is not finite; are its weights?")
