# SPDX-License-Identifier: Apache-2.0
"""`tersor build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..backends.onnxruntime.audit import AuditRow
    from ..pipeline.builder import BuildResult

_NODES_SHOWN = 3  # of those that stay float for one reason; report.json has all
_FORMS_SHOWN = 2  # of those the search has made; likewise
_FASTER = 1.01  # less is within the noise
_OUTPUTS_SHOWN = 8  # a decoder has two for each layer's cache
_ALIKE_DB = 1.0  # an output that is closer than what varies of it by no more has one row


def command(
    model: Path = typer.Argument(
        ..., exists=True, metavar="MODEL", help="The model file; it is never touched."
    ),
    out: Path = typer.Option(..., "-o", "--out", metavar="DIR", help="Folder for the result."),
    *,
    data: str | None = typer.Option(
        None,
        metavar="DATA",
        help="Calibration inputs: .npz, a folder of .npz or .npy, module:function, or random by name.",
    ),
    target: str = typer.Option("onnxruntime-cpu", metavar="TARGET", help="Where the model will run."),
    metric: str | None = typer.Option(
        None, metavar="MODULE:FUNCTION", help="metric(run) -> float, higher is better."
    ),
    max_drop: str | None = typer.Option(
        None,
        metavar="SHARE",
        help="With a metric: how much of it may be lost, relative: 1%, 0.01.",
        show_default="1%",
    ),
    min_sqnr: float | None = typer.Option(
        None, help="Without a metric: least SQNR of any output, in dB.", show_default="20"
    ),
    passes: str | None = typer.Option(None, metavar="TEXT", help="A pipeline instead of the lossless one."),
    recipe: str | None = typer.Option(None, metavar="FILE", help="Follow a recipe instead of searching."),
    samples: int = typer.Option(256, help="Use at most so many of the inputs."),
    rounds: int = typer.Option(25, help="Rounds of the closing latency measurement."),
    budget: str | None = typer.Option(
        None,
        metavar="TIME",
        help="Begin no further trial after 90s, 2m or 1h30m; the closing timing and checks come on top.",
        show_default="5m",
    ),
    lock: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Make again what this build.lock.json is of, the same bytes, instead of searching.",
    ),
    trials: Path | None = typer.Option(
        None, metavar="FILE", help="Log of trials: a build that was stopped goes on from it."
    ),
    seed: int = typer.Option(0, help="For inputs drawn from the signature where no data is given."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
) -> None:
    r"""Turn a model into a verified, smaller and faster one.

    For example:

    \b
      tersor build model.onnx -o out --data calib.npz
      tersor build model.onnx -o out --data calib.npz --metric score:accuracy --max-drop 0.5%
      tersor build model.onnx -o out --data loader:feeds --min-sqnr 25
      tersor build model.onnx -o out --data loader:feeds --budget 2m --trials trials.jsonl
      tersor build model.onnx -o ci --data calib.npz --lock build.lock.json
      tersor build model.onnx -o out

    Writes model.onnx, session.json, report.json and build.lock.json into DIR. What is shipped is never slower
    than MODEL and keeps within the limits, as measured here; if nothing better is found, it is MODEL itself,
    and the report says why. Without --data only the lossless part is done. Exits with 1 when what a
    recipe makes misses a limit and the recipe says to `accept` one, when the metric fails on every candidate,
    or when what --lock is of can no longer be made or misses a limit.

    The functions: `feeds()` gives an iterable of dicts, input name to array. `metric(run)` calls `run(feed)`,
    which gives the list of outputs, as often as it likes, and returns a number.
    """
    from ..pipeline.amounts import seconds, share
    from ..pipeline.builder import BuildSettings, build
    from ..pipeline.builder.report import REPORT_FILE
    from ..pipeline.builder.settings import BUDGET_S, MAX_DROP, MIN_SQNR_DB
    from ..pipeline.recipe_fields import placed
    from .progress import Progress

    with Progress(f"building {model.name}") as progress:
        refuse_idle(metric=metric, max_drop=max_drop, min_sqnr=min_sqnr)
        settings = BuildSettings(
            model=model,
            out=out,
            data=data,
            metric=metric,
            max_drop=MAX_DROP if max_drop is None else placed("--max-drop", share, max_drop),
            min_sqnr_db=MIN_SQNR_DB if min_sqnr is None else min_sqnr,
            target=target,
            passes=passes,
            recipe=recipe,
            samples=samples,
            rounds=rounds,
            budget_s=BUDGET_S if budget is None else placed("--budget", seconds, budget),
            lock=lock,
            trials=trials,
            seed=seed,
            progress=progress.tell,
        )
        result = build(settings)
    if as_json:
        # What was written: it has the limits of a recipe, too.
        print(result.winner.path.with_name(REPORT_FILE).read_text(encoding="utf-8"), end="")
    else:
        _print(result, settings.out)
    if result.unmet:
        what = "" if recipe is None else f"recipe {recipe!r} does not keep what it accepts: "
        print(f"error: {what}{result.unmet}; shipped instead: {result.winner.name}", file=sys.stderr)
        raise typer.Exit(1)


def beside(result: BuildResult) -> str:
    """The speed of other forms that were timed in the same run, taken as the shipped one's is; or nothing."""
    from ..pipeline.builder.choose import together
    from ..pipeline.builder.form import PLAIN
    from ..pipeline.builder.timing import relative_time, undisturbed
    from .render import plural

    measured = undisturbed(result.latency)
    timed = {name for by_name in measured.values() for name in by_name}
    others = [name for name in result.judged if name in timed - {result.before.name, result.winner.name}]
    times = {name: relative_time(measured, name, result.before.name) for name in others}
    # The float forms and the plain one say what the search has brought; of those it made, the fastest do.
    known = [name for name in others if name == PLAIN or not result.judged[name][0].quantized]
    ranked = sorted((name for name in others if name not in known), key=lambda name: times[name])
    speeds: list[str] = []
    for name in [*known, *ranked[:_FORMS_SHOWN]]:
        judgement = result.judged[name][1]
        refused = "" if judgement.accepted else f" (refused: {judgement.reason})"
        speeds.append(f"{name} {1 / times[name]:.2f}x{refused}")
    more = f" and {plural(left, 'slower form')}" if (left := len(ranked[_FORMS_SHOWN:])) else ""
    return f"timed beside it{together(measured)}: {', '.join(speeds)}{more}" if speeds else ""


