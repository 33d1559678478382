# SPDX-License-Identifier: Apache-2.0
"""Making again what a lock file says was shipped: one candidate, of the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...graph_ir import CheckError
from .choose import Judged
from .form import Form
from .lock import Lock
from .result import Candidate
from .ship import MODEL_FILE, write_model
from .workshop import Workshop


def again(lock: Lock, known: Mapping[str, Judged], workshop: Workshop, folder: Path) -> Candidate:
    """Make what was shipped.

    Args:
        lock: says what.
        known: candidates that are there already, by name.
        workshop: makes int8 forms.
        folder: to write in.

    Raises:
        CheckError: it cannot be made any more, or its bytes are others.
    """
    made = None if lock.name not in known else known[lock.name][0]
    if lock.form is not None:
        made = workshop.static(lock.form) if isinstance(lock.form, Form) else workshop.dynamic(lock.form)
    if made is None:
        raise CheckError(f"{lock.name!r}, as {str(lock.path)!r} says, is not made of this model any more")
    place = folder / "again"
    place.mkdir()
    write_model(made, place / MODEL_FILE)
    lock.check_result(place / MODEL_FILE)
    return made
