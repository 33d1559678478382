# SPDX-License-Identifier: Apache-2.0
"""Where `tersor prune` may write: never over what it reads, and never two things into one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..graph_ir import UsageError
from .optimize import data_file, refuse_own_weights, refuse_same_file, refuse_unwritable


def refuse_paths(
    model: Path,
    *,
    out: Path | None,
    save_plan: Path | None,
    plan: Path | None,
    data: str | None,
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
        cache: the folder for tables that was asked for.

    Raises:
        UsageError: naming the path.
    """
    if data is not None and not data.strip():
        raise UsageError("--data is empty; give a file, a folder, module:function or random")
    blocked = [] if cache is None else [p for p in (cache, *cache.parents) if p.exists() and not p.is_dir()]
    if blocked:
        raise UsageError(f"--cache {str(cache)!r}: {str(blocked[0])!r} is a file, not a folder")
    models = [] if out is None else [out, data_file(out)]
    plans = [] if save_plan is None else [save_plan]
    for written in [*models, *plans]:
        refuse_same_file(model, written)
    for written in models[:1] + plans:
        refuse_unwritable(written)
    if any(_same(written, planned) for written in models for planned in plans):
        raise UsageError(f"--save-plan {str(save_plan)!r} is where the model goes; give another file")
    if plan is not None and any(_same(written, plan) for written in models):
        raise UsageError(f"-o {str(out)!r} would overwrite --plan {str(plan)!r}; give another output")
    read = _data_path(data)
    for written in [*models, *plans]:
        if read is not None and (_same(written, read) or read.resolve() in written.resolve().parents):
            where = "lies in the folder of" if read.is_dir() else "is"
            raise UsageError(f"{str(written)!r} {where} --data, which is never touched; give another output")


def refuse_weights(files: Sequence[Path], *, out: Path | None, save_plan: Path | None) -> None:
    """Refuse to write over the files that hold the input's weights.

    Raises:
        UsageError: naming the path.
    """
    for written in (out, save_plan):
        if written is not None:
            refuse_own_weights(written, files)


def _data_path(data: str | None) -> Path | None:
    """The file or folder the data is read from, if it is one."""
    if data is None or data == "random" or data.startswith("random:") or not Path(data).exists():
        return None
    return Path(data)


def _same(one: Path, other: Path) -> bool:
    """Whether both are one file, which need not exist yet."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
