# SPDX-License-Identifier: Apache-2.0
"""The one protocol all debugging hangs on: told before and after each pass, and when one fails."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..graph_ir import Model
from ..passes.base import Context, Pass
from .spec import PassSpec, Pipeline


@dataclass(frozen=True)
class Step:
    """One run of one pass.

    Attributes:
        number: counts the passes that ran, from 1.
        spec: the pass as written.
        path: its place in the pipeline, an index per nesting of loops.
        rounds: the round of each loop around it, from 1.
    """

    number: int
    spec: PassSpec
    path: tuple[int, ...]
    rounds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The pass's name."""
        return self.spec.name

    @property
    def pass_(self) -> Pass:
        """The pass."""
        return self.spec.pass_


@dataclass(frozen=True)
class Outcome:
    """What a pass did: whether it changed the model, what fired how often, what was declined and why."""

    changed: bool
    counters: Counter[str]
    misses: Counter[tuple[str, str]]


class Instrument:
    """Base of instruments: each hook does nothing unless overridden; one may raise to stop the run."""

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Called before the first pass."""

    def before(self, step: Step, model: Model) -> None:
        """Called before a pass runs."""

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Called after a pass ran, whether or not it changed anything."""

    def failed(self, step: Step, model: Model, error: BaseException) -> None:
        """Called when a pass or an instrument after it raised; the error is raised on afterwards."""

    def end(self, model: Model) -> None:
        """Called after the last pass, not when one failed."""
