# SPDX-License-Identifier: Apache-2.0
"""`tersor compare`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .options import AsJson, Data
from .same_feeds import in_words, refuse_other_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..analysis.fidelity import Closeness


def command(
    first: Path = typer.Argument(..., exists=True, metavar="A", help="The reference."),
    second: Path = typer.Argument(..., exists=True, metavar="B", help="The model that is compared with it."),
    *,
    data: Data,
    samples: int | None = typer.Option(None, min=1, help="Use at most so many samples."),
    min_sqnr: float | None = typer.Option(None, metavar="DB", help="Exit with 1 when an output is below."),
    as_json: AsJson = False,
) -> None:
    r"""Compare the outputs of two models on data.

    For example:

    \b
      tersor compare model.onnx out/model.onnx --data calib.npz
      tersor compare model.onnx out/model.onnx --data loader:feeds --samples 64 --min-sqnr 25
      tersor compare a.onnx b.onnx --data random

    SQNR is the power of A's output over the power of the difference, in decibels over all samples: 20 dB is
    an error of 10 %, 40 dB of 1 %, inf means equal. Both run as they would be deployed: onnxruntime with its
    optimizer on, and the session.json beside the model if there is one.
    """
    from ..graph_ir import UsageError
    from .render import print_json

    if min_sqnr is not None and math.isnan(min_sqnr):
        raise UsageError(f"--min-sqnr is a number of dB, not {min_sqnr}")
    found, count, batched = measure(first, second, data, samples)
    failing = {
        name: close.sqnr_db
        for name, close in found.items()
        if min_sqnr is not None and not close.sqnr_db >= min_sqnr
    }
    if as_json:
        outputs: list[dict[str, Any]] = [{"output": name, **vars(close)} for name, close in found.items()]
        print_json({"samples": count, "outputs": outputs, "min_sqnr": min_sqnr, "ok": not failing})
    else:
        _print(found, count, batched=batched)
    for name, sqnr in failing.items():
        print(
            f"error: output {name!r} has an SQNR of {sqnr:.1f} dB, {min_sqnr:g} are asked for",
            file=sys.stderr,
        )
    if failing:
        raise typer.Exit(1)


def measure(
    first: Path, second: Path, data: str, samples: int | None
) -> tuple[dict[str, Closeness], int, bool]:
    """Closeness by output name, the number of feeds, and whether one of them may hold several samples.

    Raises:
        DataError: the models' outputs differ in number or shape, or the data does not fit.
    """
    from ..analysis.fidelity import Fidelity
    from ..backends.base import BackendError
    from ..backends.onnxruntime.config import SessionConfig
    from ..backends.onnxruntime.session import OrtSession
    from ..calibration import open_feeds
    from ..graph_ir import DataError, load
    from .progress import Progress

    reference = load(first)
    refuse_other_inputs(reference, first, second)
    feeds = open_feeds(data, reference, limit=samples)
    count, batched = 0, False
    with (
        in_words(first, second),
        Progress("comparing", total=feeds.count) as progress,
        OrtSession(first, SessionConfig.beside(first)) as one,
        OrtSession(second, SessionConfig.beside(second)) as two,
    ):
        names = [port.name for port in one.outputs]
        others = [port.name for port in two.outputs]
        if len(names) != len(others):
            raise DataError(f"{str(first)!r} has {len(names)} outputs, {str(second)!r} has {len(others)}")
        # Renamed outputs are compared in order; otherwise a different order does not matter.
        matched = names if sorted(names) == sorted(others) else others
        totals = {name: Fidelity() for name in names}
        for feed in feeds:
            try:
                outputs, expected = dict(zip(others, two.run(feed), strict=True)), one.run(feed)
            except BackendError as error:
                raise BackendError(f"sample {count}: {error}") from error
            for name, reference, other in zip(names, expected, matched, strict=True):
                try:
                    totals[name].update(reference, outputs[other])
                except DataError as error:
                    raise DataError(f"output {name!r} on sample {count}: {error}") from error
            count += 1
            batched |= any(array.ndim > 0 and array.shape[0] != 1 for array in feed.values())
            progress.step()
    return {name: total.result() for name, total in totals.items()}, count, batched


def _print(found: Mapping[str, Closeness], count: int, *, batched: bool) -> None:
    from .render import plural, print_line, print_table

    rows = [
        (name, f"{c.sqnr_db:.1f}", f"{c.cosine:.6f}", f"{c.max_abs:.3g}", c.count)
        for name, c in found.items()
    ]
    print_table(["output", "SQNR dB", "cosine", "max abs diff", "elements"], rows)
    print(plural(count, "feed" if batched else "sample"))
    for name, c in found.items():
        if c.void:
            part = f"{c.void} of {plural(c.count, 'element')}"
            print_line(
                f"note: output {name!r}: {part} are NaN or infinite in both; the figures are of the rest"
            )
