# SPDX-License-Identifier: Apache-2.0
"""Judging candidates: the user's metric, and the closeness of every output to the original's."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ...analysis.fidelity import Closeness
from ...backends.base import BackendError, Feed
from ...backends.onnxruntime.session import OrtSession
from ...graph_ir import DataError, one_line
from ..amounts import beyond, within
from .decisions import Run, decisions
from .doubts import constant_db, steadiness
from .evidence import FORWARD, MIRRORED, Answers, Ranges, amplified, expected_drop, needed_db
from .metric import Metric, relative_drop
from .result import Candidate, Judgement
from .settings import BuildSettings
from .yardstick import Decided, Yardstick

COMFORT_DB = 35.0  # above this an output is so close that data not seen will hardly tell


class Judge:
    """Compares candidates with the original on the same feeds.

    Args:
        original: the model as it came in.
        feeds: what both are run on; the original's answers are kept, and of feeds with large ones only the
            first few are taken.
        settings: the limits.

    Attributes:
        reference: the metric of the original; None without one.
        feeds: those that are taken.
        constant_db: by output; see `Judgement.constant_db`.
        doubts: notes on outputs that say little of what becomes of them.
        decided_by: values that the original decides its outputs by (see `decisions`), and its outputs of no
            decision; empty where it decides nothing, and outputs have errors as they are.

    Raises:
        DataError: the metric fails on the original or gives no finite number.
    """

    def __init__(self, original: Candidate, feeds: Sequence[Feed], settings: BuildSettings) -> None:
        self.settings = settings
        self._metric = None if settings.metric is None else Metric(settings.metric)
        self._original = original
        self._ranges = Ranges()  # of what has an error, over the metric's feeds and ours
        cut = decisions(original.path)
        with OrtSession(original.path, original.config) as session:
            self._check = session.check
            outputs = Yardstick([port.name for port in session.outputs], feeds, session)
            known = outputs.known.of(session.run)
            self._outputs = self._errors = outputs
            self.feeds = outputs.feeds
            self.constant_db = {name: constant_db(given) for name, given in outputs.by_name().items()}
            self.doubts = steadiness(outputs.by_name(), self.constant_db)
            if cut is None:
                self.decided_by: tuple[str, ...] = ()
                self.reference = self._score(self._ranges.of(known))
                return
            watched = cut.open(original.path, original.config, spinning=False)
            assert watched is not None  # it is its own
            with watched:
                self._errors = Decided(cut, original, outputs, watched)
                self.decided_by = self._errors.names
                self.constant_db |= {n: constant_db(given) for n, given in self._errors.by_name().items()}
                seen = self._ranges.of(self._errors.known.lent(watched.run))
                self.reference = self._score(lambda feed: (seen(feed), known(feed))[1])

    def judge(self, candidate: Candidate) -> Judgement:
        """Run a candidate over the feeds and the metric.

        A candidate that cannot be run or scored is refused with the reason.

        Raises:
            BackendError, DataError: it is the original that fails now, though it ran at first.
        """
        try:
            with OrtSession(candidate.path, candidate.config) as session:
                fidelity, unlike = self._outputs.compare(session)
                score = self._score(session.run)
            before, _ = self._errors.compared(candidate) if self.decided_by else ({}, ())
        except (BackendError, DataError) as error:
            if candidate.path == self._original.path:
                raise
            if isinstance(error, DataError):
                self._sure()  # or it is no fault of the candidate's
            reason = one_line(error).replace(str(candidate.path), "the candidate")
            return Judgement(False, reason, None, None, {}, failed=True)
        found = self._decide(score, fidelity, unlike)
        return replace(found, before=before, constant_db=self.constant_db)

    def _sure(self) -> None:
        """Score the original once more.

        Raises:
            DataError: the metric fails on it now, though it did not at first.
        """
        with OrtSession(self._original.path, self._original.config) as session:
            self._score(session.run)

    def blank(self) -> float | None:
        """The metric of outputs of zeros; None without one, or where it fails on them."""
        with (
            OrtSession(self._original.path, self._original.config) as session,
            suppress(DataError),
        ):
            known = self._outputs.known.lent(session.run)
            return self._score(lambda feed: [np.zeros_like(answer) for answer in known(feed)])
        return None

    def closeness(self, candidate: Candidate) -> float:
        """`Judgement.closeness_db` of a candidate, without the metric; -inf for one that breaks."""
        try:
            fidelity, unlike = self._errors.compared(candidate)
            if not fidelity and self.decided_by:
                fidelity, unlike = self._outputs.compared(candidate)
        except BackendError:
            return -math.inf
        if unlike or any(found.broken for found in fidelity.values()):
            return -math.inf
        return Judgement(True, "", None, None, fidelity, self.constant_db).closeness_db

    def vouch(self, candidate: Candidate, judgement: Judgement) -> Judgement:
        """Find out what an accepted quantized form is likely to lose on other data: see `evidence`.

        Without a metric, or where the form is close enough as it is, nothing is run. A form that needs
        evidence and can have none is refused.
        """
        judgement = replace(judgement, vouched=True)
        drop = judgement.drop
        if self._metric is None or self.reference is None or drop is None:
            return judgement
        if not (candidate.quantized and judgement.accepted):
            return judgement
        samples = self._metric.samples
        if judgement.closeness_db >= needed_db(samples):
            return judgement
        try:
            forward, mirrored = self._drops_beyond(candidate, self.reference)
        except (BackendError, DataError) as error:
            reason = (
                f"outputs are {judgement.closeness_db:.1f} dB close, and the metric's {samples} samples "
                f"vouch for {needed_db(samples):.1f} dB: {one_line(error)}"
            )
            return replace(judgement, accepted=False, reason=reason)
        expected, at_most = expected_drop([drop, *forward], mirrored, samples, self.reference)
        return replace(judgement, expected=expected, at_most=at_most)

    def _drops_beyond(self, candidate: Candidate, reference: float) -> tuple[list[float], list[float]]:
        """The drops of the metric under each of `FORWARD` but 1, and `MIRRORED`, times a candidate's error.

        Raises:
            DataError: the outputs cannot be scaled, or the metric cannot be told of them.
            BackendError: the part behind its decisions does not run by itself.
        """
        errors = self._errors
        first, second = (errors.open(form, spinning=False) for form in (self._original, candidate))
        if first is None or second is None:
            raise DataError("what its answers are decided by has another name in it")
        with errors.finishing() as finished, first, second:
            wanted, given = errors.known.lent(first.run), Answers().lent(second.run)

            def drop(factor: float) -> float:
                score = self._score(finished(amplified(wanted, given, factor, self._ranges)))
                assert score is not None
                return relative_drop(reference, score)

            return [drop(factor) for factor in FORWARD[1:]], [drop(factor) for factor in MIRRORED]

    def _score(self, answer: Run) -> float | None:
        return None if self._metric is None else self._metric.score(answer, self._check)

    def _decide(
        self, score: float | None, fidelity: Mapping[str, Closeness], unlike: Collection[str]
    ) -> Judgement:
        broken = [name for name, c in fidelity.items() if c.broken and name not in unlike]
        if broken:
            reason = f"output {broken[0]!r} has NaN or infinite values other than the original's"
            return Judgement(False, reason, score, None, fidelity)
        if score is not None and self.reference is not None:
            drop = relative_drop(self.reference, score)
            most = self.settings.max_drop
            reason = "" if within(drop, most) else f"metric drops {beyond(drop, most)}, allowed {most:.2%}"
            return Judgement(not reason, reason, score, drop, fidelity)
        if unlike:
            reason = f"output {min(unlike)!r} has another shape, length or text than the original's"
            return Judgement(False, reason, None, None, fidelity)
        worst = min(fidelity.items(), key=lambda item: item[1].sqnr_db, default=None)
        if worst is not None and worst[1].sqnr_db < self.settings.min_sqnr_db:
            limit = self.settings.min_sqnr_db
            reason = f"output {worst[0]!r} has {worst[1].sqnr_db:.1f} dB, allowed {limit:.1f} dB"
            return Judgement(False, reason, None, None, fidelity)
        return Judgement(True, "", None, None, fidelity)
