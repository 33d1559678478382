# SPDX-License-Identifier: Apache-2.0
"""Writing files whole or not at all, and building many objects without the collector in the way."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import ModelError, one_line


@contextmanager
def gc_paused() -> Generator[None]:
    """Pause Python's cyclic garbage collector inside the block."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Generator[Path]:
    """Give a path beside `path` to write to, renamed onto it at the end; on any error nothing is left.

    Raises:
        ModelError: when the folder does not exist or cannot be written, or `path` is no ordinary file.
    """
    with atomic_files([Path(path)]) as (beside,):
        yield beside


@contextmanager
def atomic_files(targets: Sequence[Path]) -> Generator[list[Path]]:
    """`atomic_write` for files that belong together: all are replaced, or none.

    Raises:
        ModelError: as `atomic_write`.
    """
    made: list[Path] = []
    shown = str(targets[-1])
    try:
        for target in targets:
            shown = str(target)
            if target.exists() and not target.is_file():
                raise ModelError(f"cannot write {shown!r}: it is there already and is no ordinary file")
            handle, name = tempfile.mkstemp(target.suffix, f".{target.name}.", target.parent)
            os.close(handle)
            made.append(Path(name))
        yield made
        mask = os.umask(0)
        os.umask(mask)
        for beside in made:
            beside.chmod(0o666 & ~mask)
        _replace_all(targets, made)
    except OSError as error:
        folder = Path(shown).parent
        why = error.strerror or one_line(error)
        if isinstance(error, FileNotFoundError) and not folder.exists():
            why = f"there is no folder {str(folder)!r}; make it first"
        raise ModelError(f"cannot write {shown!r}: {why}") from error
    finally:
        for beside in made:
            beside.unlink(missing_ok=True)


def _replace_all(targets: Sequence[Path], made: Sequence[Path]) -> None:
    """Rename each new file onto its target; when one cannot be, put the old ones back."""
    old: list[tuple[Path, Path]] = []
    new: list[Path] = []
    try:
        for target, beside in zip(targets[:-1], made[:-1], strict=True):
            if target.exists():
                kept = beside.with_name(beside.name + ".old")
                target.rename(kept)
                old.append((target, kept))
            beside.replace(target)
            new.append(target)
        made[-1].replace(targets[-1])
    except BaseException:
        for target in new:
            target.unlink(missing_ok=True)
        for target, kept in old:
            kept.replace(target)
        raise
    for _, kept in old:
        kept.unlink()
