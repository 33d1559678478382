# SPDX-License-Identifier: Apache-2.0
"""The last door of the command line: whatever was raised becomes one line and an exit code.

Exit codes: 0 done, 1 a check did not hold, 2 wrong input, 3 a fault of tersor itself, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

INTERRUPTED = 130
BROKEN_PIPE = 141  # as of a program that the system ends
INTERNAL = 3
WRONG_INPUT = 2
_LONGEST = 600  # characters of a line


@dataclass(frozen=True)
class Failure:
    """What went wrong: the line for people, the exit code, the error's class and the place in the code."""

    line: str
    exit_code: int
    kind: str
    where: str


class Guard:
    """A context manager that keeps any exception and turns it into a `Failure`; SystemExit passes through.

    With `debug` the traceback is printed on standard error, too.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self.debug = debug
        self.failure: Failure | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if isinstance(error, SystemExit):
            return False
        if self.debug:
            traceback.print_exception(error, file=sys.stderr)
        self.failure = describe(error)
        if not self.debug and _in_users_code(error):
            self.failure = replace(self.failure, line=f"{self.failure.line}; --debug shows the trace")
        return True


def describe(error: BaseException) -> Failure:
    """The failure an exception means."""
    kind, where = type(error).__name__, _place(error)
    if _interrupted(error):
        return Failure("interrupted; nothing half-written is left", INTERRUPTED, kind, where)
    exit_code = getattr(error, "exit_code", None)
    own_words = getattr(error, "format_message", None)  # the command line parser's errors know how to say it
    if isinstance(exit_code, int) and callable(own_words):
        return Failure(_usage_line(error, str(own_words())), exit_code, kind, where)
    if isinstance(exit_code, int):  # a TersorError
        return Failure(_one_line(error), exit_code, kind, where)
    if isinstance(error, OSError) and error.strerror:
        named = f": {str(error.filename)!r}" if error.filename else ""
        return Failure(f"{error.strerror}{named}", WRONG_INPUT, kind, where)
    if isinstance(error, MemoryError):
        return Failure("out of memory", INTERNAL, kind, where)
    line = f"a fault of tersor itself, at {where}: {kind}: {_one_line(error)}; --debug shows the trace"
    return Failure(line, INTERNAL, kind, where)


def _interrupted(error: BaseException | None) -> bool:
    """Whether it is an interruption, or what an extension that was being loaded made of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _in_users_code(error: BaseException | None) -> bool:
    """Whether a metric or data function failed, of which the trace tells more."""
    while error is not None and not getattr(error, "in_users_code", False):
        error = error.__cause__
    return error is not None


def _usage_line(error: BaseException, words: str) -> str:
    context = getattr(error, "ctx", None)
    line = " ".join(words.split()).rstrip(".")
    line = line[:1].lower() + line[1:]
    return line if context is None else f"{line}; see `{context.command_path} --help`"


def _one_line(error: BaseException) -> str:
    """As `graph_ir.errors.one_line`, without onnx, whose import may be what failed."""
    folded = " ".join(str(error).split())
    return folded if len(folded) <= _LONGEST else folded[: _LONGEST - 3] + "..."


def _place(error: BaseException) -> str:
    """The innermost line of our own code: folder/file.py:line."""
    root = Path(__file__).resolve().parent.parent
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = Path(os.path.realpath(frame.filename))
        if path.is_relative_to(root):
            return f"{path.relative_to(root).as_posix()}:{frame.lineno}"
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
