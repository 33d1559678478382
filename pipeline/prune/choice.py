# SPDX-License-Identifier: Apache-2.0
"""What a choice of channels must respect, and what becomes of each group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

from ...graph_ir import UsageError
from .widths import ALIGN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...analysis.coupling import Group

Kept: TypeAlias = "NDArray[np.int64]"
"""How many atoms each group keeps, in the order of the coupling."""

Left: TypeAlias = "Callable[[Kept], float]"
"""The share of the original that is then left of what the budget counts."""

Aim: TypeAlias = Literal["time", "importance"]
AIMS: tuple[Aim, ...] = ("time", "importance")


def aim_called(name: str) -> Aim | None:
    """The aim of this name, None where there is none."""
    return next((aim for aim in AIMS if aim == name), None)


class OutOfReachError(UsageError):
    """No choice of widths within the limits meets the budget.

    Attributes:
        least: the share of the original that is left at the least widths; None where that is not known.
    """

    def __init__(self, message: str, least: float | None = None) -> None:
        super().__init__(message)
        self.least = least


@dataclass(frozen=True)
class Limits:
    """What a plan must respect.

    Attributes:
        align: widths are multiples of this where they were before; 1 allows any.
        min_keep, max_keep: least and largest share of its channels each group keeps.
        keep: (glob over group names, least, largest) for single groups, None for what is not said; of each
            the last that fits counts.
        whole_model: compare atoms across groups; otherwise each group loses about the same share, unless the
            scores are losses and the budget is no ratio (`criteria.predicts_loss`).
        halve: let groups that are a single step wide go down to half of it.
        aim: what a MACs budget is to buy: `time` takes more from groups that save more of the time than of
            the MACs (see `effort`), `importance` looks at nothing but the scores.
    """

    align: int = ALIGN["onnxruntime-cpu"]
    min_keep: float = 0.1
    max_keep: float = 1.0
    keep: tuple[tuple[str, float | None, float | None], ...] = ()
    whole_model: bool = False
    halve: bool = False
    aim: Aim = "time"

    def of(self, group: Group, share: float = 1.0) -> tuple[float, float]:
        """Least and largest share of the group to keep.

        Args:
            group: as it is now.
            share: how much of the group of the original model that is.
        """
        least, most = self.min_keep, self.max_keep
        for glob, low, high in self.keep:
            if fnmatchcase(group.name, glob):
                least = least if low is None else low
                most = most if high is None else high
        return min(1.0, least / share), min(1.0, most / share)

    def check(self, groups: Sequence[Group]) -> None:
        """Refuse bounds for groups of a name that no group has.

        Raises:
            UsageError: naming the pattern, and a group of a similar name.
        """
        names = [group.name for group in groups] if self.keep else []
        for glob, low, _ in self.keep:
            if not any(fnmatchcase(name, glob) for name in names):
                near = get_close_matches(glob, names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else "; --explain lists the groups"
                raise UsageError(
                    f"{'--max-keep' if low is None else '--min-keep'} {glob!r} fits no group{hint}"
                )


@dataclass(frozen=True)
class Chosen:
    """What becomes of one group; widths are in channels (`widths.channels_per_atom`).

    Attributes:
        group: its name.
        atoms: of the group.
        kept: sorted numbers of the atoms that stay.
        before: width before.
        ideal: width the scores and the budget ask for.
        after: width after alignment and limits.
        why: a few words.
        heads: whether its atoms are heads of attention.
    """

    group: str
    atoms: int
    kept: tuple[int, ...]
    before: int
    ideal: int
    after: int
    why: str
    heads: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether anything goes."""
        return len(self.kept) < self.atoms
