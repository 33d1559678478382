# SPDX-License-Identifier: Apache-2.0
"""Reading a recipe's tables: types and known names, with the place in front of every error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, cast

from ..graph_ir import DataError, UsageError
from .amounts import figure, in_percent, share

OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
"""An option of the command line in a message, for callers who know it by another name."""
_KINDS = {bool: "true or false", dict: "a table", int: "a whole number", list: "a list", str: "text"}


def placed(where: str, make: Callable[..., Any], *given: object) -> Any:
    """Call, with the place put before the message of an error, and options of the command line as keys."""
    try:
        return make(*given)
    except (DataError, UsageError) as error:
        text = OPTION.sub(lambda option: f"`{option[1].replace('-', '_')}`", str(error))
        kind = UsageError if isinstance(error, UsageError) else DataError
        raise kind(f"{where}: {text}") from error


def table_of(where: str, section: Any) -> dict[str, Any]:
    """The section as a table."""
    if not isinstance(section, dict):
        raise UsageError(f"{where} must be a table, not {section!r}")
    return cast("dict[str, Any]", section)


def typed(where: str, table: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    """The value of a key, of exactly this type; the default without it."""
    value = table.get(key, default)
    if value is not default and type(value) is not kind:
        raise UsageError(f"{where}: `{key}` must be {_KINDS[kind]}, not {value!r}")
    return value


def known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse keys that are not among the names."""
    allowed = list(names)
    for key in table:
        if key not in allowed:
            near = get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed)}"
            raise UsageError(f"{where}: {key!r} is not known; {hint}")


def read_accept(where: str, section: Any) -> tuple[float | None, float | None]:
    """The least SQNR in dB and the largest share of the metric to lose that a step accepts."""
    table = table_of(where, section)
    known(where, table, ("sqnr_db", "max_drop"))
    sqnr, drop = table.get("sqnr_db"), table.get("max_drop")
    most = None if drop is None else placed(f"{where}: `max_drop`", share, drop)
    if most is not None and not 0 <= most <= 1:
        raise UsageError(f"{where}: `max_drop` is a share from 0 to 1, not {drop!r}{in_percent(most)}")
    least = None if sqnr is None else placed(f"{where}: `sqnr_db`", figure, sqnr)
    if least is not None and not math.isfinite(least):
        raise UsageError(f"{where}: `sqnr_db` is a number of dB, not {least}")
    return least, most
