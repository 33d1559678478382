# SPDX-License-Identifier: Apache-2.0
"""Numeric translation validation: run a model before and after passes, judge by what they claim (`judge`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..analysis.evaluate import Evaluator
from ..graph_ir import ClaimError, DataError, Model, ModelError, Signature, signature_of
from ..graph_ir.ops import is_random, label, walk_nodes
from ..passes.base import Context, Exactness
from .court import Check, Court, attempt
from .instrument import Instrument, Outcome, Step
from .trial_feeds import MAX_SIZES, Feed, Trial, extreme, hostile, ordinary
from .twin import Runner, reference_runner, snapshot

if TYPE_CHECKING:
    import onnx

    from .spec import Pipeline

Mode: TypeAlias = Literal["end", "pass"]
GivenFeeds: TypeAlias = Callable[[Model], Iterable[Feed]]

_WITHOUT = "leave --validate out to go on without"
_SEED = 0  # of the feeds that are made
_ORDER = (Exactness.BITWISE, Exactness.ROUNDING, Exactness.LOSSY)


class Validate(Instrument):
    """Check numbers after each pass that changed something (`pass`), or once at the end (`end`).

    Args:
        mode: see above; at the end, the weakest claim of the passes that changed something counts.
        feeds: gives real inputs for the model, besides those made from its signature.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        feeds: GivenFeeds | None = None,
    ) -> None:
        self.checks: list[Check] = []
        self._mode = mode
        self._given = feeds
        self._ctx = Context()
        self._signature: Signature | None = None
        self._before: list[tuple[Trial, list[Any]]] = []
        self._source: onnx.ModelProto | None = None
        self._changed: list[str] = []
        self._failure = ""  # the first feed's on which the model did not run
        self._claim = Exactness.BITWISE

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Run the model as it is on all feeds.

        Raises:
            ModelError: numbers cannot be checked: the model does not run, or draws random ones.
            DataError: it does not run on the feeds that were given.
        """
        self._ctx = ctx
        if self._mode == "end" and any(s.pass_.exact is Exactness.ROUNDING for s in pipeline.passes()):
            self._source = snapshot(model)
        self._start(model)

    def _start(self, model: Model) -> None:
        self._signature = signature_of(model)
        self._before = []
        if not model.graph.outputs:
            raise ModelError(f"numbers cannot be checked: the model has no outputs; {_WITHOUT}")
        random = next((label(node) for node in walk_nodes(model) if is_random(node)), None)
        if random is not None:
            raise ModelError(f"numbers cannot be checked: node {random!r} draws random ones; {_WITHOUT}")
        try:
            run = runner(model)
        except ModelError as error:
            raise ModelError(f"numbers cannot be checked: {error}; {_WITHOUT}") from error
        self._before = list(self._tried(model, run))
        if not self._before:
            why = (
                f": {self._failure}"
                if self._failure
                else ", of which not every input is a tensor of known rank"
            )
            raise ModelError(
                f"numbers cannot be checked: the model runs on no feed made from its signature{why}; "
                f"give --data, or {_WITHOUT}"
            )

    def _tried(self, model: Model, run: Runner) -> Iterator[tuple[Trial, list[Any]]]:
        first: Feed | None = None
        for index, feed in enumerate(self._given(model) if self._given is not None else ()):
            first = feed if first is None else first
            try:
                outputs = run(feed)
            except DataError as error:
                where = f"the model does not run on sample {index} of the data"
                raise DataError(f"numbers cannot be checked: {where}: {error}") from error
            yield Trial(f"sample {index} of the data", feed), outputs
        sizes = 0
        for trial in ordinary(signature_of(model), _SEED):
            outputs = attempt(run, trial.feed)
            if isinstance(outputs, DataError):
                self._failure = self._failure or str(outputs)
            elif sizes < MAX_SIZES:
                sizes += 1
                first = trial.feed if first is None else first
                yield trial, outputs
        if first is not None:
            for trial in (*hostile(first, _SEED), *extreme(first, _SEED)):
                outputs = attempt(run, trial.feed)
                if not isinstance(outputs, DataError):
                    yield trial, outputs

    def before(self, step: Step, model: Model) -> None:
        """Keep the model for its float64 twin, if this pass may round differently."""
        if self._mode == "pass" and self._before and step.pass_.exact is Exactness.ROUNDING:
            self._source = snapshot(model)

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Judge the pass, or note that it changed something.

        Raises:
            ClaimError: naming the pass, the output, the measured and the allowed figure.
            ModelError: see `begin`, of the model whose signature the pass changed.
        """
        if not outcome.changed:
            return
        if step.pass_.changes_signature and self._moved(model):
            self._ctx.note(f"numbers are checked from pass {step.name!r} on: it changed the signature")
            self._source = snapshot(model)
            self._changed, self._claim = [], Exactness.BITWISE
            self._start(model)
        elif self._mode == "pass":
            self._judge(model, f"pass {step.name!r} (number {step.number})", step.pass_.exact)
        else:
            self._claim = max(self._claim, step.pass_.exact, key=_ORDER.index)
            if step.name not in self._changed:
                self._changed.append(step.name)

    def _moved(self, model: Model) -> bool:
        now = signature_of(model)
        was = self._signature
        return was is None or (was.inputs, was.outputs) != (now.inputs, now.outputs)

    def end(self, model: Model) -> None:
        """Judge all passes together, in the mode `end`.

        Raises:
            ClaimError: see `after`.
        """
        if self._mode == "end" and self._changed:
            self._judge(model, f"the passes {', '.join(self._changed)}", self._claim)

    def _judge(self, model: Model, passes: str, claim: Exactness) -> None:
        try:
            run = runner(model)
        except ModelError as error:
            raise ClaimError(f"{passes}: the model does not run any more: {error}") from error
        names = [value.name or "" for value in model.graph.outputs]
        court = Court(passes, claim, self._source, _SEED)
        after: list[tuple[Trial, list[Any]]] = []
        for trial, was in self._before:
            try:
                now = run(trial.feed)
            except DataError as error:
                raise ClaimError(
                    f"{passes}: the model does not run any more ({trial.name}): {error}"
                ) from error
            court.judge(trial, names, was, now)
            after.append((trial, now))
        self._before = after
        self.checks.append(court.sentence())
        if court.stated:
            self._ctx.note(f"{passes}: judged by a stated bound; no float64 run could be had")


def runner(model: Model) -> Runner:
    """Run a model in onnxruntime with its optimizer off, or else in ONNX's reference evaluator.

    Raises:
        ModelError: neither can.
    """
    try:
        evaluator = Evaluator(model)
    except ModelError as error:
        return _by_reference(model, error)
    return lambda feed: list(evaluator.run(feed, check=False).values())


def _by_reference(model: Model, refused: ModelError) -> Runner:
    """Run a model in ONNX's reference evaluator.

    Raises:
        ModelError: `refused`, if it cannot be run there, either; so does the runner as a DataError.
    """
    try:
        reference = reference_runner(snapshot(model))
    except ModelError:
        raise refused from None

    def run(feed: Feed) -> list[Any]:
        try:
            return reference(feed)
        except DataError as error:
            raise DataError(f"{refused}; {error}") from error

    return run
