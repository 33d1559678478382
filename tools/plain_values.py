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
from errno import ENOENT
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from .sections import SectionedCommand

_WRONG_USE = cast("type[Exception]", typer.BadParameter.__mro__[1])  # UsageError, which typer does not export


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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the command line apart.

        Raises:
            UsageError: typer's, with what can be given instead.
            FileNotFoundError: a file that is to be read is not there; what would read it loads slowly.
        """
        try:
            self._refuse_twice(ctx, args)
            rest = super().parse_args(ctx, args)
        except _WRONG_USE as error:
            wanted: Any = error  # its fields are typer's own
            wanted.ctx = wanted.ctx or ctx
            wanted.message = f"{wanted.message.rstrip('.')}{self._mend(ctx, wanted)}"
            raise
        for param in self.get_params(ctx):
            if getattr(param.type_descriptor.parameter_info, "exists", False):
                for path in _each(ctx.params[param.name]):
                    if isinstance(path, Path) and not path.exists():
                        raise FileNotFoundError(ENOENT, "no such file", str(path))
        return rest

    def _refuse_twice(self, ctx: Any, args: Sequence[str]) -> None:
        """Refuse two values of an option that takes one: typer would forget the first."""
        seen: set[Any] = set()
        order = cast("Sequence[Any]", self.make_parser(ctx).parse_args(args=list(args))[2])
        for param in order:
            if param.param_type_name == "option" and not (param.multiple or param.is_flag or param.count):
                if param in seen:
                    raise _WRONG_USE(f"{param.opts[0]} is given twice; it takes one value")
                seen.add(param)

    def _mend(self, ctx: Any, error: Any) -> str:
        """What to write where the parser says no more than what is wrong; empty where that is not known."""
        options = {text: param for param in self.get_params(ctx) for text in param.opts}
        lacking = options.get(getattr(error, "option_name", ""))
        if lacking is not None and error.message.endswith("an argument."):
            for kind in _flat((get_type_hints(self.callback).get(lacking.name),)):
                if isinstance(kind, type) and issubclass(kind, Enum):
                    return f": {_choices(kind)}"
        if "unexpected extra argument" in error.message and "-o" in options:
            return "; the output is given with -o"
        return ""


def _taken_plainly(params: Sequence[Any], hints: Mapping[str, Any]) -> list[Any]:
    for param in params:
        if not isinstance(param.process_value, partial):
            kinds = get_args(hints.get(param.name)) or (hints.get(param.name),)
            param.process_value = partial(_process, param, param.process_value, kinds)
    return list(params)


def _each(value: object) -> Sequence[object]:
    """The values that were given."""
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else (value,)


def _flat(kinds: tuple[object, ...]) -> tuple[object, ...]:
    """Types with those that are joined in them in their place."""
    return tuple(inner for kind in kinds for inner in get_args(kind) or (kind,))


def _choices(kind: type[Enum]) -> str:
    """What may be given, for people."""
    *most, last = [str(member.value) for member in kind]
    return f"{', '.join(most)} or {last}" if most else last


def _refused(param: Any, text: str, kinds: tuple[object, ...]) -> str:
    """What is wrong with a number or a choice, in words of our own; empty where nothing is."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            choices = [str(member.value) for member in kind]
            return "" if text in choices else f"{text!r} is not {_choices(kind)}"
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
    kinds = _flat(kinds)
    for each in _each(value):
        said = _refused(param, each, kinds) if isinstance(each, str) else ""
        if said:
            raise typer.BadParameter(said, ctx, param)
    if Path in kinds and any(isinstance(each, str) and not each.strip() for each in _each(value)):
        raise typer.BadParameter("it is empty; give a path", ctx, param)
    if param.nargs != 1 or getattr(param, "multiple", False):
        paths = [Path(each) for each in _each(value) if Path in kinds and isinstance(each, str)]
        return paths or convert(ctx, value)
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
