# SPDX-License-Identifier: Apache-2.0
"""How far one output is from another, whatever they are made of."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...analysis.fidelity import Fidelity

NUMBERS = "biuf"  # numpy's kinds of what has a distance


def compare(total: Fidelity, want: object, got: object) -> bool:
    """Add one output to its total; sequences and maps item by item, everything else as arrays.

    Numbers, and truth values as 0 and 1, enter the sums. What has no distance (text that differs, another
    shape, another number of items, a number in place of text) counts as one broken element.

    Returns:
        Whether the two differ in numbers only.
    """
    if isinstance(want, list) and isinstance(got, list):
        left, right = cast("list[object]", want), cast("list[object]", got)
        if len(left) != len(right):
            return _unlike(total)
        return sum(compare(total, a, b) for a, b in zip(left, right, strict=True)) == len(left)
    if isinstance(want, dict) and isinstance(got, dict):
        first, second = cast("dict[object, object]", want), cast("dict[object, object]", got)
        if first.keys() != second.keys():
            return _unlike(total)
        return sum(compare(total, first[key], second[key]) for key in first) == len(first)
    if isinstance(want, (list, dict)) or isinstance(got, (list, dict)):
        return _unlike(total)
    return _compare_arrays(total, np.asarray(want), np.asarray(got))


def _compare_arrays(total: Fidelity, want: NDArray[Any], got: NDArray[Any]) -> bool:
    if want.shape != got.shape or (want.dtype.kind in NUMBERS) != (got.dtype.kind in NUMBERS):
        return _unlike(total)
    if want.dtype.kind not in NUMBERS:
        if not np.array_equal(want, got):
            return _unlike(total)
        total.count += want.size
        return True
    total.update(want, got)
    return True


def _unlike(total: Fidelity) -> bool:
    total.count += 1
    total.broken += 1
    return False
