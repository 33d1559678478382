# SPDX-License-Identifier: Apache-2.0
"""Judge the numbers of a model before and after passes by what the passes claim.

BITWISE: equal bits, NaN equal to NaN. ROUNDING: the error against the float64 twin is at most `FACTOR` times
the largest of: the error before, a unit in the last place of the largest output, and what moving weights and
inputs by one unit in their last place does. Without a twin: at most `STATED_BOUND` times the largest output.
LOSSY: nothing; how close it stays is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..graph_ir import ClaimError

Array: TypeAlias = NDArray[Any]

FACTOR = 4.0
STATED_BOUND = {"float64": 1e-10, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
FLIPS = 1e-3  # share of integers that may flip where rounding decides between two
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


@dataclass(frozen=True)
class Case:
    """One comparison, for messages: which passes, which output, on which feed."""

    passes: str
    output: str
    feed: str

    def fail(self, claim: str, what: str) -> ClaimError:
        """The error for a claim that does not hold."""
        return ClaimError(f"{self.passes} claims {claim}, but output {self.output!r}: {what} ({self.feed})")


def is_array(value: object) -> TypeGuard[Array]:
    """Whether an output is a tensor (and not a sequence, a map or nothing)."""
    return isinstance(value, np.ndarray)


def same_form(case: Case, before: Any, after: Any, claim: str) -> None:
    """Check types and shapes.

    Raises:
        ClaimError: they differ.
    """
    if is_array(before) and is_array(after):
        was, now = f"{before.dtype}{list(before.shape)}", f"{after.dtype}{list(after.shape)}"
        if was != now:
            raise case.fail(claim, f"{was} became {now}")
    elif type(before) is not type(after):
        raise case.fail(claim, f"{type(before).__name__} became {type(after).__name__}")


def equal_bits(before: Array, after: Array) -> bool:
    """Whether two arrays of one form are equal bit by bit, any NaN being equal to any other."""
    if before.dtype.hasobject:
        return bool(np.array_equal(before, after))
    if before.tobytes() == after.tobytes():
        return True
    if not is_float(before):
        return False
    nans = np.isnan(before)
    if not np.array_equal(nans, np.isnan(after)):
        return False
    left, right = np.where(nans, 0, before), np.where(nans, 0, after)
    return bool(left.tobytes() == right.tobytes())


def is_float(array: Array) -> bool:
    """Whether the array holds real floating-point numbers, ml_dtypes' among them."""
    return array.dtype.name in _EPSILON


def negligible(before: Array, after: Array) -> bool:
    """Whether two float arrays differ by at most a unit in the last place of the largest element."""
    finite = np.isfinite(before)
    if not np.array_equal(finite, np.isfinite(after)):
        return False
    scale = float(np.max(np.abs(before[finite].astype(np.float64)), initial=0.0))
    return distance(before, after, finite) <= _EPSILON[before.dtype.name] * scale


def distance(a: Array, b: Array, where: Array) -> float:
    """Largest absolute difference where the mask holds; infinite where only one is finite."""
    left, right = a[where].astype(np.float64), b[where].astype(np.float64)
    both = np.isfinite(left) & np.isfinite(right)
    if not both.all():
        return float("inf")
    return float(np.max(np.abs(left - right), initial=0.0))


def bitwise(case: Case, before: Array, after: Array) -> None:
    """Judge a claim of equal bits.

    Raises:
        ClaimError: with the largest difference.
    """
    if equal_bits(before, after):
        return
    if is_float(before):
        off = distance(before, after, np.isfinite(before))
        raise case.fail("equal bits", f"off by {off:.3g}, allowed 0")
    raise case.fail("equal bits", f"{np.count_nonzero(before != after)} elements differ, allowed 0")


def rounding(before: Array, after: Array, truth: Array, noise: Sequence[Array] = ()) -> str | None:
    """Judge a claim of rounding against the truth.

    Args:
        before: the output before.
        after: the output after.
        truth: the output of the float64 twin of the model before.
        noise: outputs of twins whose weights and inputs were moved by a unit in their last place.

    Returns:
        None when it holds, else what is wrong, which more `noise` may excuse.
    """
    if not is_float(before):
        return _flips(before, after, truth)
    finite = np.isfinite(before) & np.isfinite(truth.astype(np.float64))
    error, moved = distance(before, truth, finite), distance(after, truth, finite)
    scale = float(np.max(np.abs(truth[finite].astype(np.float64)), initial=0.0))
    floor = max((distance(each, truth, finite) for each in noise), default=0.0)
    smallest = float(np.finfo(np.float32).tiny) if before.dtype != np.float64 else 0.0
    allowed = FACTOR * max(error, floor, _EPSILON[before.dtype.name] * scale, smallest)
    if moved <= allowed:
        return None
    return f"error {moved:.3g} against float64, allowed {allowed:.3g} (it was {error:.3g} before)"


def trustworthy(before: Array, truth: Array) -> bool:
    """Whether a float64 run agrees with the model at all; a wrong reference kernel does not."""
    if before.shape != truth.shape:
        return False
    if not is_float(before):
        return True
    finite = np.isfinite(before)
    scale = float(np.max(np.abs(before[finite].astype(np.float64)), initial=0.0))
    return distance(truth, before, finite) <= max(0.1 * scale, 1e-6)


def stated(before: Array, after: Array) -> str | None:
    """Judge a claim of rounding without a twin, by the stated bound; None when it holds."""
    if not is_float(before):
        return _flips(before, after, before)
    finite = np.isfinite(before)
    scale = float(np.max(np.abs(before[finite].astype(np.float64)), initial=0.0))
    smallest = float(np.finfo(np.float32).tiny) if before.dtype != np.float64 else 0.0
    moved, allowed = distance(before, after, finite), STATED_BOUND[before.dtype.name] * scale + smallest
    return (
        None
        if moved <= allowed
        else f"off by {moved:.3g}, allowed {allowed:.3g} (no float64 run to judge by)"
    )


def _flips(before: Array, after: Array, truth: Array) -> str | None:
    """Integers, booleans, texts: rounding may flip as many as it flips against the truth anyway."""
    changed = int(np.count_nonzero(before != after))
    if changed == 0:
        return None
    already = int(np.count_nonzero(before != truth))
    allowed = int(FACTOR * max(already, FLIPS * before.size))
    return None if changed <= allowed else f"{changed} of {before.size} elements differ, allowed {allowed}"
