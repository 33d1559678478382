# SPDX-License-Identifier: Apache-2.0
"""Run command lines in process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tersor.tools.cli import run


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    code: int
    out: str
    err: str


def tersor(capsys: pytest.CaptureFixture[str], *arguments: object) -> Done:
    """Run `tersor ARGUMENTS` and give its exit code and what it printed."""
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return Done(code, out, err)
