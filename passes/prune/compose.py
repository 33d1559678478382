# SPDX-License-Identifier: Apache-2.0
"""Plans of several rounds as one plan for the original."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.coupling import Coupling
from ...graph_ir import UsageError
from .plan import Cut, PrunePlan

if TYPE_CHECKING:
    from ...analysis.coupling import Group


def compose(first: PrunePlan, second: PrunePlan) -> PrunePlan:
    """One plan for the original model out of two rounds.

    Args:
        first: for the original.
        second: for what `first` makes of it, of groups that are the same but for their atoms (`continued`),
            which are counted anew.

    Raises:
        UsageError: `second` does not count the atoms that `first` leaves, or cuts attention otherwise.
    """
    if first.attention != second.attention:
        raise UsageError(f"the first plan cuts {first.attention} of attention, the second {second.attention}")
    cuts: list[Cut] = []
    later = {cut.group: cut for cut in second.cuts}
    for cut in first.cuts:
        after = later.pop(cut.group, None)
        if after is None:
            cuts.append(cut)
            continue
        if after.atoms != len(cut.kept):
            raise UsageError(
                f"the second plan says group {cut.group!r} has {after.atoms} atoms and the first leaves "
                f"{len(cut.kept)}; it was not made for the first one's result"
            )
        widths = after.widths
        if widths is not None and cut.widths is not None:
            widths = replace(widths, before=cut.widths.before)
        why = cut.why if cut.why == after.why else "; ".join(w for w in (cut.why, after.why) if w)
        cuts.append(Cut(cut.group, cut.atoms, tuple(cut.kept[i] for i in after.kept), why, widths))
    rounds = first.rounds + second.rounds
    return PrunePlan(first.fingerprint, (*cuts, *later.values()), rounds, first.attention)


def continued(before: Coupling, plan: PrunePlan, after: Coupling, added: Collection[str] = ()) -> Coupling:
    """Those groups of a cut model that are groups of the original, less what the plan removed.

    Only plans for these compose with the first one. Others appear when a cut frees what could not go before
    (an attention with one head left may get narrower) or settles a choice in another way.

    Args:
        before: of the original.
        plan: what was cut.
        after: of the result.
        added: names of values the original lacks: biases a refit made, zeros put back where channels were.
    """
    kept, masks = plan.kept(), plan.masks(before)
    known = {group.name: group for group in before.groups}
    found: list[Group] = []
    for group in after.groups:
        old = known.get(group.name)
        if old is None:
            continue
        stays = kept.get(group.name, np.ones(old.atoms, dtype=np.bool_))
        number = np.append(np.where(stays, np.cumsum(stays) - 1, -1), -1)  # the last one is for atom -1
        still = {(a.value.name, a.axis): number[a.atom_of] for a in old.axes}  # with zeros for what is gone
        expected = {
            (a.value.name, a.axis): number[a.atom_of][masks.get((a.value, a.axis), slice(None))]
            for a in old.axes
        }
        held = {(a.value.name, a.axis): a.atom_of for a in group.axes}
        more = {name for name, _ in held.keys() - expected.keys()}
        same = all(
            k in held and (np.array_equal(held[k], expected[k]) or np.array_equal(held[k], still[k]))
            for k in expected
        )
        if same and more <= set(added):
            found.append(group)
    return Coupling(tuple(found), after.pinned)
