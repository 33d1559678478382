# SPDX-License-Identifier: Apache-2.0
"""`tersor sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import TOP, AsJson, Data, Top

if TYPE_CHECKING:
    from ..calibration.sensitivity import Sensitivity


def command(
    model: Path = typer.Argument(..., exists=True, metavar="MODEL", help="The float model."),
    *,
    data: Data,
    per: str = typer.Option("region", metavar="WHAT", help="region or tensor."),
    top: Top = TOP,
    show_all: bool = typer.Option(False, "--all", help="Show every row."),
    observer: str = typer.Option(
        "mse", metavar="NAME", help="How ranges are chosen: minmax, percentile, mse, entropy."
    ),
    samples: int = typer.Option(64, min=1, help="Measure ranges on at most so many samples."),
    runs: int = typer.Option(8, min=1, help="Run the parts on so many of them."),
    as_json: AsJson = False,
) -> None:
    r"""Rank the parts of a model by what int8 would cost each alone.

    For example:

    \b
      tersor sensitivity model.onnx --data calib.npz
      tersor sensitivity model.onnx --data calib.npz --per tensor --top 10
      tersor sensitivity model.onnx --data calib.npz --json | jq .summary

    A region is an operator with an int8 kernel and what the kernel takes in: bias, activation, its inputs and
    its result. It is called by its node in MODEL; a tensor that MODEL lacks has the node beside it. SQNR is
    that of the worst output of the model when the part alone is int8, the share is of the noise energy of all
    parts. What hardly matters on the first sample is run on that one only. Weights and bias correction are
    those of `tersor build`; ranges are chosen by one rule for all. The table in build's report.json is of the
    form that it names: with other ranges, and maybe with more int8, where the search found that better.
    """
    from ..graph_ir import UsageError
    from ..pipeline.builder.regions import sensitivity_of
    from .progress import Progress
    from .render import print_json

    if per not in ("region", "tensor"):
        raise UsageError(f"--per takes region or tensor, not {per!r}")
    with Progress(f"measuring {model.name}") as progress:
        found = sensitivity_of(
            model, data, per, observer=observer, samples=samples, runs=runs, progress=progress.tell
        )
    if as_json:
        print_json({"model": str(model), "per": per, "notes": list(found.notes), **found.to_dict()})
    else:
        _print(found, len(found.losses) if show_all else top)


def _print(found: Sensitivity, top: int) -> None:
    from .render import plural, print_line, print_table

    rows: list[tuple[Any, ...]] = [
        (
            loss.title,
            loss.part.op_type if loss.part.kind == "region" else loss.part.kind,
            f"{loss.sqnr_db:.1f}",
            loss.output,
            f"{loss.share:.1%}",
            f"{loss.cumulative:.1%}",
            loss.samples,
        )
        for loss in found.losses[:top]
    ]
    print_table(["part", "kind", "SQNR dB", "output", "share", "so far", "samples"], rows)
    if len(found.losses) > top:
        print(f"{len(found.losses) - top} more with --all")
    print()
    print_line(
        f"{found.summary()}; all together: {found.together_db:.1f} dB "
        f"(the noise of each alone adds up to {found.sum_db:.1f} dB), {plural(found.samples, 'sample')}"
    )
    print_line(
        f"form: {found.form}; where build finds a better one, it measures that, and report.json names it"
    )
    for note in found.notes:
        print_line(f"note: {note}")
