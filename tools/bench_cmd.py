# SPDX-License-Identifier: Apache-2.0
"""`tersor bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..analysis.cores import MOST_THREADS
from .options import AsJson, MaybeData
from .same_feeds import in_words, refuse_other_inputs

if TYPE_CHECKING:
    from ..backends.base import Feed

_INPUTS = 4  # whose shapes are shown


def command(
    models: list[Path] = typer.Argument(
        ..., exists=True, metavar="MODEL", help="The first is the yardstick."
    ),
    *,
    data: MaybeData = None,
    samples: int = typer.Option(8, min=1, help="Samples used, at most; each turn has the next one."),
    threads: list[int] = typer.Option(
        [],
        metavar="N",
        min=0,
        max=MOST_THREADS,
        help="Threads of a run, 0 for all; repeatable; 1 and all without it.",
    ),
    rounds: int = typer.Option(25, min=1, help="Turns of each model."),
    budget: str = typer.Option(
        "60s",
        metavar="TIME",
        help="Begin no further turn after 90s, 2m or 1h30m, for each number of threads.",
    ),
    as_json: AsJson = False,
) -> None:
    r"""Time models against each other, turn by turn.

    For example:

    \b
      tersor bench model.onnx
      tersor bench model.onnx out/model.onnx --data calib.npz
      tersor bench a.onnx b.onnx c.onnx --threads 1 --threads 4 --rounds 50

    The models take turns, so that a drift of the machine hits all alike; figures are medians over the turns
    with the range from the 10th to the 90th percentile, and speed is the median of the turns' ratios to the
    first model with its 95 % interval. In a turn all run the same sample. A session.json beside a model is
    honoured. Without --data the inputs are seeded noise, free dimensions 1 (batch) or 64.
    """
    from ..calibration import open_feeds
    from ..graph_ir import UsageError, load
    from ..pipeline.amounts import seconds
    from ..pipeline.recipe_fields import placed
    from .render import print_json

    most = placed("--budget", seconds, budget)
    if not most > 0:
        raise UsageError(f"--budget must be more than nothing, not {most:g} s")
    first = load(models[0])
    refuse_other_inputs(first, *models)
    feeds = list(open_feeds("random" if data is None else data, first, limit=min(samples, rounds)))
    with in_words(*models, drawn=data is None):
        found = [
            {"model": name, "threads": count, "data": data, **figures}
            for count, name, figures in _timed(models, feeds, threads or [1, 0], rounds, most)
        ]
    print_json(found) if as_json else _print(found, feeds, data)


def _timed(
    models: Sequence[Path], feeds: Sequence[Feed], threads: Sequence[int], rounds: int, budget_s: float
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """By number of threads and model, the times beside those of the first."""
    from ..analysis.cores import usable_cores
    from ..backends.onnxruntime.config import SessionConfig
    from ..backends.onnxruntime.latency import compare, measure, session_runners
    from .progress import Progress
    from .render import plural

    names = distinct([str(path) for path in models])
    sources = {name: (path, SessionConfig.beside(path)) for name, path in zip(names, models, strict=True)}
    cores = usable_cores()
    wanted = list(dict.fromkeys(cores if t == 0 else t for t in threads))
    with Progress("timing", total=len(wanted)) as progress:
        for count in wanted:
            progress.say(f"timing on {plural(count, 'thread')}")
            with session_runners(sources, feeds, threads=count) as runners:
                times = measure(runners, rounds=rounds, budget_s=budget_s)
            for name in names:
                taken, ratio = times[name], compare(times[names[0]], times[name])
                yield (
                    count,
                    name,
                    {
                        "samples": min(len(feeds), taken.rounds),
                        "median_ms": taken.median_ms,
                        "p10_ms": taken.p10_ms,
                        "p90_ms": taken.p90_ms,
                        "min_ms": taken.min_ms,
                        "rounds": taken.rounds,
                        "speed": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
                    },
                )
            progress.step()


def _print(found: Sequence[dict[str, Any]], feeds: Sequence[Feed], data: str | None) -> None:
    from .render import plural, print_line, print_table

    rows = [
        (
            r["model"],
            r["threads"],
            f"{r['median_ms']:.3f}",
            f"{r['p10_ms']:.3f} to {r['p90_ms']:.3f}",
            f"{r['speed']['median']:.2f}x",
            "" if r["model"] == found[0]["model"] else _interval(r["speed"]),
        )
        for r in found
    ]
    print_table(["model", "threads", "median ms", "10 to 90 %", "speed", "95 % interval"], rows)
    used = max(r["samples"] for r in found)
    where = "seeded noise" if data is None else data
    shapes = _shapes(feeds[:used])
    print()
    print_line(f"{plural(used, 'sample')} of {where}: {shapes}" if shapes else "the models take no inputs")


def _interval(speed: dict[str, float]) -> str:
    low, high = speed["low"], speed["high"]
    return "too few rounds" if high == float("inf") else f"{low:.2f} to {high:.2f}"


def _shapes(feeds: Sequence[Feed]) -> str:
    """The shapes of the inputs, a few at most; those of the first feed where others have others."""
    found = list(
        dict.fromkeys(
            ", ".join(f"{name} {list(feed[name].shape)}" for name in islice(feed, _INPUTS)) for feed in feeds
        )
    )
    more = ", ..." if len(feeds[0]) > _INPUTS else ""
    return f"{found[0]}{more}" + (f" and {len(found) - 1} other shapes" if len(found) > 1 else "")


def distinct(names: list[str]) -> list[str]:
    """The names with a number where one comes again."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found
