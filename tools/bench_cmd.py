# SPDX-License-Identifier: Apache-2.0
"""`tersor bench`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..backends.base import Feed
    from ..graph_ir import Model

    _Type = tuple[str, tuple[int | str | None, ...] | None]

_INPUTS = 4  # whose shapes are shown
MOST_THREADS = 1024  # beyond it the system refuses, or ends the process


def command(
    models: list[Path] = typer.Argument(..., metavar="MODEL", help="The first is the yardstick."),
    *,
    data: str | None = typer.Option(
        None, metavar="DATA", help=".npz, a folder of .npz or .npy, module:function, or random by name."
    ),
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
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
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
    from ..analysis.cores import usable_cores
    from ..backends.onnxruntime.config import SessionConfig
    from ..backends.onnxruntime.latency import compare, measure, session_runners
    from ..calibration import open_feeds
    from ..graph_ir import UsageError, load
    from ..pipeline.amounts import seconds
    from ..pipeline.recipe_fields import placed
    from .progress import Progress
    from .render import plural, print_json, print_table

    most = placed("--budget", lambda: seconds(budget))
    if not most > 0:
        raise UsageError(f"--budget must be more than nothing, not {most:g} s")
    names = distinct([str(path) for path in models])
    first = load(models[0])
    refuse_other_inputs(first, *models)
    feeds = list(open_feeds("random" if data is None else data, first, limit=min(samples, rounds)))
    sources = {name: (path, SessionConfig.beside(path)) for name, path in zip(names, models, strict=True)}
    cores = usable_cores()
    wanted = list(dict.fromkeys(cores if t == 0 else t for t in (threads or [1, 0])))
    found: list[dict[str, Any]] = []
    with in_words(*models, drawn=data is None), Progress("timing", total=len(wanted)) as progress:
        for count in wanted:
            progress.say(f"timing on {plural(count, 'thread')}")
            with session_runners(sources, feeds, threads=count) as runners:
                times = measure(runners, rounds=rounds, budget_s=most)
            for name in names:
                ratio = compare(times[names[0]], times[name])
                found.append(
                    {
                        "model": name,
                        "threads": count,
                        "data": data,
                        "samples": min(len(feeds), times[name].rounds),
                        "median_ms": times[name].median_ms,
                        "p10_ms": times[name].p10_ms,
                        "p90_ms": times[name].p90_ms,
                        "min_ms": times[name].min_ms,
                        "rounds": times[name].rounds,
                        "speed": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
                    }
                )
            progress.step()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            r["model"],
            r["threads"],
            f"{r['median_ms']:.3f}",
            f"{r['p10_ms']:.3f} to {r['p90_ms']:.3f}",
            f"{r['speed']['median']:.2f}x",
            "" if r["model"] == names[0] else _interval(r["speed"]),
        )
        for r in found
    ]
    print_table(["model", "threads", "median ms", "10 to 90 %", "speed", "95 % interval"], rows)
    used = max(r["samples"] for r in found)
    where = "seeded noise" if data is None else data
    shapes = _shapes(feeds[:used])
    print(f"\n{plural(used, 'sample')} of {where}: {shapes}" if shapes else "\nthe models take no inputs")


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


def refuse_other_inputs(yardstick: Model, first: Path, *others: Path) -> None:
    """Refuse models that cannot run on one feed, as far as their signatures tell.

    Raises:
        DataError: naming the models, and each input that differs with what each has.
        ModelError: a file cannot be read.
    """
    from ..graph_ir import DataError, UnsupportedModelError, load, signature_of

    mine = signature_of(yardstick)
    wanted = {name: (kind, dims) for name, kind, dims in mine.inputs}
    for path in others:
        with suppress(UnsupportedModelError):  # what tersor cannot hold may run nonetheless
            theirs = signature_of(load(path))
            given = {name: (kind, dims) for name, kind, dims in theirs.inputs}
            lacking = [name for name in wanted if name not in given and name not in theirs.optional]
            added = [name for name in given if name not in wanted and name not in mine.optional]
            differing = [name for name in wanted if name in given and not _alike(wanted[name], given[name])]
            said = [
                *(f"{name!r} is in the first only" for name in lacking),
                *(f"{name!r} is in the second only" for name in added),
                *(f"{name!r} is {_typed(*wanted[name])} and {_typed(*given[name])}" for name in differing),
            ]
            if said:
                raise DataError(f"{str(first)!r} and {str(path)!r} take other inputs: {'; '.join(said)}")


def _alike(one: _Type, other: _Type) -> bool:
    """Whether an array may be of both types: where either leaves a size free, data decides."""
    (kind, dims), (other_kind, others) = one, other
    if kind != other_kind:
        return False
    if dims is None or others is None:
        return True
    return len(dims) == len(others) and all(
        a == b for a, b in zip(dims, others, strict=True) if isinstance(a, int) and isinstance(b, int)
    )


def _typed(kind: str, dims: tuple[int | str | None, ...] | None) -> str:
    """A type for people."""
    shape = "" if dims is None else f"[{', '.join('?' if d is None else str(d) for d in dims)}]"
    return f"{kind.lower()}{shape}"


@contextmanager
def in_words(*models: Path, drawn: bool = False) -> Generator[None]:
    """Where onnxruntime does not open one of the models, say what is wrong with its file, if that is known.

    Args:
        models: the files.
        drawn: whether the inputs are drawn at random, which a model may not run on.

    Raises:
        ModelError: a file is no model, or is truncated.
        BackendError: onnxruntime's own words.
    """
    from ..backends.base import BackendError
    from ..graph_ir import UnsupportedModelError, load
    from ..pipeline.explain import DRAWN_AT_RANDOM

    try:
        yield
    except BackendError as error:
        for path in models:
            with suppress(UnsupportedModelError):  # of such the runtime knows more
                load(path)
        if drawn and " failed: " in str(error):
            raise BackendError(f"{error}; {DRAWN_AT_RANDOM}") from error
        raise


def distinct(names: list[str]) -> list[str]:
    """The names with a number where one comes again."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found
