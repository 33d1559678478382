# SPDX-License-Identifier: Apache-2.0
"""What candidates are held against: the original's outputs, or what it decides them by."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...analysis.fidelity import Closeness, Fidelity
from ...backends.base import BackendError, Feed
from ...backends.onnxruntime.session import OrtSession
from .comparing import compare
from .decisions import Decisions, Run
from .evidence import MOST_BYTES, Answers
from .result import Candidate

MOST_JUDGED_BYTES = MOST_BYTES * 3 // 4  # of the original's answers to the feeds


class Yardstick:
    """The original's outputs, for feeds.

    Attributes:
        names: of the outputs.
        known: remembers what the original answers, also to feeds of a metric.
        feeds: those that are judged on; of feeds with large answers only the first few.
        wanted: the original's answers to them.
    """

    def __init__(self, names: Sequence[str], feeds: Sequence[Feed], original: OrtSession) -> None:
        self.names = tuple(names)
        self.known = Answers()
        self.wanted = _few_answers(feeds, self.known.lent(original.run))
        self.feeds = feeds[: len(self.wanted)]

    def by_name(self) -> dict[str, list[Any]]:
        """The original's answers to the feeds, by output."""
        return {name: [answers[i] for answers in self.wanted] for i, name in enumerate(self.names)}

    def open(self, form: Candidate, *, spinning: bool | None = None) -> OrtSession | None:
        """A form that answers `names`; None where it lacks one of them."""
        return OrtSession(form.path, form.config, spinning=spinning)

    def compare(self, session: OrtSession) -> tuple[dict[str, Closeness], set[str]]:
        """How close each output is over the feeds, and the outputs that differ in more than numbers."""
        totals = {name: Fidelity() for name in self.names}
        unlike: set[str] = set()
        for feed, answers in zip(self.feeds, self.wanted, strict=True):
            for name, want, got in zip(self.names, answers, session.run(feed), strict=True):
                if not compare(totals[name], want, got):
                    unlike.add(name)
        return {name: total.result() for name, total in totals.items() if total.count}, unlike

    def compared(self, form: Candidate) -> tuple[dict[str, Closeness], set[str]]:
        """`compare` of a form; nothing where it lacks a name."""
        session = self.open(form)
        if session is None:
            return {}, set()
        with session:
            return self.compare(session)

    @contextmanager
    def finishing(self) -> Generator[Callable[[Run], Run]]:
        """What makes a run of the outputs out of a run of `names`."""
        yield lambda run: run


class Decided(Yardstick):
    """What the original decides its outputs by (see `decisions`), for feeds."""

    def __init__(
        self, decisions: Decisions, original: Candidate, outputs: Yardstick, session: OrtSession
    ) -> None:
        super().__init__(decisions.floats, outputs.feeds, session)
        self._decisions, self._original, self._outputs = decisions, original, outputs.names

    def open(self, form: Candidate, *, spinning: bool | None = None) -> OrtSession | None:
        """A form up to its decisions; None where it lacks what they are made from."""
        return self._decisions.open(form.path, form.config, spinning=spinning)

    @contextmanager
    def finishing(self) -> Generator[Callable[[Run], Run]]:
        """What runs the rest of the original, behind the decisions."""
        rest = self._decisions.behind(self._original.path)
        with OrtSession(rest, spinning=False, folder=self._original.path.parent) as session:
            yield lambda run: self._decisions.finished(run, session, self._outputs)


def _few_answers(feeds: Sequence[Feed], run: Run) -> list[list[Any]]:
    """What a model answers to the first feeds, so long as that is not too much to keep; to two at least.

    Raises:
        BackendError: the model fails on one of them; the message names it.
    """
    found: list[list[Any]] = []
    size = 0
    for index, feed in enumerate(feeds):
        if size > MOST_JUDGED_BYTES and len(found) > 1:
            break
        try:
            found.append(run(feed))
        except BackendError as error:
            raise BackendError(f"sample {index}: {error}") from error
        size += sum(a.nbytes for a in found[-1] if isinstance(a, np.ndarray))
    return found
