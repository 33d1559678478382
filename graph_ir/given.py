# SPDX-License-Identifier: Apache-2.0
"""What scripts hand over: a model or a path, told from each other in one line where they are mixed up."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from .errors import UsageError, a_kind


def given_model(name: str, given: object) -> None:
    """Refuse what is no model.

    Raises:
        UsageError: it is something else, say the path of one.
    """
    if not isinstance(given, ir.Model):
        raise UsageError(f"{name} is {a_kind(given)}, not a model; `tersor.load(path)` gives one")


def given_path(name: str, given: object) -> Path:
    """A path.

    Raises:
        UsageError: it is empty, which would mean the current folder, or something else, say a loaded model.
    """
    if given == "":
        raise UsageError(f"{name} is empty; give a path")
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)  # pyright: ignore[reportUnknownArgumentType]
        if "\0" in str(path):
            raise UsageError(f"{name} {str(path)!r} holds a null character; no file is called so")
        return path
    mend = "; `tersor.save(model, path)` writes a model to one" if isinstance(given, ir.Model) else ""
    raise UsageError(f"{name} is {a_kind(given)}, not a path{mend}")
