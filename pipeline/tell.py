# SPDX-License-Identifier: Apache-2.0
"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Tell: TypeAlias = Callable[[str, int, "int | None"], None]
"""Told the stage, how much of it is done, and how much there is; None when that is not known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Tell nobody."""
