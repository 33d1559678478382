# SPDX-License-Identifier: Apache-2.0
"""Values of the command line that are what they shall be as they stand, or nearly.

typer converts each value, also those that were not given, by pydantic, whose import takes as long as that of
all of tersor, and whose words are for programmers. What needs no conversion is taken here without it, numbers
and choices are looked at before, and the rest is left to typer. Its public options do not reach this far: a
`parser` is run by pydantic, a `callback` behind it, and the class of a parameter cannot be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
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


def _refused(param: Any, text: str, kinds: tuple[object, ...]) -> str:
    """What is wrong with a number or a choice, in words of our own; empty where nothing is."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            choices = [str(member.value) for member in kind]
            shown = " or ".join([*([", ".join(choices[:-1])] if choices[1:] else []), *choices[-1:]])
            return "" if text in choices else f"{text!r} is not {shown}"
    if int not in kinds and float not in kinds:
        return ""
    try:
        number = int(text) if int in kinds else float(text)
    except ValueError:
        return f"{text!r} is no {'whole ' * (int in kinds)}number"
    if param.min is not None and not number >= param.min:
        return f"{text} is not at least {param.min}"
    return f"{text} is more than {param.max}" if param.max is not None and not number <= param.max else ""


def _process(
    param: Any, convert: Callable[[Any, Any], Any], kinds: tuple[object, ...], ctx: Any, value: Any
) -> Any:
    """The value of a parameter; `convert` is what typer does with it.

    Raises:
        BadParameter: it is not what is taken here, or a path is empty, which would mean the current folder.
    """
    kinds = tuple(inner for kind in kinds for inner in get_args(kind) or (kind,))
    for each in _each(value):
        said = _refused(param, each, kinds) if isinstance(each, str) else ""
        if said:
            raise typer.BadParameter(said, ctx, param)
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
