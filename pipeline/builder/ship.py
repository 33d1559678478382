# SPDX-License-Identifier: Apache-2.0
"""Writing a result: all of its files are put in place together, or none is."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ...backends.onnxruntime.config import SESSION_FILE
from ...calibration.data import Feeds
from ...graph_ir import DataError, Model, ModelError, UsageError, load, one_line, save
from ...graph_ir.files import atomic_files
from ...graph_ir.json_text import read_object
from ..outputs import (
    INPUT,
    given_path,
    made_folder,
    refuse_overwriting,
    refuse_unwritable,
    refuse_unwritable_folder,
    same,
)
from ..recipe import load_recipe
from .files import model_files
from .lock import LOCK_FILE, write_lock
from .report import REPORT_FILE, write_report
from .result import BuildResult, Candidate
from .settings import BuildSettings

MODEL_FILE = "model.onnx"
DATA_FILE = MODEL_FILE + ".data"
PREFIX = ".tersor-"
FILES = (DATA_FILE, MODEL_FILE, SESSION_FILE, REPORT_FILE, LOCK_FILE)


def check_out(settings: BuildSettings, model: Model) -> None:
    """Refuse a folder for the result that cannot be written, or in which something else would be overwritten.

    It is asked before any work is done: of the model itself, of whatever else is read, and of files called
    like those of a result without the lock file that tersor writes beside them.

    Raises:
        ModelError: the model itself would be overwritten.
        UsageError: naming the file or folder.
    """
    refuse_unwritable_folder(settings.out)
    targets = [settings.out / name for name in FILES]
    own = model_files(model, settings.model)
    for target in targets:
        if target.exists() and any(target.samefile(file) for file in own):
            raise ModelError(
                f"{str(target)!r} is the input itself, which is never touched; choose another folder"
            )
    written = targets
    if settings.trials is not None:
        refuse_unwritable(settings.trials)
        clash = next((target for target in targets if same(target, settings.trials)), None)
        if clash is not None:
            raise UsageError(f"--trials {str(clash)!r} is a file of the result; give another file")
        written = [*targets, settings.trials]
    for file in own:
        refuse_overwriting(written, {INPUT: file})
    refuse_overwriting(written, _read_besides(settings))
    foreign = next((target for target in targets if target.exists()), None)
    if foreign is not None and not _is_lock(settings.out / LOCK_FILE):
        raise UsageError(
            f"{str(foreign)!r} is there already and not of a build (no {LOCK_FILE} beside it); "
            "choose another folder, or remove it"
        )


def _read_besides(settings: BuildSettings) -> dict[str, Path | None]:
    """What a build reads besides the model, by what messages call it."""
    found = {"--data": given_path(settings.data), "--metric": given_path(settings.metric)}
    found["--lock"] = settings.lock
    if settings.recipe is not None:
        found["--recipe"] = Path(settings.recipe)
        sections = load_recipe(settings.recipe).data.values()
        found |= {f"data of the recipe ({each.name})": given_path(each.source) for each in sections}
    return found


def _is_lock(path: Path) -> bool:
    """Whether a file is one that `write_lock` wrote."""
    with suppress(DataError):
        return "lock" in read_object(path)
    return False


def ship(result: BuildResult, settings: BuildSettings, feeds: Feeds | None) -> None:
    """Write the winner with its proof into `settings.out`; `result.winner` then names the file there.

    The files of an earlier result are replaced. On any error, interrupts included, they stay as they were.

    Raises:
        ModelError: the files cannot be written.
    """
    out = settings.out
    with _in_words(out), made_folder(out), tempfile.TemporaryDirectory(prefix=PREFIX, dir=out) as folder:
        staged = Path(folder)
        write_model(result.winner, staged / MODEL_FILE)
        result.winner = replace(result.winner, path=staged / MODEL_FILE)
        result.winner.config.save(staged / SESSION_FILE)
        write_report(result, replace(settings, out=staged))
        write_lock(result, replace(settings, out=staged), feeds)
        names = [name for name in FILES if (staged / name).exists()]
        with atomic_files([out / name for name in names]) as places:
            for name, place in zip(names, places, strict=True):
                (staged / name).replace(place)
        if DATA_FILE not in names:
            # An earlier result's weights, which nothing refers to now.
            (out / DATA_FILE).unlink(missing_ok=True)
        result.winner = replace(result.winner, path=out / MODEL_FILE)


@contextmanager
def _in_words(out: Path) -> Generator[None]:
    """Say what cannot be written by the name the caller knows, not by that of a file on its way there."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"cannot write into {str(out)!r}: {error.strerror or one_line(error)}") from error
    except ModelError as error:
        on_its_way = rf"{re.escape(str(out / PREFIX))}\w+"
        raise ModelError(re.sub(on_its_way, lambda _: str(out), str(error))) from error


def write_model(winner: Candidate, target: Path) -> None:
    """Write a candidate's files as they are shipped."""
    model = load(winner.path)
    if len(model_files(model, winner.path)) > 1:
        save(model, target, provenance=True)
    else:
        shutil.copyfile(winner.path, target)
