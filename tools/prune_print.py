# SPDX-License-Identifier: Apache-2.0
"""What `tersor prune` prints for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .render import macs, plural, print_line, print_table, quantity, size

if TYPE_CHECKING:
    from ..analysis.coupling import Pinned
    from ..pipeline.prune.job import Pruned
    from ..pipeline.prune.report import PruneReport
    from ..pipeline.prune.select import Chosen

_PINNED_SHOWN = 3
_SHOWN = 24  # groups that stay whole are only counted beyond this many lines


def print_report(report: PruneReport, out: Path | None, *, explain: bool) -> None:
    """Print groups, rounds, the figures before and after, and notes."""
    pruned = report.pruned
    if pruned is not None:
        _print_groups(pruned, explain=explain)
        _print_tried(pruned)
        if explain:
            print_pinned(pruned.pinned)
        _print_rounds(pruned)
    if report.sparsity is not None:
        for line in report.sparsity.lines():
            print_line(line)
        print()
    _print_figures(report)
    for note in report.notes:
        print_line(f"note: {note}")
    if report.stopped:
        print_line(f"stopped: {report.stopped}")
    if report.written:
        print(f"wrote {out}")
    elif not report.held:
        print("nothing was written")
    else:
        print("dry run: no model was written")


def print_pinned(pinned: Sequence[Pinned]) -> None:
    """Print what cannot be pruned, and why."""
    rows = [(p.node, f"{p.value}:{p.axis}", f"{p.positions} of {p.size}", p.reason) for p in pinned]
    if rows:
        print_table(("layer", "axis", "stays", "why"), rows, title="cannot be pruned")
        print()


def _print_groups(pruned: Pruned, *, explain: bool) -> None:
    cut = [g for g in pruned.groups if g.is_cut]
    stays = [g for g in pruned.groups if not g.is_cut]
    few = len(pruned.groups) <= _SHOWN and not pruned.tried  # else what was tried is shown instead
    shown = stays if explain or few else []
    rows = [_row(g) for g in pruned.groups if g in cut or g in shown]
    if rows:
        print_table(("channels", "before", "ideal", "after", "why"), rows)
    if len(shown) < len(stays):
        noun = "group stays" if len(stays) == 1 else "groups stay"
        print(f"{len(stays)} more {noun} whole; --explain lists {'it' if len(stays) == 1 else 'them'}")
    if pruned.pinned and not explain:
        count = len(pruned.pinned)
        first = ", ".join(p.node for p in pruned.pinned[:_PINNED_SHOWN])
        more = ", ..." if count > _PINNED_SHOWN else ""
        verb = "layer cannot" if count == 1 else "layers cannot"
        print_line(f"{count} {verb} be pruned, in full or in part: {first}{more}; --explain says why")
    print()


def _print_tried(pruned: Pruned) -> None:
    """What the round that was given up would have cut."""
    rows = [_row(g) for g in pruned.tried if g.is_cut]
    if rows:
        print_table(("channels", "before", "ideal", "after", "why"), rows, title="tried, and given up")
        print()


def _row(group: Chosen) -> tuple[object, ...]:
    each = group.before // group.atoms
    widths: list[object] = [group.before, group.ideal, group.after]
    if group.heads and each > 1:
        found = group.before, group.ideal, group.after
        widths = [f"{width} ({plural(width // each, 'head')})" for width in found]
    return group.group, *widths, group.why


def _print_rounds(pruned: Pruned) -> None:
    if not pruned.rounds:
        return
    rows: list[tuple[object, ...]] = []
    for each in pruned.rounds:
        judgement = each.judgement
        metric = drop = sqnr = "-"
        if judgement is not None:
            metric = "-" if judgement.metric is None else f"{judgement.metric:.4f}"
            drop = "-" if judgement.drop is None else f"{judgement.drop:.2%}"
            sqnr = f"{judgement.sqnr_db:.1f}" if judgement.fidelity else "-"
        left, wanted = (("-" if x is None else f"{x:.1%}") for x in (each.left, each.wanted))
        rows.append((each.number, left, wanted, metric, drop, sqnr, "kept" if each.kept else "given up"))
    print_table(("round", "left", "wanted", "metric", "lost", "SQNR dB", ""), rows)
    print()


def _print_figures(report: PruneReport) -> None:
    before, after = report.before, report.after
    rows: list[tuple[object, ...]] = [
        (
            "parameters",
            quantity(before.parameters),
            quantity(after.parameters),
            _share(after.parameters, before.parameters),
        ),
        (
            "MACs",
            macs(before.macs, before.uncounted),
            macs(after.macs, after.uncounted),
            "" if before.uncounted or after.uncounted else _share(after.macs, before.macs),
        ),
        ("size", size(before.size), size(after.size), _share(after.size, before.size)),
    ]
    if report.times:
        from ..backends.onnxruntime.latency import compare
        from ..pipeline.prune.timing import ORIGINAL, PRUNED

        old, new = report.times[ORIGINAL], report.times[PRUNED]
        ratio = compare(new, old)
        threads = (
            "all cores" if not report.threads else f"{report.threads} thread{'s' * (report.threads > 1)}"
        )
        rows.append(
            (
                f"latency, {threads}",
                f"{old.median_ms:.3f} ms",
                f"{new.median_ms:.3f} ms",
                f"{ratio.median:.0%}",
            )
        )
    score = report.metric_after
    if report.reference is not None:
        rows.append(("metric", f"{report.reference:.4f}", "-" if score is None else f"{score:.4f}", ""))
    print_table(("", "before", "after", "left"), rows)
    print()


def _share(after: float, before: float) -> str:
    return f"{after / before:.0%}" if before else "-"
