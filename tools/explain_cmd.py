# SPDX-License-Identifier: Apache-2.0
"""`tersor explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..analysis.cores import MOST_THREADS
from .options import TOP, AsJson, MaybeData, Top

if TYPE_CHECKING:
    from ..backends.onnxruntime.account import NodeAccount
    from ..pipeline.explain import Explanation


def command(
    model: Path = typer.Argument(..., exists=True, metavar="MODEL", help="The model."),
    *,
    original: Path | None = typer.Option(
        None, exists=True, metavar="MODEL0", help="The model it was made from."
    ),
    data: MaybeData = None,
    top: Top = TOP,
    show_all: bool = typer.Option(False, "--all", help="Show every node, those without a kernel, too."),
    samples: int = typer.Option(8, min=1, help="Use at most so many samples."),
    runs: int = typer.Option(20, min=1, help="Timed runs."),
    threads: int = typer.Option(1, min=0, max=MOST_THREADS, help="Threads; 0 for all cores."),
    as_json: AsJson = False,
) -> None:
    r"""Show what became of each node in onnxruntime: kernel, precision, time, error, why not int8.

    For example:

    \b
      tersor explain out/model.onnx
      tersor explain out/model.onnx --original model.onnx --data calib.npz
      tersor explain model.onnx --all
      tersor explain out/model.onnx --json | jq .weights_dequantized_each_run

    Nodes are those of the original: a model that tersor built says which of its nodes stand for which. Times
    are of onnxruntime's profiler, on DATA or on inputs drawn at random. With --original and --data, SQNR is
    that of the node's result against the original's.
    """
    from ..pipeline.explain import explain
    from .progress import Progress
    from .render import print_json

    with Progress(f"running {model.name}"):
        found = explain(model, original, data, samples=samples, runs=runs, threads=threads)
    if as_json:
        print_json(
            {"model": str(model), "original": None if original is None else str(original), **found.to_dict()}
        )
    else:
        _print(found, top, show_all=show_all)


def _print(found: Explanation, top: int, *, show_all: bool) -> None:
    from .render import plural, print_table

    rows = sorted(found.account.rows, key=lambda row: -row.time_us)
    shown = rows if show_all else [row for row in rows if row.kernel][:top]
    columns = ["node", "operator", "kernel", "precision", "us", "share"]
    with_errors = bool(found.errors)
    cells: list[tuple[object, ...]] = []
    for row in shown:
        cell: list[object] = [row.node, row.op_type, row.kernel or "-", row.precision]
        cell += [f"{row.time_us:.0f}", f"{row.share:.1%}"] if row.kernel else ["", ""]
        if with_errors:
            close = found.error(row.node)
            cell.append("" if close is None else f"{close.sqnr_db:.1f}")
        cells.append((*cell, _remark(row)))
    print_table([*columns, *(["SQNR dB"] if with_errors else []), "remark"], cells)
    if len(shown) < len(rows):
        print(f"{plural(len(rows) - len(shown), 'more node')} with --all")
    _summary(found)


def _remark(row: NodeAccount) -> str:
    if row.fused_into:
        return f"in the kernel of {row.fused_into}"
    if row.precision == "gone":
        return "folded away or merged with another"
    return row.reason


def _summary(found: Explanation) -> None:
    from .render import print_line, size

    account, audit = found.account, found.account.audit
    where = "inputs drawn at random" if found.data is None else found.data
    print()
    print_line(
        f"{account.total_us:.0f} us in all kernels of one run: median of {account.runs} runs on {where}"
    )
    share = account.int8_us / account.total_us if account.total_us else 0.0
    print(f"int8: {share:.0%} of the time, {audit.linear_int8} of {audit.linear_total} linear nodes")
    for name, time in sorted(account.added.items(), key=lambda item: -item[1]):
        print(f"added by onnxruntime: {name}, {time:.0f} us")
    if not audit.leftovers:
        print("no weight is dequantized at run time")
    for left in audit.leftovers:
        where = f", read by {', '.join(left.readers)}" if left.readers else ""
        print_line(f"dequantized in every run: {left.initializer} ({size(left.elements)} of codes){where}")
    for row in found.offenders:
        cost = f"{row.time_us:.0f} us, {row.share:.0%} of the time"
        print_line(f"costly: {row.node} ({row.op_type}), {cost}: {row.reason}")
