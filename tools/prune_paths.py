# SPDX-License-Identifier: Apache-2.0
"""Where `tersor prune` may write: never over what it reads, and never two things into one file."""

from __future__ import annotations

from pathlib import Path

from ..graph_ir import Model, UsageError
from ..graph_ir.targets import data_file, refuse_foreign_weights, refuse_name, refuse_own_weights
from ..pipeline.outputs import (
    INPUT,
    given_path,
    refuse_overwriting,
    refuse_replacing,
    refuse_unwritable,
    same,
)


def refuse_paths(
    model: Path,
    *,
    out: Path | None,
    save_plan: Path | None,
    plan: Path | None,
    data: str | None,
    metric: str | None = None,
    cache: Path | None = None,
) -> None:
    """Refuse to write over an input or over the other output, or where no folder can be, before any work.

    A plan may be written over the one that was read: that is how a run goes on.

    Args:
        model: the input.
        out: where the model goes; its weights may go beside it.
        save_plan: where the plan goes.
        plan: the plan that is read.
        data: see `calibration.open_feeds`.
        metric: `module:function`.
        cache: the folder for tables that was asked for.

    Raises:
        UsageError: naming the path.
    """
    read = {INPUT: model, "--data": given_path(data), "--metric": given_path(metric)}
    blocked = [] if cache is None else [p for p in (cache, *cache.parents) if p.exists() and not p.is_dir()]
    if blocked:
        raise UsageError(f"--cache {str(cache)!r}: {str(blocked[0])!r} is a file, not a folder")
    models = [] if out is None else [out, data_file(out)]
    plans = [] if save_plan is None else [save_plan]
    folders = [] if cache is None else [cache]
    refuse_overwriting([*models, *plans, *folders], read)
    refuse_overwriting(models, {"--plan": plan})
    for written in models[:1] + plans:
        refuse_unwritable(written)
    if out is not None:
        refuse_name(out)
    if save_plan is not None:
        refuse_replacing(save_plan, ".json")
    if any(same(written, planned) for written in models for planned in plans):
        raise UsageError(f"--save-plan {str(save_plan)!r} is where the model goes; give another file")


def refuse_weights(model: Model, *, out: Path | None, save_plan: Path | None) -> None:
    """Refuse to write over the files that hold the input's weights, or over weights of another model.

    Raises:
        UsageError: naming the path.
    """
    for written in (out, save_plan):
        if written is not None:
            refuse_own_weights(written, model)
    if out is not None:
        refuse_foreign_weights(out, model)