def _print_concurrency(result: BuildResult) -> None:
    from .render import plural, print_line

    runs = result.proof.concurrency
    if runs:
        best = max(runs, key=lambda run: run.runs_per_s)
        print_line(
            f"concurrent callers: answers agree in {len(runs)} settings; best {best.runs_per_s:.0f} runs/s "
            f"with {plural(best.callers, 'caller')} of {plural(best.threads, 'thread')}, "
            f"p50 {best.p50_ms:.2f} ms, p99 {best.p99_ms:.2f} ms"
        )


def refuse_idle(*, metric: object, max_drop: object, min_sqnr: object) -> None:
    """Refuse a limit that nothing would be held to.

    Raises:
        UsageError: a drop of a metric without one, or with one a limit for outputs, which it stands in for.
    """
    from ..graph_ir import UsageError

    if max_drop is not None and metric is None:
        raise UsageError("--max-drop is a share of the metric; give --metric too")
    if min_sqnr is not None and metric is not None:
        raise UsageError("--min-sqnr judges outputs where there is no metric; leave it or --metric out")


def speed(times: float) -> str:
    """How many times faster, in words; without them where it is neither."""
    return f"{times:.2f}x faster" if times >= _FASTER else f"{times:.2f}x"


def left_float(rows: Sequence[AuditRow]) -> list[str]:
    """A line for each reason why linear nodes are not int8, with the first of them."""
    from ..backends.onnxruntime.audit import COUNTED

    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.op_type in COUNTED:
            reasons.setdefault(row.reason or "left float", []).append(f"{row.node} ({row.op_type})")
    lines: list[str] = []
    for reason, nodes in reasons.items():
        more = f" and {len(nodes) - _NODES_SHOWN} more" if len(nodes) > _NODES_SHOWN else ""
        lines.append(f"not int8: {', '.join(nodes[:_NODES_SHOWN])}{more}: {reason}")
    return lines


