# SPDX-License-Identifier: Apache-2.0
"""Pipeline text: parse and print.

    pipeline ::= element ("," element)*
    element  ::= name options? | "(" pipeline ")!" limit?      # "!" = until nothing changes
    options  ::= "{" key ("=" value)? (" " key ("=" value)?)* "}"

For example `inline,(fold-constants,cse)!3,insert-qdq{scheme=int8 per-channel}`. Values are kept as written:
text prints back exactly. Only spaces and line ends around elements, which the parser allows for long recipes,
are not kept. How values are written is in `options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from ..graph_ir import UsageError
from ..passes import catalog
from ..passes.base import Pass
from . import options as opt
from .presets import PRESETS

MAX_DEPTH = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_VALUE = re.compile(
    r'(?:"(?:[^"\\\x00-\x1f]|\\.)*"|[^\s{}()",=!]+)(?:,(?:"(?:[^"\\\x00-\x1f]|\\.)*"|[^\s{}()",=!]+))*|\(\)'
)
_LIMIT = re.compile(r"[0-9]+")
_SPACE = re.compile(r"\s*")

Find: TypeAlias = Callable[[str], type[Pass]]


@dataclass(frozen=True)
class Option:
    """One option as given: its typed value, and its text (empty for a bare flag) to print it back."""

    name: str
    value: object
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name}={self.text}" if self.text else self.name


@dataclass(frozen=True)
class PassSpec:
    """A pass by name with the options given; `pass_` is the pass they make."""

    name: str
    options: tuple[Option, ...] = ()
    pass_: Pass = field(default_factory=Pass, compare=False, repr=False)

    def __str__(self) -> str:
        inside = " ".join(map(str, self.options))
        return f"{self.name}{{{inside}}}" if inside else self.name


@dataclass(frozen=True)
class Loop:
    """Elements run in order, again and again, until a round changes nothing or `limit` rounds are done."""

    body: Pipeline
    limit: int | None = None

    def __str__(self) -> str:
        return f"({self.body})!{self.limit or ''}"


@dataclass(frozen=True)
class Pipeline:
    """Elements in order; `str` gives the text back."""

    elements: tuple[PassSpec | Loop, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.elements))

    def passes(self) -> Iterator[PassSpec]:
        """Every pass, in order, loops once."""
        for element in self.elements:
            if isinstance(element, Loop):
                yield from element.body.passes()
            else:
                yield element


def parse(text: str, find: Find = catalog.get) -> Pipeline:
    """Read pipeline text; every name and option is checked.

    Args:
        text: the pipeline.
        find: looks a pass class up by name, raising UsageError for an unknown one.

    Raises:
        UsageError: one line with the column (from 1) and what was expected.
    """
    return _Parser(text, find).parse()


def spec_of(pass_: Pass) -> PassSpec:
    """The spec of a pass made in Python: the options that differ from their defaults, in field order."""
    given: list[Option] = []
    for name, option in opt.options_of(type(pass_)).items():
        value = getattr(pass_, option.field)
        if option.required or value != option.default:
            text = "" if value is True and option.type is bool else opt.write(option.type, value)
            given.append(Option(name, value, text))
    return PassSpec(pass_.name, tuple(given), pass_)


class _Parser:
    def __init__(self, text: str, find: Find) -> None:
        self.text = text
        self.at = 0
        self.find = find

    def parse(self) -> Pipeline:
        pipeline = self.pipeline(0)
        if self.at < len(self.text):
            raise self.error(f"expected ',' or the end, found {self.text[self.at]!r}")
        return pipeline

    def error(self, message: str, at: int | None = None) -> UsageError:
        return UsageError(f"pipeline, column {(self.at if at is None else at) + 1}: {message}")

    def skip_space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def accept(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            rest = self.text[self.at : self.at + 1]
            raise self.error(f"expected {what}, found {f'{rest!r}' if rest else 'the end'}")
        self.at = found.end()
        return found.group()

    def pipeline(self, depth: int) -> Pipeline:
        elements: list[PassSpec | Loop] = []
        while True:
            self.skip_space()
            elements.append(self.loop(depth + 1) if self.accept("(") else self.pass_spec())
            self.skip_space()
            if not self.accept(","):
                return Pipeline(tuple(elements))

    def loop(self, depth: int) -> Loop:
        if depth > MAX_DEPTH:
            raise self.error(f"loops are nested more than {MAX_DEPTH} deep")
        body = self.pipeline(depth)
        if not self.accept(")!"):
            raise self.error("expected ',' or ')!' at the end of the loop")
        start = self.at
        found = _LIMIT.match(self.text, self.at)
        if found is None:
            return Loop(body)
        self.at = found.end()
        # A limit prints back only in its shortest form, so no other is taken.
        if found.group().startswith("0") or len(found.group()) > 6:
            raise self.error(f"a loop's limit is a count of rounds from 1 on, not {found.group()}", start)
        return Loop(body, int(found.group()))

    def pass_spec(self) -> PassSpec:
        start = self.at
        name = self.take(_NAME, "a pass name or '('")
        try:
            pass_class = self.find(name)
        except UsageError as error:
            preset = f'{name!r} is a preset, not a pass; a recipe\'s step names it: preset = "{name}"'
            raise self.error(preset if name in PRESETS else str(error), start) from error
        given = self.options(pass_class) if self.accept("{") else ()
        try:
            made = opt.build(pass_class, {option.name: option.value for option in given})
        except UsageError as error:
            raise self.error(str(error), start) from error
        return PassSpec(name, given, made)

    def options(self, pass_class: type[Pass]) -> tuple[Option, ...]:
        known = opt.options_of(pass_class)
        given: dict[str, Option] = {}
        while True:
            start = self.at
            option = self.option(pass_class.name, known)
            if option.name in given:
                raise self.error(f"pass {pass_class.name!r} is given {option.name!r} twice", start)
            given[option.name] = option
            if self.accept("}"):
                return tuple(given.values())
            if not self.accept(" "):
                raise self.error("expected a space and the next option, or '}'")

    def option(self, owner: str, known: dict[str, opt.OptionSpec]) -> Option:
        start = self.at
        name = self.take(_KEY, "an option name")
        try:
            spec = opt.find(known, name, owner)
        except UsageError as error:
            raise self.error(str(error), start) from error
        if not self.accept("="):
            if spec.type is not bool:
                raise self.error(
                    f"pass {owner!r}: {name!r} takes a value: {name}={opt.describe_type(spec.type)}", start
                )
            return Option(name, value=True)
        start = self.at
        text = self.take(_VALUE, f"a value for {name!r}")
        try:
            return Option(name, opt.read(spec.type, text), text)
        except opt.OptionError as error:
            raise self.error(f"pass {owner!r}: {name!r} {error}", start) from error
