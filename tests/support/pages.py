# SPDX-License-Identifier: Apache-2.0
"""Read pages of documentation and run what they show.

What a fenced block is follows from its info string: `sh` is run, `python` is run (the blocks of one page
share their names), `python file=NAME` and `toml file=NAME` are written to a file, `text` is output or not to
be run, and `text exact` is what the block before it printed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from tersor.tools.cli import run

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = re.compile(r"[|<>&;*$]")
# Measuring for long would only make the test slow: what is shown must run, not take as long.
_QUICK = {
    "build": ("--rounds", "3", "--samples", "8"),
    "bench": ("--rounds", "3"),
    "prune": ("--samples", "24"),
}
_SHIMS = "\n".join(
    (
        f'tersor() {{ {shlex.quote(sys.executable)} -m tersor "$@"; }}',
        f'python() {{ {shlex.quote(sys.executable)} "$@"; }}',
    )
)
_KINDS = {"sh", "python", "toml", "text", "json", "ebnf"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it, its text and its first line's number."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def file(self) -> str:
        """The file it is to be written to; empty when it is none."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _FENCE.finditer(page):
        language, *words = found["info"].split() or [""]
        assert language in _KINDS, f"a block of {language!r}: say sh, python, toml, json, ebnf or text"
        yield Block(language, tuple(words), found["body"], page.count("\n", 0, found.start()) + 1)


def links(page: str) -> list[str]:
    """Where the page links to, blocks left out."""
    return _LINK.findall(_FENCE.sub("", page))


def commands(text: str) -> list[str]:
    """The commands of a shell block: continued lines joined, comments and empty lines left out."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


@dataclass
class Place:
    """A folder in which pages are run, as if it were a checkout.

    A command that ran before on the same folder is not run again; what it printed is remembered.
    """

    root: Path
    sources: Path
    printed: dict[tuple[Path, str], str] = field(default_factory=dict[tuple[Path, str], str])

    def shell(self, text: str, here: Path) -> tuple[str, Path]:
        """Run a shell block; what it printed, and the folder it ends in (the caller is taken there)."""
        out = ""
        for line in commands(text):
            if line.startswith("cd "):
                here = (here / line[3:].strip()).resolve()
                assert here.is_relative_to(self.root), f"{line!r} leaves the checkout"
                os.chdir(here)
                continue
            if (here, line) not in self.printed:
                self.printed[here, line] = self._one(line, here)
            out += self.printed[here, line]
        return out, here

    def _one(self, line: str, here: Path) -> str:
        words = shlex.split(line, comments=True)
        if words[0] == "tersor" and not _SHELL.search(re.sub(r"'[^']*'", "", line)):
            printed = StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                code = run(_quick(words[1:]))
            assert code == 0, f"{line}\n{printed.getvalue()}"
            return printed.getvalue()
        done = subprocess.run(
            f"{_SHIMS}\n{line}",
            shell=True,
            executable="/bin/bash",
            cwd=here,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.sources), "HOME": str(self.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def python(self, block: Block, page: str, names: dict[str, Any]) -> str:
        """Run a Python block; what it printed."""
        printed = StringIO()
        code = compile("\n" * block.line + block.text, page, "exec")
        with redirect_stdout(printed):
            exec(code, names)
        return printed.getvalue()


def _quick(words: list[str]) -> list[str]:
    """A command line with the options that make it quick, in place of its own values of them."""
    given = _QUICK.get(words[0], ())
    wanted = dict(zip(given[::2], given[1::2], strict=True))
    kept = [
        word
        for index, word in enumerate(words)
        if word not in wanted and (index == 0 or words[index - 1] not in wanted)
    ]
    return [*kept, *(part for pair in wanted.items() for part in pair)]
