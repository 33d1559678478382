# SPDX-License-Identifier: Apache-2.0
"""What a build is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...graph_ir import UsageError
from ..amounts import metric_share
from ..spec import parse
from ..tell import Tell, silent

MAX_DROP = 0.01  # share of the metric
MIN_SQNR_DB = 20.0  # of any output, where there is no metric
BUDGET_S = 300.0  # for trials
LEAST_S = 2.0  # for any measurement behind them
TARGETS = ("onnxruntime-cpu",)


@dataclass(frozen=True)
class BuildSettings:
    """What a build is asked for.

    Attributes:
        model: the model file; never written to.
        out: folder for the result; made when missing.
        data: calibration feeds (see `calibration.open_feeds`); None does the lossless part only.
        metric: `module:function`, called as `metric(run) -> float`, higher is better.
        max_drop: how much of the metric may be lost, relative to the original (0.01 is one per cent).
        min_sqnr_db: without a metric, the least signal-to-noise ratio of any output, in dB.
        target: where the model will run.
        passes: pipeline text to use in place of the lossless one.
        recipe: a recipe file to follow in place of the search, or the name of a shipped one.
        samples: how many feeds are used at most.
        rounds: rounds of the closing latency measurement.
        budget_s: begin no further trial after so many seconds; infinite to try all there is.
        lock: the lock file of an earlier build, to make again what that shipped in place of the search.
        trials: a log of judged candidates to go on from and to add to; None keeps none.
        seed: for feeds drawn from the signature where no data is given.
        progress: told how far it is.
    """

    model: Path
    out: Path
    data: str | None = None
    metric: str | None = None
    max_drop: float = MAX_DROP
    min_sqnr_db: float = MIN_SQNR_DB
    target: str = "onnxruntime-cpu"
    passes: str | None = None
    recipe: str | None = None
    samples: int | None = 256
    rounds: int = 25
    budget_s: float = BUDGET_S
    lock: Path | None = None
    trials: Path | None = None
    seed: int = 0
    progress: Tell = silent

    def check(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            UsageError: naming the option.
        """
        if self.target not in TARGETS:
            raise UsageError(f"no target is called {self.target!r}; there is {', '.join(TARGETS)}")
        metric_share(self.max_drop)
        if not math.isfinite(self.min_sqnr_db):
            raise UsageError(f"--min-sqnr is a number of dB, not {self.min_sqnr_db}")
        if self.passes is not None and self.recipe is not None:
            raise UsageError("give --passes or --recipe, not both")
        if self.passes is not None:
            parse(self.passes)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{str(self.out)!r} is a file; -o names a folder")
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples must be at least 1, not {self.samples}")
        if self.rounds < 1:
            raise UsageError(f"--rounds must be at least 1, not {self.rounds}")
        if not self.budget_s > 0:
            raise UsageError(f"--budget must be more than nothing, not {self.budget_s:g} s")
        if self.trials is not None:
            self._check_trials(self.trials)
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, not {self.seed}")

    def at_most(self, seconds: float) -> float:
        """The time for one of the measurements behind the search: less where the search has little."""
        return min(seconds, max(LEAST_S, self.budget_s / 4))

    def _check_trials(self, trials: Path) -> None:
        if self.recipe is not None or self.lock is not None:
            what = "recipe" if self.lock is None else "lock"
            raise UsageError(
                f"--trials logs what a search tries, and a {what} searches nothing; leave one out"
            )
        if self.data is None:
            raise UsageError("--trials logs what is tried with data; give --data too")
        if trials.is_dir():
            raise UsageError(f"--trials {str(trials)!r} is a folder; it names a file")
        if not trials.absolute().parent.is_dir():
            raise UsageError(f"--trials {str(trials)!r}: there is no folder {str(trials.parent)!r}")
