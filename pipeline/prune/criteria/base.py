# SPDX-License-Identifier: Apache-2.0
"""What a criterion is, and what criteria share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ....calibration.visit import Progress
from ....graph_ir import DataError, Model, UsageError
from .roles import WeightSlice, slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ....analysis.coupling import Coupling, Group

Samples = Iterable[Mapping[str, Any]]
"""Feeds; gone through more than once, so no iterator."""

Scores = dict[str, "NDArray[np.float64]"]
"""By group name, one importance per atom; higher is more important, comparable inside a group."""


@dataclass(frozen=True)
class Request:
    """What is to be scored, and with what; a criterion takes of it what it needs.

    Attributes:
        model: left unchanged.
        coupling: of the model.
        data: feeds, for criteria that look at activations or outputs.
        seed: of whatever is drawn.
        progress: told by those that look at data how far they are.
    """

    model: Model
    coupling: Coupling
    data: Samples | None = None
    seed: int = 0
    progress: Progress | None = None

    def samples(self, name: str) -> Samples:
        """The feeds, or one line that says they are missing.

        Args:
            name: of the criterion.

        Raises:
            UsageError: without data.
            DataError: for an iterator, which one pass would spend.
        """
        if self.data is None:
            raise UsageError(f"criterion {name!r} needs data; give some, or take l2, which needs none")
        if isinstance(self.data, Iterator):
            raise DataError("the feeds are an iterator, spent after one pass; give a list or open_feeds")
        return self.data


class Criterion(Protocol):
    """Ranks the atoms of every group.

    Attributes:
        name: as written on the command line.
        needs_data: whether `score` wants samples; without them it raises UsageError.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs_data(self) -> bool: ...

    def score(self, request: Request) -> Scores:
        """Importance of every atom of every group.

        Raises:
            UsageError: when the criterion does not fit the model, or data is needed and missing.
            DataError: when a feed does not fit the model.
        """
        ...


def normalise(scores: Scores) -> Scores:
    """Scores to compare between groups: each group's divided by its mean (all ones where that is 0)."""
    found: Scores = {}
    for name, values in scores.items():
        mean = float(values.mean()) if values.size else 0.0
        found[name] = values / mean if mean > 0.0 and np.isfinite(mean) else np.ones_like(values)
    return found


def by_rows(
    coupling: Coupling, measure: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, consumers: bool
) -> Scores:
    """Per atom, the sum of ``measure(rows)`` over every weight that makes it.

    Args:
        coupling: the groups.
        measure: takes ``[atoms, numbers]`` and gives ``[atoms]``.
        consumers: whether the columns that read the channel count as well.

    A group whose channels no weight makes (they come from a recurrence or a constant, say) is judged by the
    weights that read or scale it; one without any by nothing: its atoms are equal.
    """
    scores: Scores = {}
    for group in coupling.groups:
        total = np.zeros(group.atoms)
        for part in judged(group, consumers=consumers):
            total += measure(part.rows())
        scores[group.name] = total
    return scores


def judged(group: Group, *, consumers: bool = False) -> list[WeightSlice]:
    """The weights a group is judged by; see `by_rows`."""
    found = slices(group)
    wanted = ("out", "in") if consumers else ("out",)
    for roles in (wanted, ("in",), ("gamma", "other")):
        chosen = [part for part in found if part.role in roles]
        if chosen:
            return chosen
    return []
