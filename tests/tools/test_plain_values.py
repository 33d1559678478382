# SPDX-License-Identifier: Apache-2.0
"""Values of the command line that need no conversion: the same ones as with typer's, without its import."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperCommand

from tersor.tools.plain_values import PlainCommand

SOURCES = Path(__file__).resolve().parents[2] / "src"


class Colour(str, Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


def parsed(cls: type[TyperCommand], *arguments: str) -> dict[str, Any]:
    """What a command of this class is called with."""
    found: dict[str, Any] = {}

    def doubled(value: str | None) -> str | None:
        return None if value is None else value * 2

    def command(
        source: Path,
        words: list[str] = typer.Argument([]),
        *,
        text: str | None = None,
        called: str | None = typer.Option(None, callback=doubled),
        folder: Path | None = None,
        count: int = 3,
        share: float | None = typer.Option(None, min=0.0, max=1.0),
        colour: Colour = Colour.RED,
        flag: bool = False,
        choice: bool | None = None,
        many: list[str] = typer.Option([]),
        threads: list[int] = typer.Option([], max=8),
    ) -> None:
        found.update(locals())
        del found["found"]

    app = typer.Typer(add_completion=False)
    app.command(cls=cls)(command)
    typer.main.get_command(app).main(args=list(arguments), standalone_mode=False)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.onnx"],
        ["a.onnx", "b", "c", "--text", "", "--folder", "d/e", "--flag", "--no-choice"],
        ["a.onnx", "--count", "5", "--share", "0.5", "--colour", "blue", "--many", "x", "--many", "y"],
        ["a.onnx", "--threads", "1", "--threads", "8"],
        ["a.onnx", "--called", "ab", "--choice"],
    ],
)
def test_values_are_those_of_typer(arguments: list[str]) -> None:
    ours, theirs = parsed(PlainCommand, *arguments), parsed(TyperCommand, *arguments)
    assert ours == theirs
    assert {name: type(value) for name, value in ours.items()} == {n: type(v) for n, v in theirs.items()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ""),
        (["a", "--count", "x"], "'x' is no whole number"),
        (["a", "--count", "1.5"], "'1.5' is no whole number"),
        (["a", "--share", "x"], "'x' is no number"),
        (["a", "--share", "2"], "2 is more than 1.0"),
        (["a", "--share", "-1"], "-1 is not at least 0.0"),
        (["a", "--share", "nan"], "nan is not at least 0.0"),
        (["a", "--threads", "1", "--threads", "9"], "9 is more than 8"),
        (["a", "--threads", "few"], "'few' is no whole number"),
        (["a", "--colour", "green"], "'green' is not red or blue"),
    ],
)
def test_what_typer_refuses_is_refused_in_plain_words(arguments: list[str], said: str) -> None:
    with pytest.raises(Exception, match=r"\S") as ours:
        parsed(PlainCommand, *arguments)
    with pytest.raises(Exception, match=r"\S") as theirs:
        parsed(TyperCommand, *arguments)
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value) == said or not said


def test_a_plain_command_line_does_not_load_the_converter() -> None:
    code = (
        "import sys; from tersor.tools.cli import run; code = run(sys.argv[1:]); "
        "print([m for m in sys.modules if m.partition('.')[0] == 'pydantic'], code)"
    )
    command = [sys.executable, "-c", code, "opt", "missing.onnx", "out.onnx", "--stats"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[] 2\n"
    assert "missing.onnx" in done.stderr
