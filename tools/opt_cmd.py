# SPDX-License-Identifier: Apache-2.0
"""`tersor opt`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from .options import AsJson

if TYPE_CHECKING:
    from ..pipeline.validate import Validate
    from .optimize import Report


class PrintIr(str, Enum):
    """When to print the model's text."""

    BEFORE = "before"
    AFTER = "after"
    AFTER_CHANGE = "after-change"


class Validation(str, Enum):
    """When to check numbers."""

    OFF = "off"
    END = "end"
    PASS = "pass"  # noqa: S105 - the word of the command line, not a secret


def command(
    source: Path = typer.Argument(
        ..., exists=True, metavar="IN", help="The model: .onnx, or ONNX text (.onnxtxt)."
    ),
    target: Path = typer.Argument(
        ..., metavar="OUT", help="Where the result goes: .onnx, or text (.onnxtxt, .textproto, .json)."
    ),
    *,
    passes: str | None = typer.Option(None, metavar="TEXT", help="A pipeline instead of the lossless one."),
    recipe: str | None = typer.Option(None, metavar="FILE", help="A recipe, or the name of a shipped one."),
    freeze_default_inputs: bool = typer.Option(
        False, "--freeze-default-inputs", help="Make inputs that have a default constant: often far faster."
    ),
    verify: bool = typer.Option(True, help="Verify the graph, and name a pass that breaks it."),
    validate: Validation = typer.Option(Validation.OFF, help="Check numbers after each pass or at the end."),
    data: str | None = typer.Option(
        None, metavar="DATA", help="Real inputs for --validate, besides seeded ones."
    ),
    print_ir: PrintIr | None = typer.Option(None, help="Print the model's text on standard error."),
    dump: Path | None = typer.Option(None, metavar="DIR", help="Write a numbered model after each change."),
    timing: bool = typer.Option(False, "--timing", help="Show the time of each pass."),
    stats: bool = typer.Option(False, "--stats", help="Show what each pass did."),
    explain: bool = typer.Option(False, "--explain", help="Show where rules matched but declined, and why."),
    external_data: bool | None = typer.Option(None, help="Store weights beside OUT; default: as IN does."),
    as_json: AsJson = False,
) -> None:
    r"""Run passes over a model; by default those that lose nothing on any runtime.

    For example:

    \b
      tersor opt model.onnx smaller.onnx
      tersor opt model.onnx out.onnx --freeze-default-inputs --validate end
      tersor opt model.onnx out.onnx --passes 'inline,(fold-constants,cse)!' --stats
      tersor opt model.onnx out.onnx --validate pass --data calib.npz
      tersor opt model.onnx out.onnx --dump steps --print-ir after-change 2> log.txt

    A pipeline is pass names separated by commas, options in braces (`fold-constants{budget-kib=64}`), and
    loops `(...)!` that run until nothing changes, or `(...)!3` at most three times. `tersor passes` lists the
    passes.
    """
    from ..pipeline.outputs import given_path
    from .optimize import Settings, optimize_file
    from .progress import Progress
    from .render import print_json

    with Progress(f"reading {source.name}") as progress:
        settings = Settings(
            passes=pipeline_text(passes, recipe),
            freeze_default_inputs=freeze_default_inputs,
            verify=verify,
            print_ir=None if print_ir is None else print_ir.value,
            write=sys.stderr.write,
            dump=dump,
            validate=validator(validate.value, data),
            external_data=external_data,
            on_pass=lambda name: progress.say(f"pass {name}"),
            untouched={"--data": given_path(data), "--recipe": None if recipe is None else Path(recipe)},
        )
        report = optimize_file(source, target, settings)
    if as_json:
        print_json(as_data(report, source, target))
        return
    validated = validate.value != "off"
    _print(report, target, timing=timing, stats=stats, explain=explain, validated=validated)


