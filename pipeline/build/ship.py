# SPDX-License-Identifier: Apache-2.0
"""Writing a result: all of its files are put in place together, or none is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ...backends.onnxruntime.config import SESSION_FILE
from ...calibration.data import Feeds
from ...graph_ir import Model, ModelError, UsageError, load, save
from ...graph_ir.files import atomic_files
from .files import model_files
from .lock import LOCK_FILE, write_lock
from .report import REPORT_FILE, write_report
from .result import BuildResult, Candidate
from .settings import BuildSettings

MODEL_FILE = "model.onnx"
DATA_FILE = MODEL_FILE + ".data"
FILES = (DATA_FILE, MODEL_FILE, SESSION_FILE, REPORT_FILE, LOCK_FILE)


def check_out(settings: BuildSettings, model: Model) -> None:
    """Refuse a folder for the result in which the model itself would be overwritten, before any work is done.

    Raises:
        ModelError: naming the file.
        UsageError: when there can be no such folder.
    """
    above = next(folder for folder in (settings.out, *settings.out.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise UsageError(f"-o {str(settings.out)!r} cannot be made: {str(above)!r} is a file")
    for target in (settings.out / name for name in FILES):
        if target.exists() and any(target.samefile(file) for file in model_files(model, settings.model)):
            raise ModelError(
                f"{str(target)!r} is the input itself, which is never touched; choose another folder"
            )


def ship(result: BuildResult, settings: BuildSettings, feeds: Feeds | None) -> None:
    """Write the winner with its proof into `settings.out`; `result.winner` then names the file there.

    The files of an earlier result are replaced. On any error, interrupts included, they stay as they were.
    """
    out = settings.out
    with _made(out), tempfile.TemporaryDirectory(prefix=".tersor-", dir=out) as folder:
        staged = Path(folder)
        _write_model(result.winner, staged / MODEL_FILE)
        result.winner = replace(result.winner, path=staged / MODEL_FILE)
        result.winner.config.save(staged / SESSION_FILE)
        write_report(result, replace(settings, out=staged))
        write_lock(result, replace(settings, out=staged), feeds)
        names = [name for name in FILES if (staged / name).exists()]
        with atomic_files([out / name for name in names]) as places:
            for name, place in zip(names, places, strict=True):
                (staged / name).replace(place)
        if DATA_FILE not in names:
            (out / DATA_FILE).unlink(
                missing_ok=True
            )  # an earlier result's weights, which nothing refers to now
        result.winner = replace(result.winner, path=out / MODEL_FILE)


def _write_model(winner: Candidate, target: Path) -> None:
    model = load(winner.path)
    if len(model_files(model, winner.path)) > 1:
        save(model, target, provenance=True)
    else:
        shutil.copyfile(winner.path, target)


@contextmanager
def _made(folder: Path) -> Generator[None]:
    """Make a folder and those above it; on any error those that were made and hold nothing are removed."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise
