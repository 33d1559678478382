# SPDX-License-Identifier: Apache-2.0
"""Where results may go: never over what is read nor over what is not ours, and only where one can write.

All of it is asked before any work is done.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..graph_ir import Model, UsageError, save
from ..graph_ir.targets import data_file, goes_outside, owns_weights

INPUT = "the input itself"


def given_path(text: str | None) -> Path | None:
    """The file or folder that data or a metric is read from; None for random data, or without any.

    Of ``module:function`` it is the module's file, where that lies in the current folder.
    """
    if text is None or not text.strip() or text == "random" or text.startswith("random:"):
        return None
    if Path(text).exists():
        return Path(text)
    from ..calibration.functions import names_function

    if names_function(text):
        file = Path(*text.partition(":")[0].split(".")).with_suffix(".py")
        return file if file.exists() else None
    return None


def refuse_overwriting(written: Iterable[Path], read: Mapping[str, Path | None]) -> None:
    """Refuse to write over what is read, or into a folder of data.

    Args:
        written: files that will be written, and folders that files will be written into.
        read: what the command line names besides, by how messages call it; None where it is no path.

    Raises:
        UsageError: naming the path, and what it is.
    """
    named = {name: path for name, path in read.items() if path is not None}
    for target in written:
        above = target.resolve().parents
        for name, path in named.items():
            if same(target, path):
                raise UsageError(f"{str(target)!r} is {name}, which is never touched; give another output")
            if path.is_dir() and path.resolve() in above:
                raise UsageError(
                    f"{str(target)!r} lies in the folder of {name}, which is never touched; "
                    "give another output"
                )


def refuse_unwritable(target: Path) -> None:
    """Find out whether a file can be written.

    Raises:
        UsageError: its folder cannot be made or not be written, or it is a folder itself or no ordinary file.
    """
    shown = str(target)
    if shown == "-":
        raise UsageError("'-' is no file: nothing is written to standard output; give a file name")
    if target.is_dir():
        raise UsageError(f"output {shown!r} is a folder; give a file name in it")
    if os.path.lexists(target) and not target.is_file():
        raise UsageError(f"cannot write {shown!r}: it is there already and is no ordinary file")
    _refuse_closed(_nearest(target.parent, f"cannot write {shown!r}"), shown)


def refuse_replacing(target: Path, suffix: str) -> None:
    """Refuse to write over a file that is, by its name, not of the kind that is written.

    Raises:
        UsageError: there is such a file.
    """
    if target.is_file() and target.suffix != suffix:
        raise UsageError(
            f"{str(target)!r} is there already and not a {suffix} file by its name; give another name, "
            "or remove it"
        )


def refuse_unwritable_folder(folder: Path) -> None:
    """Find out whether a folder, which need not exist yet, can be written into.

    Raises:
        UsageError: it cannot be made, or not written.
    """
    _refuse_closed(_nearest(folder, f"-o {str(folder)!r} cannot be made"), str(folder))


def _nearest(folder: Path, failure: str) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    above = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not above.is_dir():
        raise UsageError(
            f"{failure}: {str(above)!r} {'is a file' if above.exists() else 'is a link to nothing'}"
        )
    return above


@contextmanager
def made_folder(folder: Path) -> Generator[None]:
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


def _refuse_closed(folder: Path, shown: str) -> None:
    if os.access(folder, os.W_OK):
        try:  # the superuser may write anywhere by the mode, and yet not into /proc
            with tempfile.TemporaryFile(dir=folder):
                return
        except OSError:
            pass
    raise UsageError(f"cannot write {shown!r}: folder {str(folder)!r} is not writable")


def save_over(model: Model, target: Path, external_data: bool | None = None) -> bool:
    """Save a model, making its folder if need be; weights of the one it replaces go: nothing refers to them.

    Returns:
        Whether weights lie outside of the file.
    """
    outside = goes_outside(model, target, external_data)
    stale = owns_weights(target) and not outside
    with made_folder(target.parent):
        # Decided above: asking all weights once more takes time.
        save(model, target, external_data=outside if external_data is None else external_data)
    if stale:
        data_file(target).unlink(missing_ok=True)
    return outside


def same(one: Path, other: Path) -> bool:
    """Whether both are one file, which need not exist yet."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
