# SPDX-License-Identifier: Apache-2.0
"""Instruments that count and time, per pass instance (its place in the pipeline), rounds summed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..graph_ir import Model
from ..passes.base import Context
from .instrument import Instrument, Outcome, Step
from .spec import Loop, Pipeline


@dataclass
class TimeNode:
    """One line of the timing tree.

    Attributes:
        text: the pass, loop or whole pipeline as written.
        depth: how deep it is nested; 0 for the pipeline.
        seconds: in all runs together; of a loop or the pipeline, the sum over what is inside.
        runs: how often the pass ran; of a loop, its rounds.
        changed: how many of the runs changed the model.
    """

    text: str
    depth: int
    seconds: float = 0.0
    runs: int = 0
    changed: int = 0


class Timing(Instrument):
    """Time spent in each pass alone, other instruments left out when this one is the last in the list."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start = 0.0
        self._nodes: dict[tuple[int, ...], TimeNode] = {}

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Lay out the tree."""
        self._nodes = {(): TimeNode(str(pipeline), 0, runs=1)}
        self._lay_out(pipeline, ())

    def _lay_out(self, pipeline: Pipeline, path: tuple[int, ...]) -> None:
        for index, element in enumerate(pipeline.elements):
            here = (*path, index)
            self._nodes[here] = TimeNode(str(element), len(here))
            if isinstance(element, Loop):
                self._lay_out(element.body, here)

    def before(self, step: Step, model: Model) -> None:
        """Start the clock."""
        self._start = self._clock()

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Stop the clock."""
        seconds = self._clock() - self._start
        node = self._nodes[step.path]
        node.runs += 1
        for length in range(len(step.path) + 1):
            above = self._nodes[step.path[:length]]
            above.seconds += seconds
            above.changed += outcome.changed
        for depth, number in enumerate(step.rounds):
            loop = self._nodes[step.path[: depth + 1]]
            loop.runs = max(loop.runs, number)

    def tree(self) -> list[TimeNode]:
        """The lines of the tree, each above what is inside it."""
        return list(self._nodes.values())


@dataclass
class PassStatistics:
    """What one pass instance did over all its runs."""

    text: str
    runs: int = 0
    changed: int = 0
    counters: Counter[str] = field(default_factory=Counter[str])
    misses: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])


class Statistics(Instrument):
    """Counters and declined matches, per pass instance, in pipeline order."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], PassStatistics] = {}

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Add one run."""
        entry = self._found.setdefault(step.path, PassStatistics(str(step.spec)))
        entry.runs += 1
        entry.changed += outcome.changed
        entry.counters.update(outcome.counters)
        entry.misses.update(outcome.misses)

    def result(self) -> list[PassStatistics]:
        """One entry per pass instance that ran."""
        return [self._found[path] for path in sorted(self._found)]
