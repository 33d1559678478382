# SPDX-License-Identifier: Apache-2.0
"""The time that a search may take."""

from __future__ import annotations

import time


class OutOfBudgetError(Exception):
    """The time for trials is over."""


class Budget:
    """Counts from when it is made.

    Args:
        seconds: None for no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raises OutOfBudgetError when the time is over."""
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfBudgetError
