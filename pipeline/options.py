# SPDX-License-Identifier: Apache-2.0
"""Options of a pass are the fields of its dataclass: their types, their text and their reading live here.

A field `per_channel` is the option `per-channel`. Text forms: a bool is a flag (`per-channel`) or `true` and
`false`; int and float as Python writes them; an enum by its value; a tuple as `a,b,c` with `()` for the empty
one; None as `none`; a string bare where it can be, else in JSON quotes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, Literal, Union, cast

from ..graph_ir import UsageError
from ..passes.base import Pass, bounds_of

# What may stand unquoted in an option's value.
BARE = re.compile(r"[^\s{}()\",=!]+")
_ITEM = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"|[^\s{}()",=!]+')


class OptionError(ValueError):
    """An option's value is not of its type; the message says what it takes."""


@dataclass(frozen=True)
class OptionSpec:
    """One option of a pass.

    Attributes:
        name: as written in pipeline text (dashes).
        field: the dataclass field.
        type: its resolved Python type.
        default: its default, or `dataclasses.MISSING` when it must be given.
        bounds: what of that type it takes, in words; empty where all is taken.
    """

    name: str
    field: str
    type: Any
    default: Any
    bounds: str = ""

    @property
    def required(self) -> bool:
        """Whether the option must be given."""
        return self.default is dataclasses.MISSING


def options_of(pass_class: type[Pass]) -> dict[str, OptionSpec]:
    """The options of a pass by their text name, in field order."""
    hints = typing.get_type_hints(pass_class)
    found: dict[str, OptionSpec] = {}
    for field in dataclasses.fields(pass_class):
        if not field.init:
            continue
        default: Any = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        name = field.name.replace("_", "-")
        found[name] = OptionSpec(name, field.name, hints[field.name], default, bounds_of(field))
    return found


def describe_type(kind: Any) -> str:
    """How an option's type is named to people."""
    if kind is bool:
        return "flag"
    if kind in (int, float):
        return cast("type", kind).__name__
    if kind is str:
        return "text"
    choices = _choices(kind)
    if choices is not None:
        return "|".join(choices)
    if _union(kind) is not None:
        return f"{describe_type(_union(kind))}|none"
    if typing.get_origin(kind) is tuple:
        return f"list of {describe_type(typing.get_args(kind)[0])}"
    return str(kind)


def read(kind: Any, text: str) -> object:
    """The value an option's text means.

    Raises:
        OptionError: when the text is not of that type.
    """
    inner = _union(kind)
    if inner is not None:
        return None if text == "none" else read(inner, text)
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return () if text == "()" else tuple(read(element, item) for item in _items(text))
    return _read_one(kind, text)


def _read_one(kind: Any, text: str) -> object:
    plain = _unquoted(text)
    choices = _choices(kind)
    if choices is not None:
        if plain in choices:
            return choices[plain]
    elif kind is str:
        return plain
    elif kind is bool:
        if plain in ("true", "false"):
            return plain == "true"
    elif kind in (int, float):
        try:
            return kind(plain)
        except ValueError:
            pass
    raise OptionError(f"takes {describe_type(kind)}, not {plain!r}")


def write(kind: Any, value: object) -> str:
    """The text that `read` turns into the value."""
    inner = _union(kind)
    if inner is not None:
        if value is None:
            return "none"
        text = write(inner, value)
        return '"none"' if text == "none" else text
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        element = typing.get_args(kind)[0]
        return ",".join(write(element, item) for item in items) if items else "()"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _quoted(str(value.value))
    if isinstance(value, (int, float)):
        return repr(value)
    return _quoted(str(value))


def build(pass_class: type[Pass], given: Mapping[str, object]) -> Pass:
    """Make the pass from typed option values by their text names.

    Raises:
        UsageError: when a required option is missing, or the pass refuses a value.
    """
    known = options_of(pass_class)
    missing = [name for name, option in known.items() if option.required and name not in given]
    if missing:
        raise UsageError(f"pass {pass_class.name!r} needs the option {missing[0]!r}")
    try:
        return cast("Callable[..., Pass]", pass_class)(**{known[name].field: v for name, v in given.items()})
    except ValueError as error:
        raise UsageError(f"pass {pass_class.name!r}: {error}") from error


def find(known: Mapping[str, OptionSpec], name: str, owner: str) -> OptionSpec:
    """Look an option up.

    Raises:
        UsageError: naming the nearest options, or all of them.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 3)
    if near:
        hint = f"did you mean {', '.join(near)}?"
    else:
        hint = f"it takes {', '.join(known)}" if known else "it takes none"
    raise UsageError(f"pass {owner!r} has no option {name!r}; {hint}")


def _union(kind: Any) -> Any | None:
    """The X of `X | None`, else None."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        rest = [a for a in typing.get_args(kind) if a is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return None


def _choices(kind: Any) -> dict[str, object] | None:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {str(member.value): member for member in kind}
    if typing.get_origin(kind) is Literal:
        return {str(choice): choice for choice in typing.get_args(kind)}
    return None


def _items(text: str) -> list[str]:
    found: list[str] = []
    at = 0
    while True:
        item = _ITEM.match(text, at)
        if item is None:
            raise OptionError(f"takes items separated by commas, not {text!r}")
        found.append(item.group())
        at = item.end()
        if at == len(text):
            return found
        if text[at] != ",":
            raise OptionError(f"takes items separated by commas, not {text!r}")
        at += 1


def _quoted(text: str) -> str:
    return text if BARE.fullmatch(text) else json.dumps(text)


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise OptionError(f"has a broken quoted text {text}") from error
