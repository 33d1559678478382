# SPDX-License-Identifier: Apache-2.0
"""Runs a pipeline over a model in place, checks what passes require and ensure, calls instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph_ir import Model, UsageError, VerifyError
from ..graph_ir.names import Names
from ..passes import catalog
from ..passes.base import Context, Pass, Property
from .instrument import Instrument, Outcome, Step
from .spec import Loop, PassSpec, Pipeline

MAX_ROUNDS = 64


@dataclass(frozen=True)
class Result:
    """What a run did: how many passes ran, how many of them changed something, how many were spared.

    A pass is spared when nothing has changed since it last had nothing to do.
    """

    ran: int
    changed: int
    spared: int


def run(
    pipeline: Pipeline, model: Model, ctx: Context | None = None, instruments: Sequence[Instrument] = ()
) -> Result:
    """Run the pipeline over the model, in place.

    Args:
        pipeline: see `spec.parse`.
        model: rewritten in place; on an error it is left as the failing pass left it.
        ctx: seed, facts and limits; collects counters and notes. A new one when None.
        instruments: called in order before a pass, in reverse order after it.

    Raises:
        UsageError: a pass requires what does not hold; names the passes that would ensure it.
        VerifyError: a pass does not ensure what it says, or an instrument found the IR broken.
        ClaimError: an instrument found the numbers further off than the pass claims.
    """
    state = _Run(model, Context() if ctx is None else ctx, tuple(instruments))
    for instrument in instruments:
        instrument.begin(pipeline, model, state.ctx)
    state.ctx.names = Names(model)
    try:
        state.elements(pipeline, (), ())
    finally:
        state.ctx.names = None
    for instrument in reversed(state.instruments):
        instrument.end(model)
    return Result(state.ran, state.version, state.spared)


class _Run:
    def __init__(self, model: Model, ctx: Context, instruments: tuple[Instrument, ...]) -> None:
        self.model = model
        self.ctx = ctx
        self.instruments = instruments
        self.ran = 0
        self.spared = 0
        self.version = 0  # counts the changes
        self.idle: dict[Pass, int] = {}  # the version each pass last found nothing to do at

    def elements(self, pipeline: Pipeline, path: tuple[int, ...], rounds: tuple[int, ...]) -> None:
        for index, element in enumerate(pipeline.elements):
            if isinstance(element, Loop):
                self.loop(element, (*path, index), rounds)
            else:
                self.one(element, (*path, index), rounds)

    def loop(self, loop: Loop, path: tuple[int, ...], rounds: tuple[int, ...]) -> None:
        limit = loop.limit or MAX_ROUNDS
        for number in range(1, limit + 1):
            before = self.version
            self.elements(loop.body, path, (*rounds, number))
            if self.version == before:
                return
        if loop.limit is None:
            self.ctx.note(f"the loop {loop} was stopped after {limit} rounds that each changed something")
        else:
            self.ctx.note(f"the loop {loop} used all its {limit} rounds; more might still change something")

    def one(self, spec: PassSpec, path: tuple[int, ...], rounds: tuple[int, ...]) -> None:
        if self.idle.get(spec.pass_) == self.version:
            self.spared += 1
            return
        check_requirements(spec.pass_, self.model, self.ctx)
        self.ran += 1
        step = Step(self.ran, spec, path, rounds)
        for instrument in self.instruments:
            instrument.before(step, self.model)
        counters, misses = self.ctx.counters.copy(), self.ctx.misses.copy()
        try:
            names = self.ctx.names
            known = 0 if names is None else names.changes
            changed = spec.pass_.run(self.model, self.ctx)
            if changed and names is not None:
                names.moved()
                if names.changes == known:
                    self.ctx.names = Names(self.model)  # it may have edited by other doors than the Rewriter
            self.version += changed
            if not changed:
                self.idle[spec.pass_] = self.version
            outcome = Outcome(changed, self.ctx.counters - counters, self.ctx.misses - misses)
            check_promises(spec.pass_, self.model)
            for instrument in reversed(self.instruments):
                instrument.after(step, self.model, outcome)
        except BaseException as error:
            for instrument in reversed(self.instruments):
                instrument.failed(step, self.model, error)
            raise


def check_requirements(pass_: Pass, model: Model, ctx: Context) -> None:
    """Check what a pass requires of the model and of measured facts.

    Raises:
        UsageError: naming what is missing and the passes that ensure it.
    """
    for wanted in pass_.requires:
        if not wanted.holds(model):
            raise UsageError(f"pass {pass_.name!r} requires {wanted.name!r}; {ensured_by(wanted)}")
    for fact in pass_.needs_facts:
        if fact not in ctx.facts:
            raise UsageError(f"pass {pass_.name!r} needs {fact!r}, which nothing measured; calibrate first")


def check_promises(pass_: Pass, model: Model) -> None:
    """Check what a pass ensures.

    Raises:
        VerifyError: naming what does not hold.
    """
    for promised in pass_.ensures:
        if not promised.holds(model):
            raise VerifyError(f"pass {pass_.name!r} says it ensures {promised.name!r}, which does not hold")


def ensured_by(wanted: Property) -> str:
    """Advice: the passes of the catalogue that ensure a property."""
    found = [name for name in catalog.names() if wanted in catalog.get(name).ensures]
    return f"run {' or '.join(map(repr, found))} before it" if found else "no pass ensures it"
