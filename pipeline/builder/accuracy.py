# SPDX-License-Identifier: Apache-2.0
"""Judging candidates: the user's metric, and the closeness of every output to the original's."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.fidelity import Closeness, Fidelity
from ...backends.base import BackendError, Feed
from ...backends.onnxruntime.session import OrtSession
from ...calibration.functions import load_function, user_code
from ...graph_ir import DataError, one_line
from ..amounts import beyond, within
from .comparing import compare
from .decisions import decisions
from .doubts import constant_db, steadiness
from .evidence import FORWARD, MIRRORED, MOST_BYTES, Answers, Ranges, Run, amplified, expected_drop, needed_db
from .result import Candidate, Judgement
from .settings import BuildSettings

COMFORT_DB = 35.0  # above this an output is so close that data not seen will hardly tell
MOST_JUDGED_BYTES = MOST_BYTES * 3 // 4  # of the original's answers to the feeds

Metric = Callable[[Callable[[Feed], list[Any]]], float]


class Judge:
    """Compares candidates with the original on the same feeds.

    Args:
        original: the model as it came in.
        feeds: what both are run on; the original's answers are kept, and of feeds with large ones only the
            first few are taken.
        settings: the limits.

    Attributes:
        constant_db: by output; see `Judgement.constant_db`.
        doubts: notes on outputs that say little of what becomes of them.
        decisions: where the original begins to decide; None where outputs have errors as they are.

    Raises:
        DataError: the metric fails on the original or gives no finite number.
    """

    def __init__(self, original: Candidate, feeds: Sequence[Feed], settings: BuildSettings) -> None:
        self.settings = settings
        self._metric: Metric | None = None if settings.metric is None else load_function(settings.metric)
        self._original = original
        self.samples = 0  # how many the metric looks at: the batch axis of what it runs
        self._known, self._ranges = Answers(), Ranges()  # of the original, to the metric's feeds and to ours
        self.decisions = decisions(original.path)
        self._watched = self._known if self.decisions is None else Answers()  # what has an error
        with (
            OrtSession(original.path, original.config) as session,
            self._before(original) or nullcontext(session) as watched,
        ):
            self._check = session.check
            self._names = [port.name for port in session.outputs]
            self._answers = few_answers(feeds, self._known.lent(session.run))
            self.feeds = feeds[: len(self._answers)]
            by_name = {name: [each[i] for each in self._answers] for i, name in enumerate(self._names)}
            self.constant_db = {name: constant_db(answers) for name, answers in by_name.items()}
            self.doubts = steadiness(by_name, self.constant_db)
            if self.decisions is not None:
                self._floats = [self._watched.lent(watched.run)(feed) for feed in self.feeds]
                self.constant_db |= {
                    name: constant_db([each[i] for each in self._floats])
                    for i, name in enumerate(self.decisions.floats)
                }
            known = self._known.of(session.run)
            if self.decisions is None:
                self.reference = self._score(self._ranges.of(known))
            else:
                seen = self._ranges.of(self._watched.lent(watched.run))
                self.reference = self._score(lambda feed: (seen(feed), known(feed))[1])

    def judge(self, candidate: Candidate) -> Judgement:
        """Run a candidate over the feeds and the metric.

        A candidate that cannot be run or scored is refused with the reason.

        Raises:
            BackendError, DataError: it is the original that fails now, though it ran at first.
        """
        try:
            with OrtSession(candidate.path, candidate.config) as session:
                fidelity, unlike = self._compared(session, self._names, self._answers)
                score = self._score(session.run)
            before, _ = self._compared_before(candidate)
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
            known = self._known.lent(session.run)
            return self._score(lambda feed: [np.zeros_like(answer) for answer in known(feed)])
        return None

    def closeness(self, candidate: Candidate) -> float:
        """`Judgement.closeness_db` of a candidate, without the metric; -inf for one that breaks."""
        try:
            fidelity, unlike = self._compared_before(candidate)
            if not fidelity:
                with OrtSession(candidate.path, candidate.config) as session:
                    fidelity, unlike = self._compared(session, self._names, self._answers)
        except BackendError:
            return -math.inf
        if unlike or any(found.broken for found in fidelity.values()):
            return -math.inf
        return Judgement(True, "", None, None, fidelity, self.constant_db).closeness_db

    def _before(self, candidate: Candidate) -> OrtSession | None:
        """What a candidate decides by; None where there are no decisions, or it lacks a value."""
        proto = None if self.decisions is None else self.decisions.before(candidate.path)
        if proto is None:
            return None
        return OrtSession(proto, candidate.config, spinning=False, folder=candidate.path.parent)

    def _compared_before(self, candidate: Candidate) -> tuple[dict[str, Closeness], set[str]]:
        """The same as `_compared` of what a candidate decides by; empty where there is nothing of it."""
        session = self._before(candidate)
        if session is None or self.decisions is None:
            return {}, set()
        with session:
            return self._compared(session, self.decisions.floats, self._floats)

    def _compared(
        self, session: OrtSession, names: Sequence[str], wanted: Sequence[list[Any]]
    ) -> tuple[dict[str, Closeness], set[str]]:
        """How close each output is over the feeds, and the outputs that differ in more than numbers."""
        totals = {name: Fidelity() for name in names}
        unlike: set[str] = set()
        for feed, answers in zip(self.feeds, wanted, strict=True):
            for name, want, got in zip(names, answers, session.run(feed), strict=True):
                if not compare(totals[name], want, got):
                    unlike.add(name)
        return {name: total.result() for name, total in totals.items() if total.count}, unlike

    def vouch(self, candidate: Candidate, judgement: Judgement) -> Judgement:
        """Find out what an accepted quantized form is likely to lose on other data: see `evidence`.

        Without a metric, or where the form is close enough as it is, nothing is run. A form that needs
        evidence and can have none is refused.
        """
        judgement = replace(judgement, vouched=True)
        drop = judgement.drop
        if not (candidate.quantized and judgement.accepted) or drop is None:
            return judgement
        if judgement.closeness_db >= needed_db(self.samples):
            return judgement
        try:
            forward, mirrored = self._drops_beyond(candidate)
        except (BackendError, DataError) as error:
            reason = (
                f"outputs are {judgement.closeness_db:.1f} dB close, and the metric's {self.samples} samples "
                f"vouch for {needed_db(self.samples):.1f} dB: {one_line(error)}"
            )
            return replace(judgement, accepted=False, reason=reason)
        assert self.reference is not None  # there is a drop
        expected, at_most = expected_drop([drop, *forward], mirrored, self.samples, self.reference)
        return replace(judgement, expected=expected, at_most=at_most)

    def _drops_beyond(self, candidate: Candidate) -> tuple[list[float], list[float]]:
        """The drops of the metric under each of `FORWARD` but 1, and `MIRRORED`, times a candidate's error.

        Raises:
            DataError: the outputs cannot be scaled, or the metric cannot be told of them.
            BackendError: the part behind its decisions does not run by itself.
        """
        assert self.reference is not None
        reference, original = self.reference, self._original
        if self.decisions is None:
            rest = None
            first = OrtSession(original.path, original.config, spinning=False)
            second = OrtSession(candidate.path, candidate.config, spinning=False)
        else:
            folder = original.path.parent
            rest = OrtSession(self.decisions.behind(original.path), spinning=False, folder=folder)
            first, second = self._before(original), self._before(candidate)
        if first is None or second is None:
            raise DataError("what its answers are decided by has another name in it")
        with first, second:
            wanted, given = self._watched.lent(first.run), Answers().lent(second.run)

            def drop(factor: float) -> float:
                run = amplified(wanted, given, factor, self._ranges)
                if self.decisions is not None and rest is not None:
                    run = self.decisions.finished(run, rest, self._names)
                score = self._score(run)
                assert score is not None
                return relative_drop(reference, score)

            return [drop(factor) for factor in FORWARD[1:]], [drop(factor) for factor in MIRRORED]

    def _score(self, answer: Callable[[Feed], list[Any]]) -> float | None:
        if self._metric is None:
            return None
        what = f"metric {self.settings.metric!r}"
        samples = 0

        def run(feed: Feed) -> list[NDArray[Any]]:
            nonlocal samples
            self._check(feed)
            first = next(iter(feed.values()), None)
            samples += max(1, first.shape[0]) if first is not None and first.ndim else 1
            return answer(feed)

        with user_code(what):
            given: object = self._metric(run)
        score = _number(what, given)
        if not math.isfinite(score):
            raise DataError(f"{what} gave {score}, not a finite number")
        if not samples:
            raise DataError(
                f"{what} never ran the model that it was given: call run(feed) and score its answers"
            )
        self.samples = samples
        return score

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


def few_answers(feeds: Sequence[Feed], run: Run) -> list[list[Any]]:
    """What a model answers to the first feeds, so long as that is not too much to keep; to two at least."""
    found: list[list[Any]] = []
    size = 0
    for feed in feeds:
        if size > MOST_JUDGED_BYTES and len(found) > 1:
            break
        found.append(run(feed))
        size += sum(a.nbytes for a in found[-1] if isinstance(a, np.ndarray))
    return found


def relative_drop(reference: float, score: float) -> float:
    """Share of the reference that is lost; negative when the score is better, inf below a zero reference."""
    if score == reference:
        return 0.0
    if reference == 0:
        return math.inf if score < 0 else 0.0
    return (reference - score) / abs(reference)


def _number(what: str, given: object) -> float:
    if given is not None and not isinstance(given, (str, bytes)):
        try:
            array = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            pass
        else:
            if array.size == 1:
                return float(array.reshape(-1)[0])
    raise DataError(f"{what} returned a {type(given).__name__}, not a number")
