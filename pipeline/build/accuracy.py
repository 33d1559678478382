# SPDX-License-Identifier: Apache-2.0
"""Judging candidates: the user's metric, and the closeness of every output to the original's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...analysis.fidelity import Closeness, Fidelity
from ...backends.base import Feed
from ...backends.onnxruntime.session import OrtSession
from ...calibration.functions import load_function
from ...graph_ir import DataError, one_line
from .result import Candidate, Judgement
from .settings import BuildSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUICK = 4  # feeds of a quick look
COMFORT_DB = 25.0  # above this an output is so close that data not seen will hardly tell

Metric = Callable[[Callable[[Feed], list[Any]]], float]


class Judge:
    """Compares candidates with the original on the same feeds.

    Args:
        original: the model as it came in.
        feeds: what both are run on; the original's answers are kept.
        settings: the limits.

    Raises:
        DataError: the metric fails on the original or gives no finite number.
    """

    def __init__(self, original: Candidate, feeds: Sequence[Feed], settings: BuildSettings) -> None:
        self._feeds = feeds
        self._settings = settings
        self._metric: Metric | None = None if settings.metric is None else load_function(settings.metric)
        with OrtSession(original.path, original.config) as session:
            self._names = [port.name for port in session.outputs]
            self._answers = [session.run(feed) for feed in feeds]
            self.reference = self._score(session)

    def judge(self, candidate: Candidate) -> Judgement:
        """Run a candidate over the feeds and the metric."""
        with OrtSession(candidate.path, candidate.config) as session:
            totals = {name: Fidelity() for name in self._names}
            for feed, answers in zip(self._feeds, self._answers, strict=True):
                for name, want, got in zip(self._names, answers, session.run(feed), strict=True):
                    compare(totals[name], want, got)
            score = self._score(session)
        fidelity = {name: total.result() for name, total in totals.items() if total.count}
        return self._decide(score, fidelity)

    def quick(self, candidate: Candidate) -> float:
        """The worst output's signal-to-noise ratio in dB over a few feeds, without the metric."""
        totals = {name: Fidelity() for name in self._names}
        with OrtSession(candidate.path, candidate.config) as session:
            for feed, answers in zip(self._feeds[:QUICK], self._answers[:QUICK], strict=True):
                for name, want, got in zip(self._names, answers, session.run(feed), strict=True):
                    compare(totals[name], want, got)
        return min((t.result().sqnr_db for t in totals.values() if t.count), default=float("inf"))

    def _score(self, session: OrtSession) -> float | None:
        if self._metric is None:
            return None
        where = self._settings.metric
        try:
            score = float(self._metric(session.run))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            raise DataError(f"metric {where!r} failed: {type(error).__name__}: {one_line(error)}") from error
        if not math.isfinite(score):
            raise DataError(f"metric {where!r} gave {score}, not a finite number")
        return score

    def _decide(self, score: float | None, fidelity: Mapping[str, Closeness]) -> Judgement:
        broken = [name for name, c in fidelity.items() if c.broken]
        if broken:
            reason = f"output {broken[0]!r} has NaN or infinite values the original has not"
            return Judgement(False, reason, score, None, fidelity)
        if score is not None and self.reference is not None:
            drop = relative_drop(self.reference, score)
            kept = drop <= self._settings.max_drop
            reason = "" if kept else f"metric drops {drop:.2%}, allowed {self._settings.max_drop:.2%}"
            return Judgement(kept, reason, score, drop, fidelity)
        worst = min(fidelity.items(), key=lambda item: item[1].sqnr_db, default=None)
        if worst is not None and worst[1].sqnr_db < self._settings.min_sqnr_db:
            limit = self._settings.min_sqnr_db
            reason = f"output {worst[0]!r} has {worst[1].sqnr_db:.1f} dB, allowed {limit:.1f} dB"
            return Judgement(False, reason, None, None, fidelity)
        return Judgement(True, "", None, None, fidelity)


def relative_drop(reference: float, score: float) -> float:
    """Share of the reference that is lost; negative when the score is better, inf below a zero reference."""
    if score >= reference:
        return -abs(score - reference) / abs(reference) if reference else 0.0
    return (reference - score) / abs(reference) if reference else math.inf


def compare(total: Fidelity, want: object, got: object) -> None:
    """Add one output to its total; sequences and maps are compared item by item, strings not at all."""
    if isinstance(want, np.ndarray) and isinstance(got, np.ndarray):
        want, got = cast("NDArray[Any]", want), cast("NDArray[Any]", got)
        if want.dtype.kind in "biufc" and want.shape == got.shape:
            total.update(want, got)
        elif want.shape != got.shape:
            total.broken += 1
            total.count += 1
    elif isinstance(want, list) and isinstance(got, list):
        pairs = zip(cast("list[object]", want), cast("list[object]", got), strict=False)
        for left, right in pairs:
            compare(total, left, right)
