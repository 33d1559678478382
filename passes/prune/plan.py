# SPDX-License-Identifier: Apache-2.0
"""What a pruning plan says: for each group of coupled channels, which atoms stay, and why.

A plan is a plain fact about one model, kept as JSON that can be read, compared, edited and replayed.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...analysis.coupling import Coupling, attention_of
from ...graph_ir import Model, UsageError, Value, atomic_write, fingerprint
from ...graph_ir.json_text import parse_object, read_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Attention

_FORMAT = 1
_MOST_ATOMS = 1 << 24  # a file may say any number, and its ranges are listed
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Widths:
    """How wide the first axis of a group is, in channels.

    Attributes:
        before: in the model the plan is for.
        ideal: what the budget alone asked for.
        after: what is left, aligned to what the target runs well.
    """

    before: int
    ideal: int
    after: int


@dataclass(frozen=True)
class Cut:
    """What stays of one group.

    Attributes:
        group: its name (`Coupling.group`).
        atoms: how many it has before the cut.
        kept: numbers of the atoms that stay, ascending.
        why: for people.
        widths: for the report; None when nobody counted.
    """

    group: str
    atoms: int
    kept: tuple[int, ...]
    why: str = ""
    widths: Widths | None = None

    def __post_init__(self) -> None:
        if not self.kept:
            raise UsageError(f"group {self.group!r}: nothing is kept; keep at least one atom")
        if any(b <= a for a, b in pairwise(self.kept)):
            raise UsageError(f"group {self.group!r}: atoms are out of order; list each once, ascending")
        if self.kept[0] < 0 or self.kept[-1] >= self.atoms:
            raise UsageError(
                f"group {self.group!r}: atom {self.kept[-1]} is kept, and it has atoms 0 to {self.atoms - 1}"
            )


@dataclass(frozen=True)
class PrunePlan:
    """Which channels of one model stay.

    Attributes:
        fingerprint: of the model it is for (`graph_ir.fingerprint`).
        cuts: one for each group that loses atoms.
        rounds: how many rounds of pruning it sums up.
        attention: how the groups were found (`coupling.couple`).
    """

    fingerprint: str
    cuts: tuple[Cut, ...] = ()
    rounds: int = 1
    attention: Attention = "heads"

    def __post_init__(self) -> None:
        counts = Counter(cut.group for cut in self.cuts)
        twice = [group for group, count in counts.items() if count > 1]
        if twice:
            raise UsageError(f"the plan cuts group {twice[0]!r} twice; keep one of the entries")

    def kept(self) -> dict[str, NDArray[np.bool_]]:
        """For each group in the plan, bool `[atoms]`: which stay."""
        found: dict[str, NDArray[np.bool_]] = {}
        for cut in self.cuts:
            mask = np.zeros(cut.atoms, dtype=np.bool_)
            mask[list(cut.kept)] = True
            found[cut.group] = mask
        return found

    def masks(self, coupling: Coupling) -> dict[tuple[Value, int], NDArray[np.bool_]]:
        """What stays of each axis that loses positions."""
        return coupling.masks(self.kept())

    def check(self, model: Model, coupling: Coupling) -> None:
        """Refuse a plan that is not for this model.

        Raises:
            UsageError: made for another model, or it names a group the model lacks, or miscounts its atoms.
        """
        now = fingerprint(model)
        if now != self.fingerprint:
            raise UsageError(
                f"the plan is for model {self.fingerprint} and this is {now}; make a plan for this model"
            )
        for cut in self.cuts:
            atoms = coupling.group(cut.group).atoms
            if cut.atoms != atoms:
                raise UsageError(f"group {cut.group!r} has {atoms} atoms and the plan says {cut.atoms}")

    # -- files ----------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The plan as text, one group after the other; atoms as ranges such as `0-15,18`."""
        cuts: list[dict[str, Any]] = []
        for cut in self.cuts:
            entry: dict[str, Any] = {"group": cut.group, "atoms": cut.atoms, "kept": _ranges(cut.kept)}
            if cut.widths is not None:
                entry["widths"] = [cut.widths.before, cut.widths.ideal, cut.widths.after]
            cuts.append({**entry, "why": cut.why})
        lines = [json.dumps(entry, ensure_ascii=False) for entry in cuts]
        head: dict[str, Any] = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "rounds": self.rounds,
            "attention": self.attention,
        }
        body = ",\n".join(f"  {line}" for line in lines)
        text = json.dumps(head, indent=1).removesuffix("\n}")
        return f'{text},\n "cuts": [\n{body}\n ]\n}}\n' if lines else f'{text},\n "cuts": []\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "the plan") -> PrunePlan:
        """Read what `to_json` wrote, perhaps edited since.

        Raises:
            UsageError: it is no plan; says where.
        """
        head = parse_object(text, where, UsageError)
        if head.get("format") != _FORMAT:
            raise UsageError(f"{where} has format {head.get('format')!r}; this tersor reads {_FORMAT}")
        mark, rounds, cuts = head.get("fingerprint"), head.get("rounds", 1), head.get("cuts")
        if not isinstance(mark, str) or not _is_count(rounds) or not isinstance(cuts, list):
            raise UsageError(f"{where} lacks a fingerprint, rounds or cuts; make it anew")
        attention = attention_of(head.get("attention", "heads"))
        if attention is None:
            raise UsageError(f"{where}: attention is 'heads' or 'widths', not {head['attention']!r}")
        made = tuple(_cut(entry, where) for entry in cast("list[object]", cuts))
        return cls(mark, made, cast("int", rounds), attention)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, all or nothing."""
        with atomic_write(path) as beside:
            beside.write_text(self.to_json(), encoding="utf-8")


def load_plan(path: str | os.PathLike[str]) -> PrunePlan:
    """Read a plan that was saved.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    where = f"the plan {str(path)!r}"
    return PrunePlan.from_json(read_text(path, where, UsageError), where)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `0-15,18`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _numbers(text: object, atoms: int, where: str) -> tuple[int, ...]:
    """What `_ranges` wrote; each below `atoms`."""
    if not isinstance(text, str):
        raise UsageError(f"{where}: {text!r} is no range of atoms; write them as 0-15,18")
    found: list[int] = []
    for run in text.split(",") if text.strip() else ():
        first, dash, last = (part.strip() for part in run.partition("-"))
        ends = (first, last) if dash else (first, first)
        if not all(map(_NUMBER.fullmatch, ends)) or int(ends[0]) > int(ends[1]):
            raise UsageError(f"{where}: {run.strip()[:40]!r} is no range of atoms; write them as 0-15,18")
        if int(ends[1]) >= atoms:
            raise UsageError(f"{where}: it keeps atom {ends[1]}, and has atoms 0 to {atoms - 1}")
        found += range(int(ends[0]), int(ends[1]) + 1)
        if len(found) > atoms:
            raise UsageError(f"{where}: atoms are out of order; list each once, ascending")
    return tuple(found)


def _cut(entry: object, where: str) -> Cut:
    table = _table(entry, where)
    group, atoms, why = table.get("group"), table.get("atoms"), table.get("why", "")
    if not (isinstance(group, str) and _is_count(atoms) and isinstance(why, str)):
        raise UsageError(f"{where}: an entry lacks its group, or how many atoms that has")
    place = f"{where}, group {group!r}"
    widths = table.get("widths")
    if widths is not None:
        items = cast("list[object]", widths) if isinstance(widths, list) else []
        least = (1, 0, 1)  # a budget alone may ask for nothing of a group to stay
        if len(items) != 3 or not all(map(_is_count, items, least)):
            raise UsageError(f"{place}: widths must be three counts: before, ideal, after")
        widths = Widths(*cast("list[int]", items))
    count = cast("int", atoms)
    if count > _MOST_ATOMS:
        raise UsageError(f"{place}: no group has more than {_MOST_ATOMS} atoms, and the plan says {count}")
    return Cut(group, count, _numbers(table.get("kept"), count, place), why, widths)


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is no plan: expected an object in braces")
    return cast("Mapping[str, object]", value)
