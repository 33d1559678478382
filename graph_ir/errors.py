# SPDX-License-Identifier: Apache-2.0
"""Errors a user sees: one line each, with an exit code a script can use.

Exit codes: 1 a check did not hold (a comparison, a benchmark), 2 wrong input, 3 a fault of tersor itself.
"""

from __future__ import annotations


class TersorError(Exception):
    """Base of all errors meant for people; the message is one line: what is wrong, where, and the mend."""

    exit_code = 2


class ModelError(TersorError):
    """The model file cannot be read, is not valid ONNX, or holds what the IR cannot keep."""


class UnsupportedModelError(ModelError):
    """The model is valid, but holds what the IR cannot keep; it can be copied, not rewritten."""


class DataError(TersorError):
    """Feeds, metrics or measured ranges do not fit the model."""


class UsageError(TersorError):
    """A pass name, an option, a recipe or a command line is wrong."""


class CheckError(TersorError):
    """A check that was asked for did not hold."""

    exit_code = 1


class VerifyError(TersorError):
    """The IR breaks one of its own rules; raised after a pass, it names a fault of that pass."""

    exit_code = 3


class ClaimError(TersorError):
    """A pass changed the numbers more than its declared exactness allows."""

    exit_code = 3


def a_kind(given: object) -> str:
    """What kind of thing was given, with its article: "an int", "a list"."""
    name = type(given).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def one_line(text: object, limit: int = 400) -> str:
    """Fold any text (an upstream error message) to one line of at most `limit` characters."""
    if isinstance(text, Exception) and len(text.args) == 1 and isinstance(text.args[0], bytes):
        text = text.args[0].decode(errors="replace")  # as those of onnx's parser are
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."
