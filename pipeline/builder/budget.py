# SPDX-License-Identifier: Apache-2.0
"""The time that a search may take."""

from __future__ import annotations

import time

PART = 1 / 3  # of the time, until which fine-tuning may go on: the rest is for what matters more


class OutOfBudgetError(Exception):
    """The time for trials is over."""


class Budget:
    """Counts from when it is made.

    Args:
        seconds: infinite for no end.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._start = seconds, time.monotonic()

    def check(self) -> None:
        """Raises OutOfBudgetError when the time is over."""
        if time.monotonic() > self._start + self.seconds:
            raise OutOfBudgetError

    def check_part(self) -> None:
        """Raises OutOfBudgetError when the time for fine-tuning is over."""
        if time.monotonic() > self._start + self.seconds * PART:
            raise OutOfBudgetError
