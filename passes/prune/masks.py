# SPDX-License-Identifier: Apache-2.0
"""Which weights go, given a score for each: exact counts, ties by position, so always the same mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import UsageError

Mask = NDArray[np.bool_]

_PATTERN = re.compile(r"([0-9]{1,4}):([0-9]{1,4})")


@dataclass(frozen=True)
class Pattern:
    """At most `kept` weights of each `of` neighbours are not zero; written ``kept:of``, as in 2:4."""

    kept: int
    of: int

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"


def read_pattern(text: str) -> Pattern:
    """The pattern that ``N:M`` names.

    Raises:
        UsageError: when it has another form, or N is not at least 1 and less than M.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise UsageError(f"pattern {text!r} is not of the form N:M, as 2:4 (2 of each 4 weights stay)")
    pattern = Pattern(int(found[1]), int(found[2]))
    if not 1 <= pattern.kept < pattern.of:
        raise UsageError(f"pattern {text}: N of each M weights stay, so N is at least 1 and less than M")
    return pattern


def check_sparsity(share: float) -> None:
    """Raises UsageError unless the share of zeros is inside (0, 1)."""
    if not 0.0 < share < 1.0:
        raise UsageError(f"sparsity {share:g} is no share of weights: give a number between 0 and 1, as 0.5")


def count(share: float, size: int) -> int:
    """How many of `size` weights the share is, rounded to the nearest (half to even)."""
    return min(size, max(0, round(share * size)))


def smallest(scores: NDArray[Any], number: int) -> Mask:
    """True at the `number` smallest scores; of equal ones the first in memory order.

    Args:
        scores: any shape, no NaN.
        number: from 0 to the size.
    """
    flat = scores.reshape(-1)
    mask: Mask = np.zeros(flat.size, np.bool_)
    if number > 0:
        edge = np.partition(flat, number - 1)[number - 1]
        np.less(flat, edge, out=mask)
        ties = np.flatnonzero(flat == edge)
        mask[ties[: number - int(np.count_nonzero(mask))]] = True
    return mask.reshape(scores.shape)


def smallest_of_each_row(scores: NDArray[Any], number: int) -> Mask:
    """True at the `number` smallest scores of each row ``[rows, n]``; of equal ones the first."""
    mask: Mask = np.zeros(scores.shape, np.bool_)
    order = np.argsort(scores, axis=1, kind="stable")[:, :number]
    np.put_along_axis(mask, order, values=True, axis=1)
    return mask


def outside_pattern(scores: NDArray[Any], pattern: Pattern) -> Mask:
    """True at all but the `kept` largest scores of each `of` neighbours along the last axis.

    Args:
        scores: ``[..., n]``, n a multiple of `pattern.of`.
        pattern: how many stay.
    """
    runs = scores.reshape(-1, pattern.of)
    return smallest_of_each_row(runs, pattern.of - pattern.kept).reshape(scores.shape)
