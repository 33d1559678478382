# SPDX-License-Identifier: Apache-2.0
"""`tersor serve-opt`: a batch mode for build systems, one process for many models.

It prints {"ready": true}, then answers each line {"in": path, "out": path} of standard input by one line,
{"ok": true, "nodes": [before, after]} or {"ok": false, "type": error class, "where": place, "error": line}.
A model that fails does not end the process; the end of standard input does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from .optimize import Settings


def command(
    passes: str | None = typer.Option(None, metavar="TEXT", help="A pipeline instead of the lossless one."),
    freeze_default_inputs: bool = typer.Option(
        False, "--freeze-default-inputs", help="Make inputs that have a default constant."
    ),
) -> None:
    r"""Optimise many models in one process, asked by lines of JSON on standard input.

    For example:

    \b
      echo '{"in": "a.onnx", "out": "b.onnx"}' | tersor serve-opt
    """
    from ..pipeline.presets import LOSSLESS
    from ..pipeline.spec import parse
    from .failures import INTERRUPTED
    from .optimize import Settings

    settings = Settings(
        passes=LOSSLESS if passes is None else passes, freeze_default_inputs=freeze_default_inputs
    )
    parse(settings.passes)
    _say({"ready": True})
    for line in sys.stdin:
        if not line.strip():
            continue
        answer, exit_code = _answer(line, settings)
        _say(answer)
        if exit_code == INTERRUPTED:
            raise typer.Exit(INTERRUPTED)


def _answer(line: str, settings: Settings) -> tuple[dict[str, Any], int]:
    from .failures import Guard
    from .optimize import optimize_file

    answer: dict[str, Any] = {}
    with Guard() as guard:
        source, target = _read(line)
        report = optimize_file(source, target, settings)
        answer = {"ok": True, "nodes": [report.before.total(), report.after.total()]}
    failure = guard.failure
    if failure is None:
        return answer, 0
    told = {"ok": False, "type": failure.kind, "where": failure.where, "error": failure.line}
    return told, failure.exit_code


def _read(line: str) -> tuple[Path, Path]:
    from ..graph_ir import UsageError
    from ..graph_ir.given import given_path
    from ..graph_ir.json_text import parse_object

    asked = parse_object(line, "a request", UsageError)
    source, target = asked.get("in"), asked.get("out")
    if isinstance(source, str) and isinstance(target, str):
        return given_path("in", source), given_path("out", target)
    raise UsageError('a request is {"in": path, "out": path}')


def _say(data: dict[str, Any]) -> None:
    print(json.dumps(data), flush=True)
