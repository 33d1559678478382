# SPDX-License-Identifier: Apache-2.0
"""Values of the command line that are what they shall be as they stand, or nearly.

typer converts each value, also those that were not given, by pydantic, whose import takes as long as that of
all of tersor. What needs no conversion is taken here without it; the rest is left to typer. Its public
options do not reach this far: a `parser` is run by pydantic, a `callback` behind it, and the class of a
parameter cannot be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from .sections import SectionedCommand


class PlainGroup(TyperGroup):
    """A group that takes plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters."""
        return _taken_plainly(super().get_params(ctx), {})


class PlainCommand(SectionedCommand):
    """A command that takes plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters."""
        hints = {} if self.callback is None else get_type_hints(self.callback)
        return _taken_plainly(super().get_params(ctx), hints)


def _taken_plainly(params: Sequence[Any], hints: Mapping[str, Any]) -> list[Any]:
    for param in params:
        if not isinstance(param.process_value, partial):
            kinds = get_args(hints.get(param.name)) or (hints.get(param.name),)
            param.process_value = partial(_process, param, param.process_value, kinds)
    return list(params)


def _each(value: object) -> Sequence[object]:
    """The values that were given."""
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else (value,)


def _process(
    param: Any, convert: Callable[[Any, Any], Any], kinds: tuple[object, ...], ctx: Any, value: Any
) -> Any:
    """The value of a parameter; `convert` is what typer does with it.

    Raises:
        BadParameter: a path is empty, which would mean the current folder.
    """
    if Path in kinds and any(isinstance(each, str) and not each.strip() for each in _each(value)):
        raise typer.BadParameter("it is empty; give a path", ctx, param)
    if param.nargs != 1 or getattr(param, "multiple", False):
        return convert(ctx, value)
    if value is None:
        if param.required:
            return convert(ctx, value)
        return None if param.callback is None else param.callback(ctx, param, value)
    if param.callback is None:
        if type(value) in kinds:
            return value
        if type(value) is str and Path in kinds:
            return Path(value)
    return convert(ctx, value)
