# SPDX-License-Identifier: Apache-2.0
"""The court that hears what trials gave before and after passes, and finds whether their claim holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..analysis.fidelity import Fidelity
from ..graph_ir import DataError
from ..passes.base import Exactness
from . import judge
from .trial_feeds import Array, Feed, Trial
from .twin import Runner, twin_runner

if TYPE_CHECKING:
    import onnx

_NOISE_RUNS = 3


@dataclass
class Check:
    """One judgement that held.

    Attributes:
        passes: which passes it was about.
        claim: the weakest claim among them.
        feeds: how many feeds were compared.
        judged_by: "bits", "last place" (no difference was larger than that), "float64", "stated bound"
            or "nothing" (lossy).
        sqnr_db: the least SQNR of an output over the feeds that are not hostile.
    """

    passes: str
    claim: str
    feeds: int
    judged_by: str
    sqnr_db: float


class Court:
    """Judges one set of passes over all trials; the float64 twin is made when it is first needed."""

    def __init__(self, passes: str, claim: Exactness, source: onnx.ModelProto | None, seed: int) -> None:
        self.passes = passes
        self.claim = claim
        self.stated = False
        self._source = source
        self._seed = seed
        self._twin: Runner | None = None
        self._noisy: list[Runner] | None = None
        self._tried = False
        self._feeds = 0
        self._totals: dict[str, Fidelity] = {}

    def judge(self, trial: Trial, names: Sequence[str], was: list[Any], now: list[Any]) -> None:
        """Judge the outputs of one trial, before and after.

        Raises:
            ClaimError: naming the passes, the output, the measured and the allowed figure.
        """
        if trial.extreme and self.claim is not Exactness.BITWISE:
            return
        self._feeds += 1
        truth: list[Any] | None = None
        for index, (name, before, after) in enumerate(zip(names, was, now, strict=True)):
            case = judge.Case(self.passes, name, trial.name)
            judge.same_form(case, before, after, self.claim.value)
            if not (judge.is_array(before) and judge.is_array(after)):
                self._items(case, before, after)
                continue
            self._measure(trial, name, before, after)
            if self.claim is Exactness.BITWISE:
                judge.bitwise(case, before, after)
            elif self.claim is Exactness.ROUNDING and not self._close(trial, before, after):
                if truth is None:
                    truth = self._truth(trial, was)
                self._rounding(case, trial, index, before, after, truth)

    def _items(self, case: judge.Case, before: Any, after: Any) -> None:
        """Judge sequences by their items; only bits count there, whatever the claim short of lossy."""
        if self.claim is Exactness.LOSSY or not isinstance(before, list):
            return
        left, right = cast("list[Any]", before), cast("list[Any]", after)
        if len(left) != len(right):
            raise case.fail(self.claim.value, f"{len(left)} items became {len(right)}")
        for one, other in zip(left, right, strict=True):
            judge.same_form(case, one, other, self.claim.value)
            if not (judge.is_array(one) and judge.is_array(other)):
                continue
            if self.claim is Exactness.BITWISE:
                judge.bitwise(case, one, other)
            elif wrong := judge.stated(one, other):
                raise case.fail(self.claim.value, wrong)

    def _close(self, trial: Trial, before: Array, after: Array) -> bool:
        if judge.equal_bits(before, after):
            return True
        if judge.is_float(before):
            return judge.negligible(before, after)
        return trial.hostile  # at the edges every comparison is a tie, which rounding may turn

    def _rounding(
        self, case: judge.Case, trial: Trial, index: int, before: Array, after: Array, truth: list[Any]
    ) -> None:
        if not truth:
            self.stated = True
            wrong = judge.stated(before, after)
        else:
            wrong = judge.rounding(before, after, truth[index])
            if wrong is not None:
                wrong = judge.rounding(before, after, truth[index], self._noise(trial, index))
        if wrong is not None:
            raise case.fail(self.claim.value, wrong)

    def _truth(self, trial: Trial, was: list[Any]) -> list[Any]:
        """Outputs of the float64 twin; empty when there is none, or it does not agree with the model."""
        if not self._tried:
            self._tried = True
            self._twin = None if self._source is None else twin_runner(self._source)
        found = None if self._twin is None else attempt(self._twin, trial.feed)
        if not isinstance(found, list) or not all(judge.is_array(each) for each in found):
            return []
        pairs = [(b, t) for b, t in zip(was, found, strict=True) if judge.is_array(b)]
        return found if all(judge.trustworthy(b, np.asarray(t)) for b, t in pairs) else []

    def _noise(self, trial: Trial, index: int) -> list[Array]:
        if self._noisy is None:
            assert self._source is not None
            made = [
                twin_runner(self._source, np.random.default_rng([self._seed, i])) for i in range(_NOISE_RUNS)
            ]
            self._noisy = [run for run in made if run is not None]
        outputs = [attempt(run, trial.feed) for run in self._noisy]
        return [np.asarray(each[index]) for each in outputs if isinstance(each, list)]

    def _measure(self, trial: Trial, name: str, before: Array, after: Array) -> None:
        if not trial.hostile and not before.dtype.hasobject and before.dtype.kind != "c":
            self._totals.setdefault(name, Fidelity()).update(before, after)

    def sentence(self) -> Check:
        """What held over all trials."""
        by = {
            Exactness.BITWISE: "bits",
            Exactness.ROUNDING: "stated bound" if self.stated else "float64" if self._tried else "last place",
            Exactness.LOSSY: "nothing",
        }[self.claim]
        sqnr = min((total.result().sqnr_db for total in self._totals.values()), default=float("inf"))
        return Check(self.passes, self.claim.value, self._feeds, by, sqnr)


def attempt(run: Runner, feed: Feed) -> list[Any] | DataError:
    """The outputs, or what the model fails with on the feed."""
    try:
        return run(feed)
    except DataError as error:
        return error
