# SPDX-License-Identifier: Apache-2.0
"""What scripts give to `tersor.build` and `tersor.prune`, in the terms of the command line."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from ..graph_ir import TersorError, UsageError, a_kind
from ..graph_ir.given import given_path
from ..pipeline.amounts import figure, seconds, share, whole
from ..pipeline.prune.budget import Budget
from ..pipeline.prune.choice import AIMS, Limits, aim_called
from ..pipeline.prune.job import Job
from ..pipeline.recipe_fields import OPTION, placed
from .prune_options import limits_of, refuse_mixtures
from .pruning import Settings

_TAKES = {
    "data": "a .npz file, a folder, 'module:function' or 'random'",
    "metric": "'module:function', the name of one that can be imported",
}

_RENAMED = {"global": "whole_model", "min_sqnr": "min_sqnr_db"}


@contextmanager
def called_from(function: Callable[..., object]) -> Generator[None]:
    """Let messages of errors name a function's own parameters where they name options of the command line."""
    names = inspect.signature(function).parameters

    def named(option: re.Match[str]) -> str:
        plain = option[1].replace("-", "_")
        name = _RENAMED.get(plain, plain)
        return name if name in names else option[0]

    try:
        yield
    except TersorError as error:
        error.args = (OPTION.sub(named, str(error)),)
        raise


def pipeline_text(option: str, given: object, default: str = "") -> str:
    """Pipeline text, the default where there is none.

    Raises:
        UsageError: it is something else.
    """
    if given is None:
        return default
    if isinstance(given, str):
        return given
    raise UsageError(f"{option} is {a_kind(given)}; give pipeline text: 'fold-constants,cse'")


def source(option: str, given: object) -> str | None:
    """Data or a metric by its name or path.

    Both are written into reports and lock files, from which a build can be made again; so they need a name.

    Raises:
        UsageError: it is an array, a function or the like.
    """
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, os.PathLike):
        return str(Path(given))  # pyright: ignore[reportUnknownArgumentType]
    raise UsageError(f"{option} is {a_kind(given)}; give {_TAKES[option]}")


def part(option: str, given: object) -> float:
    """A share of one: 0.01 or "1%".

    Raises:
        UsageError: it is no share.
    """
    return placed(option, share, given)


def time(option: str, given: object) -> float:
    """A time in seconds: 90 or "90s", "2m", "1h".

    Raises:
        UsageError: it is no time.
    """
    return placed(option, seconds, given)


def count(option: str, given: object) -> int:
    """A whole number.

    Raises:
        UsageError: it is something else.
    """
    return placed(option, whole, given)


def level(option: str, given: object, default: float) -> float:
    """A number, the default where there is none.

    Raises:
        UsageError: it is something else.
    """
    return default if given is None else placed(option, figure, given)


def bounds(option: str, given: object) -> list[str]:
    """Bounds as the command line writes them, from one share for all groups or a dict of shares by glob.

    Raises:
        UsageError: it is neither.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        shares = cast("Mapping[str, object]", given)
        return [f"{glob}={part(option, value)!r}" for glob, value in shares.items()]
    return [repr(part(option, given))]


def names(option: str, given: object) -> tuple[str, ...]:
    """Several patterns.

    Raises:
        UsageError: it is one string, which would be taken letter by letter, or no sequence.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(str(each) for each in given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    raise UsageError(f"{option} is {a_kind(given)}; give a list of patterns")


def prune_settings(
    model: object,
    out: object,
    *,
    budgets: Mapping[str, object],
    aim: str | None,
    criterion: str | None,
    whole_model: bool,
    exclude: object,
    min_keep: object,
    max_keep: object,
    align: object,
    data: object,
    samples: object,
    refit: bool,
    rounds: object,
    metric: object,
    max_drop: object,
    plan: object,
    save_plan: object,
    seed: object,
) -> Settings:
    """What `tersor.prune` was asked for; see there.

    Raises:
        UsageError: naming the option.
    """
    given = {kind: value for kind, value in budgets.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"give one budget, not {' and '.join(given)}")
    if aim is not None and "macs" not in given:
        raise UsageError("aim says what a budget of MACs buys; give it with macs")
    wanted = Limits.aim if aim is None else aim_called(aim)
    if wanted is None:
        raise UsageError(f"aim is {' or '.join(AIMS)}, not {aim!r}")
    replayed = None if plan is None else given_path("plan", plan)
    left_alone = names("exclude", exclude)
    steps, start = count("rounds", rounds), count("seed", seed)
    refuse_mixtures(
        budget=bool(given),
        sparsity=None,
        pattern=None,
        plan=replayed,
        rounds=None if steps == 1 else steps,
        save_plan=None,
        written=True,
        ignored={
            "align": align is not None,
            "criterion": criterion,
            "whole_model": whole_model,
            "min_keep": min_keep,
            "max_keep": max_keep,
            "exclude": left_alone,
        },
    )
    limits = limits_of(
        None if align is None else count("align", align),
        "onnxruntime-cpu",
        bounds("min_keep", min_keep),
        bounds("max_keep", max_keep),
        whole_model=whole_model,
        aim=wanted,
    )
    job = next(
        (
            Job(Budget(kind, part(kind, value)), criterion, limits, left_alone, steps, refit, start)
            for kind, value in given.items()
        ),
        None,
    )
    return Settings(
        model=given_path("model", model),
        out=None if out is None else given_path("out", out),
        job=job,
        plan=replayed,
        save_plan=None if save_plan is None else given_path("save_plan", save_plan),
        refit=refit,
        data=source("data", data),
        samples=count("samples", samples),
        metric=source("metric", metric),
        max_drop=None if max_drop is None else part("max_drop", max_drop),
        seed=start,
    )
