# SPDX-License-Identifier: Apache-2.0
"""Time of pruned models against the original, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.onnxruntime.config import SessionConfig
from ...backends.onnxruntime.latency import Latency, compare, measure, session_runners
from ...graph_ir import Model, save
from .predict import Predictor
from .table import Table

if TYPE_CHECKING:
    from ...analysis.coupling import Coupling
    from ...backends.base import Feed

ORIGINAL, PRUNED = "original", "pruned"


class Clock:
    """Measures on this machine.

    Args:
        original: the model's file, in a form that runtimes open.
        feed: what models are run on.
        folder: for the models measured.
        table: of layers.
        threads: of a run.
        bindings: sizes of named dims in the feed.
        rounds: turns of each model.
        budget_s: seconds one comparison may take.
    """

    def __init__(
        self,
        original: Path,
        feed: Feed,
        folder: Path,
        *,
        table: Table,
        threads: int = 1,
        bindings: Mapping[str, int] | None = None,
        rounds: int = 15,
        budget_s: float = 10.0,
    ) -> None:
        self._original = original
        self._feed = feed
        self._folder = folder
        self._table = table
        self._threads = threads
        self._bindings = dict(bindings or {})
        self._rounds = rounds
        self._budget_s = budget_s

    def note(self) -> str:
        """What went wrong with the table; empty when nothing did."""
        return self._table.unkept

    def times(self, model: Model) -> Mapping[str, Latency]:
        """The original and a model side by side."""
        path = self._folder / "timed.onnx"
        save(model, path)
        models = {ORIGINAL: (self._original, SessionConfig()), PRUNED: (path, SessionConfig())}
        with session_runners(models, [self._feed], threads=self._threads) as runners:
            return measure(runners, rounds=self._rounds, budget_s=self._budget_s)

    def ratio(self, model: Model) -> float:
        """Time of a model over time of the original."""
        times = self.times(model)
        return compare(times[PRUNED], times[ORIGINAL]).median

    def predictor(self, model: Model, coupling: Coupling, align: int) -> Predictor:
        """What predicts the time of a model when more is cut; times it as it is first."""
        whole = min(self.times(model)[PRUNED].turns_ms)  # as the table has the least of each layer
        return Predictor(model, coupling, self._table, bindings=self._bindings, whole_ms=whole, align=align)