def shown_outputs(closeness: Mapping[str, float]) -> list[str]:
    """The outputs that have a row: all, or of many the first and those furthest off, in order."""
    if len(closeness) <= _OUTPUTS_SHOWN:
        return list(closeness)
    first, *others = closeness
    chosen = {first, *sorted(others, key=lambda name: closeness[name])[: _OUTPUTS_SHOWN - 2]}
    return [name for name in closeness if name in chosen]


def _rows(result: BuildResult) -> list[tuple[object, ...]]:
    """The table: what, of the original, of the shipped form, and how they compare."""
    from .render import macs, plural, quantity, size

    before, after = result.facts[result.before.name], result.facts[result.winner.name]
    rows: list[tuple[object, ...]] = [
        ("size", size(before.size), size(after.size), f"{after.size / before.size:.0%}"),
        ("parameters", quantity(before.parameters), quantity(after.parameters), ""),
        ("MACs", macs(before.macs, before.uncounted), macs(after.macs, after.uncounted), ""),
        ("nodes", before.nodes, after.nodes, ""),
    ]
    for threads, times in result.latency.items():
        both = (times[result.before.name], times[result.winner.name])
        medians = (f"{t.median_ms:.3f} ms" for t in both)
        rows.append((f"latency, {plural(threads, 'thread')}", *medians, speed(result.speedup(threads))))
        rows.append(("  10 to 90 %", *(f"{t.p10_ms:.3f} to {t.p90_ms:.3f} ms" for t in both), ""))
    judgement = result.judged[result.winner.name][1]
    reference = result.judged[result.before.name][1]
    if judgement.metric is not None and reference.metric is not None:
        change = -(judgement.drop or 0.0)
        drop = "kept" if change == 0 else f"{abs(change):.2%} {'gained' if change > 0 else 'lost'}"
        rows.append(("metric", f"{reference.metric:.4f}", f"{judgement.metric:.4f}", drop))
    shown = shown_outputs({name: c.sqnr_db for name, c in judgement.fidelity.items()})
    for name in shown:
        c = judgement.fidelity[name]
        rows.append((f"output {name}", "", f"{c.sqnr_db:.1f} dB SQNR", f"cosine {c.cosine:.5f}"))
        varying = judgement.varying_db(name)
        if varying < c.sqnr_db - _ALIKE_DB:
            rows.append(("  of what varies", "", f"{varying:.1f} dB SQNR", ""))
    rest = [c.sqnr_db for name, c in judgement.fidelity.items() if name not in shown]
    if rest:
        rows.append((plural(len(rest), "closer output"), "", f"{min(rest):.1f} dB SQNR and more", ""))
    found = result.proof.audit
    if found is not None:
        rows.append(
            ("int8 coverage", "", f"{found.linear_int8} of {found.linear_total} linear nodes",
             f"{found.macs_share:.0%} of MACs")
        )  # fmt: skip
    return rows


def _print(result: BuildResult, out: Path) -> None:
    from .render import print_line, print_table

    print_table(("", result.before.name, result.winner.name, ""), _rows(result))
    print()
    print_line(f"shipped: {result.why}")
    if result.winner.quantized:
        print_line(f"in words: {result.winner.words}")
    found = result.proof.audit
    for line in filter(None, [beside(result), *left_float(() if found is None else found.misses)]):
        print_line(line)
    if result.sensitivity is not None:
        found_for = result.sensitivity.form
        of = "" if found_for == result.winner.name else f" of {found_for}"
        print_line(f"sensitivity{of}: {result.sensitivity.summary()}; report.json lists them")
    _print_concurrency(result)
    for note in result.notes:
        print_line(f"note: {note}")
    print(f"written to {out}: model.onnx, session.json, report.json, build.lock.json")
