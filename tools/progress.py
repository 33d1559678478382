# SPDX-License-Identifier: Apache-2.0
"""A progress line on standard error for whatever takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from typing_extensions import Self

DELAY = 2.0


class Progress:
    """A context manager: `say` what is being done, `step` when parts are countable.

    Nothing appears before `DELAY` seconds have passed, nor when standard error is not a terminal; the line
    disappears at the end.
    """

    def __init__(self, text: str, total: int | None = None) -> None:
        self._text = text
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer = threading.Timer(DELAY, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()

    def say(self, text: str) -> None:
        """Name what is being done now."""
        self._text = text
        self._refresh()

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Name a stage, and how much of it is done; a `pipeline.tell.Tell`."""
        self.say(stage)
        self.step(done, total)

    def step(self, done: int | None = None, total: int | None = None) -> None:
        """One part more is done (or `done` parts in all, of `total`)."""
        self._done = self._done + 1 if done is None else done
        self._total = self._total if total is None else total
        self._refresh()

    def _refresh(self) -> None:
        with self._lock:
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, description=self._text, completed=self._done, total=self._total)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._timer is None:
                return
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                console=Console(file=sys.stderr),
                transient=True,
            )
            self._task = self._bar.add_task(self._text, total=self._total, completed=self._done)
            self._bar.start()