def pipeline_text(passes: str | None, recipe: str | None) -> str:
    """The pipeline the options mean; lossless without any.

    Raises:
        UsageError: both are given, or the recipe does more than run passes.
    """
    from ..graph_ir import UsageError
    from ..pipeline.presets import LOSSLESS

    if passes is not None and recipe is not None:
        raise UsageError("give --passes or --recipe, not both")
    if recipe is None:
        return LOSSLESS if passes is None else passes
    from ..pipeline.recipe import PassesStep, load_recipe

    texts: list[str] = []
    for step in load_recipe(recipe).steps:
        if not isinstance(step, PassesStep):
            raise UsageError(f"recipe {recipe!r} does more than run passes: use `tersor build --recipe`")
        texts.append(str(step.pipeline))
    return ",".join(texts)


def validator(mode: Literal["off", "end", "pass"], data: str | None) -> Validate | None:
    """The instrument that checks numbers, None when off.

    Raises:
        UsageError: data without validation.
    """
    from ..graph_ir import UsageError

    if mode == "off":
        if data is not None:
            raise UsageError("--data is for --validate; add --validate end or --validate pass")
        return None
    from ..pipeline.validate import Validate

    if data is None:
        return Validate(mode)
    from itertools import islice

    from ..calibration import open_feeds

    return Validate(mode, feeds=lambda model: list(islice(open_feeds(data, model), 8)))


def as_data(report: Report, source: Path, target: Path) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "in": str(source),
        "out": str(target),
        "copied": report.copied,
        "pipeline": report.pipeline,
        "nodes": {"before": report.before.total(), "after": report.after.total()},
        "ops": {"before": dict(sorted(report.before.items())), "after": dict(sorted(report.after.items()))},
        "bytes": {"before": report.bytes_before, "after": report.bytes_after},
        "seconds": report.seconds,
        "notes": report.notes,
        "timing": report.timing,
        "statistics": report.statistics,
        "validation": report.validation,
    }


def _print(
    report: Report, target: Path, *, timing: bool, stats: bool, explain: bool, validated: bool
) -> None:
    from .render import plural, print_line, print_table, size

    names = sorted(report.before | report.after)
    changed = [(n, report.before[n], report.after[n]) for n in names if report.before[n] != report.after[n]]
    if changed:
        print_table(["operator", "before", "after"], changed)
        print()
    if timing:
        rows = [(_indented(t), f"{t['seconds']:.3f}", t["runs"], t["changed"]) for t in report.timing]
        print_table(["pass", "seconds", "runs", "changed"], rows)
        print()
    if stats:
        rows = [
            (s["pass"], s["runs"], s["changed"], ", ".join(f"{k} {v}" for k, v in s["counters"].items()))
            for s in report.statistics
        ]
        print_table(["pass", "runs", "changed", "what"], rows)
        print()
    if explain:
        rows = [
            (s["pass"], m["rule"].lstrip("_"), m["count"], m["reason"])
            for s in report.statistics
            for m in s["misses"]
        ]
        print_table(["pass", "rule", "declined", "why"], rows)
        print()
    if validated and not report.validation:
        print("checked: no numbers, as no pass changed anything")
    for check in report.validation:
        print_line(
            f"checked: {check['passes']}: {check['claim']}, {_judged_by(check['judged_by'])}, "
            f"on {plural(check['feeds'], 'feed')}, SQNR {check['sqnr_db']:.0f} dB"
        )
    for note in report.notes:
        print_line(f"note: {note}")
    before, after = report.before.total(), report.after.total()
    spent = ", ".join(f"{what} {seconds:.2f}" for what, seconds in report.seconds.items())
    if report.copied:
        print(f"wrote {target}: the same {size(report.bytes_after)}")
        return
    print_line(
        f"wrote {target}: nodes {before} -> {after}, "
        f"{size(report.bytes_before)} -> {size(report.bytes_after)}, "
        f"{sum(report.seconds.values()):.2f} s ({spent})"
    )


def _indented(line: dict[str, Any]) -> str:
    """A line of the timing tree: what is inside a loop or the pipeline is on lines of its own."""
    text = str(line["text"])
    if line["depth"] == 0:
        return "all passes"
    return "  " * (line["depth"] - 1) + (
        f"(...){text[text.rindex(')') + 1 :]}" if text.startswith("(") else text
    )


def _judged_by(how: str) -> str:
    return "held to nothing, as there is no limit" if how == "nothing" else f"by {how}"
