# SPDX-License-Identifier: Apache-2.0
"""Shares, times and counts as people write them: on the command line, in recipes and in Python."""

from __future__ import annotations

import re
from numbers import Integral, Real
from typing import TypeGuard

from ..graph_ir import UsageError, a_kind

_TIE = 1e-6  # of a metric


def share(given: object) -> float:
    """A share of one: `"1%"`, `"0.01"` or 0.01.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, str):
        try:
            return float(given.strip().removesuffix("%")) / (100 if given.strip().endswith("%") else 1)
        except ValueError:
            pass
    elif _is_number(given):
        return float(given)
    raise UsageError(f"{_shown(given)} is no share; write 1% or 0.01")


def in_percent(value: float) -> str:
    """What a share that is too large comes to, and the mend if it was meant in per cent; else nothing."""
    meant = f"{value:g} % is written {value:g}% or {value / 100:g}"
    return f", which is {100 * value:g} %; {meant}" if 1 <= value < 100 else ""


def metric_share(drop: float) -> None:
    """Refuse a limit of what a metric may lose that cannot be one.

    Raises:
        UsageError: it is below 0, 1 or above, or no number.
    """
    if not 0 <= drop < 1:
        raise UsageError(
            f"--max-drop is a share of the metric from 0 to below 1, not {drop:g}{in_percent(drop)}"
        )


def within(found: float, limit: float) -> bool:
    """Whether a share of a metric that is lost keeps a limit; a tie does, also where rounding made it miss.

    Metrics are means, in float32 as often as not, whose last place is far below what a sample counts.
    """
    return found <= limit + _TIE


def beyond(found: float, limit: float) -> str:
    """A share that passes a limit, with so many digits that it does not look like it."""
    return f"{found:.2%}" if f"{found:.2%}" != f"{limit:.2%}" else f"{found:.6%}"


def seconds(given: object) -> float:
    """A time in seconds: `"90s"`, `"2m"`, `"1.5h"`, `"1h30m"`, `"90"` or 90.

    Raises:
        UsageError: it is no time.
    """
    if isinstance(given, str):
        number = r"(\d+\.?\d*|\.\d+)"
        found = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", given.strip())
        if found is not None and any(found.groups()):
            parts = zip(found.groups(), (3600, 60, 1), strict=True)
            return sum(float(part or 0) * unit for part, unit in parts)
    elif _is_number(given):
        return float(given)
    raise UsageError(f"{_shown(given)} is no time; write 90s, 2m or 1h30m")


def figure(given: object) -> float:
    """A number, not written as text; no truth value.

    Raises:
        UsageError: it is something else.
    """
    if _is_number(given):
        return float(given)
    raise UsageError(f"{_shown(given)} is no number")


def whole(given: object) -> int:
    """A whole number, not written as text; no truth value.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(given, bool) and isinstance(given, Integral):
        return int(given)
    raise UsageError(f"{_shown(given)} is no whole number")


def _is_number(given: object) -> TypeGuard[Real]:
    return not isinstance(given, bool) and isinstance(given, Real)


def _shown(given: object) -> str:
    return repr(given) if isinstance(given, (str, bool, float)) else a_kind(given)
