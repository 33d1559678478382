# SPDX-License-Identifier: Apache-2.0
"""Instruments that look at the model: verify, print, dump. Those that count and time are in `measure`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from ..graph_ir import Model, Signature, UsageError, VerifyError, save, signature_of, to_text, verify
from ..passes.base import Context
from .instrument import Instrument, Outcome, Step
from .spec import Pipeline

When: TypeAlias = Literal["before", "after", "after-change"]


class RoundError(VerifyError):
    """Some pass of a round is at fault; a run that is verified after each change names it."""


class Verify(Instrument):
    """Verify the IR and the signature after each change; a pass that may change the signature renews it.

    Args:
        by_round: verify all that a round of a loop changed at once, in a fraction of the time. What is wrong
            then is a `RoundError`: to name the pass, run again without this.
    """

    def __init__(self, *, by_round: bool = False) -> None:
        self._signature: Signature | None = None
        self._by_round = by_round
        self._waiting: tuple[int, ...] | None = None  # the round whose changes are not verified yet

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Take the signature."""
        self._signature = signature_of(model)
        self._waiting = None

    def before(self, step: Step, model: Model) -> None:
        """Verify a round that has ended, and whatever precedes a pass that may change the signature.

        Raises:
            RoundError: a pass of the round broke the graph.
        """
        if step.rounds != self._waiting or step.pass_.changes_signature:
            self._verify_waiting(model)

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Verify.

        Raises:
            VerifyError: naming the pass and the first thing that is wrong.
        """
        if not outcome.changed:
            return
        free = step.pass_.changes_signature
        if self._by_round and not free:
            self._waiting = step.rounds
            return
        try:
            verify(model, None if free else self._signature)
        except VerifyError as error:
            raise VerifyError(f"after pass {step.spec} (number {step.number}): {error}") from error
        if free:
            self._signature = signature_of(model)

    def failed(self, step: Step, model: Model, error: BaseException) -> None:
        """Say that an error may come of an earlier pass, when what that one did was not verified yet.

        Raises:
            RoundError: in place of the error.
        """
        if self._waiting is not None and isinstance(error, Exception):
            self._waiting = None
            raise RoundError(f"pass {step.spec} (number {step.number}) failed: {error}") from error

    def end(self, model: Model) -> None:
        """Verify what is left.

        Raises:
            RoundError: a pass broke the graph.
        """
        self._verify_waiting(model)

    def _verify_waiting(self, model: Model) -> None:
        if self._waiting is None:
            return
        self._waiting = None
        try:
            verify(model, self._signature)
        except VerifyError as error:
            raise RoundError(str(error)) from error


class PrintIr(Instrument):
    """Write the model's text before or after each pass, or after those that changed the text."""

    def __init__(self, when: When, write: Callable[[str], object]) -> None:
        self._when = when
        self._write = write
        self._text = ""

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Take the text that changes are seen against."""
        self._text = to_text(model) if self._when == "after-change" else ""

    def before(self, step: Step, model: Model) -> None:
        """Print, when asked to print before passes."""
        if self._when == "before":
            self._print("before", step, to_text(model))

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Print, when asked to print after passes."""
        if self._when == "before":
            return
        text = to_text(model)
        if self._when == "after" or text != self._text:
            self._print("after", step, text)
        self._text = text

    def failed(self, step: Step, model: Model, error: BaseException) -> None:
        """Say that the pass failed, so that the last print is not taken for its result."""
        self._write(f"// pass {step.number} {step.spec} failed\n")

    def _print(self, where: str, step: Step, text: str) -> None:
        self._write(f"// {where} pass {step.number} {step.spec}\n{text}")


class Dump(Instrument):
    """Write a numbered model after each change: `000-input.onnx`, `001-inline.onnx`, ... into a folder.

    Raises:
        UsageError: when the folder cannot be made or already holds numbered models.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def begin(self, pipeline: Pipeline, model: Model, ctx: Context) -> None:
        """Make the folder and write the input."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            stale = next((p.name for p in sorted(self._folder.glob("[0-9][0-9][0-9]-*.onnx"))), None)
        except OSError as error:
            message = f"cannot make the folder {str(self._folder)!r}: {error.strerror}"
            raise UsageError(message) from error
        if stale is not None:
            raise UsageError(f"folder {str(self._folder)!r} holds dumps already ({stale}); give an empty one")
        self._write(model, "input")

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        """Write the model if it changed."""
        if outcome.changed:
            self._write(model, step.name)

    def _write(self, model: Model, name: str) -> None:
        plain = re.sub(r"[^\w.-]", "_", name)
        save(model, self._folder / f"{self._count:03}-{plain}.onnx")
        self._count += 1
