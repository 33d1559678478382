# SPDX-License-Identifier: Apache-2.0
"""Makes, judges and times candidates, each once."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...graph_ir import DataError, TersorError
from .accuracy import Judge
from .budget import Budget
from .choose import distrust, priced
from .files import written_files
from .form import Form
from .lock import hash_files
from .result import Candidate, Composition, Judgement
from .settings import BuildSettings
from .trial_log import TrialLog
from .workshop import Workshop

Judged = tuple[Candidate, Judgement]
Timer = Callable[[Candidate], float]
"""Time of a candidate over that of the original."""


class Trials:
    """Makes, judges and times candidates.

    Args:
        workshop: makes them.
        judge: judges them.
        settings: limits, and who is told how far it is.
        timer: see `Timer`.
        log: of the trials; None keeps none.

    Attributes:
        judged: candidates by name.
        times: over the original's, by name; those of equal `composition` take equal time.
    """

    def __init__(
        self,
        workshop: Workshop,
        judge: Judge,
        settings: BuildSettings,
        timer: Timer,
        log: TrialLog | None = None,
    ) -> None:
        self._workshop = workshop
        self._judge = judge
        self._tell = settings.progress
        self._max_drop = settings.max_drop
        self._timer = timer
        self._log = log or TrialLog(None, {})
        self._budget = Budget(settings.budget_s)
        self._digests: dict[str, str] = {}
        self._names: dict[Form, str] = {}  # what a form was judged under: its name, or an earlier one's
        self._timed: dict[Composition, float] = {}
        self.judged: dict[str, Judged] = {}
        self.times: dict[str, float] = {}

    @property
    def remembered(self) -> list[str]:
        """A note on what the log knew already; none where it knew nothing."""
        count = self._log.reused
        return (
            [f"{count} candidates had been judged before, as {str(self._log.path)!r} says"] if count else []
        )

    def _accepted(self, name: str) -> bool:
        """Whether a candidate is accepted, alone and among its like, and for data that was not seen."""
        if not self._stands(name):
            return False
        made, judgement = self.judged[name]
        if judgement.vouched:
            return True
        judgement = self._judge.vouch(made, judgement)
        self.judged[name] = (made, judgement)
        digest = next(digest for digest, known in self._digests.items() if known == name)
        self._log.put(digest, name, judgement)
        return self._stands(name)

    def _stands(self, name: str) -> bool:
        """Whether a candidate is accepted, alone and among its like, so far as is known."""
        return distrust(self.judged, self._max_drop)[name][1].accepted

    def _closeness(self, name: str) -> float:
        return self.judged[name][1].closeness_db

    def _price(self, form: Form) -> float:
        """What a form that was tried costs for its time and its distance, accepted or not."""
        name = self._names[form]
        return priced(self.times.get(name, math.inf), self.judged[name][1])

    def _make(self, form: Form) -> Candidate | None:
        try:
            return self._workshop.static(form)
        except DataError:
            raise
        except TersorError as error:
            self._note(f"{form.name} was not made: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self._workshop.notes:
            self._workshop.notes.append(text)

    def _try(self, form: Form, *, late: bool = False) -> Judged | None:
        """The form, judged; `late` is what trials have led to, which is judged even when the time is over."""
        if form in self._names:
            return self.judged[self._names[form]]
        if not late:
            self._in_time()
        made = self._make(form)
        if made is None:
            return None
        self._names[form] = self._judged(form.name, made)
        return self.judged[self._names[form]]

    def _judged(self, name: str, made: Candidate) -> str:
        """Judge and time a candidate; gives the name of an earlier one with the same bytes, or its own."""
        digest = hash_files(written_files(made.path))
        name = self._digests.setdefault(digest, name)
        if name in self.judged:
            return name
        judgement = self._log.get(digest)
        if judgement is None:
            judgement = self._judge.judge(made)
            self._log.put(digest, name, judgement)
        self.judged[name] = (made, judgement)
        if not judgement.failed:
            if made.composition not in self._timed:
                self._timed[made.composition] = self._timer(made)
            self.times[name] = self._timed[made.composition]
        return name

    def _in_time(self) -> None:
        if self.judged:
            self._budget.check()

    def _trial(self, form: Form) -> float:
        """How close a form's outputs are; it is no candidate yet."""
        self._budget.check_part()
        made = self._make(form)
        if made is None:
            return -math.inf
        digest = hash_files(written_files(made.path))
        closeness = self._log.closeness(digest)
        if closeness is None:
            closeness = self._judge.closeness(made)
            self._log.put_closeness(digest, form.name, closeness)
        return closeness
