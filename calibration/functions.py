# SPDX-License-Identifier: Apache-2.0
"""User code named as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ..graph_ir import DataError, TersorError, UsageError, a_kind, one_line

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def names_function(text: str) -> bool:
    """Whether `text` has the form ``module:function``."""
    return _NAME.fullmatch(text) is not None


def load_function(text: str) -> Callable[..., Any]:
    """Import ``module:function``; the current folder is on the search path, as with ``python -m``.

    Raises:
        UsageError: when the text has another form, the module or function is missing, or it is not callable.
        DataError: when the module fails while it is imported.
    """
    if not names_function(text):
        raise UsageError(f"{text!r} is not of the form module:function")
    module_name, _, path = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # stays: the function may import its neighbours when it runs
    with user_code(f"{text!r}: importing {module_name!r}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name + ".").startswith(error.name + "."):
                mend = "; leave out .py" if module_name.endswith(".py") else ""
                raise UsageError(
                    f"{text!r}: no module {error.name!r} in {here} or on PYTHONPATH{mend}"
                ) from error
            raise UsageError(f"{text!r}: importing {module_name!r} failed: {error}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise UsageError(f"{text!r}: module {module_name!r} has no {path!r}")
    if not callable(found):
        raise UsageError(f"{text!r} is {a_kind(found)}, not a function")
    return found


class UserCodeError(DataError):
    """Code that is not ours failed; its own trace tells more than the line."""

    in_users_code = True


@contextmanager
def user_code(what: str) -> Generator[None]:
    """Turn whatever code that is not ours raises into one line that names it.

    So are our own complaints of data, say of what it feeds to a model; our other errors pass through.

    What it prints goes to standard error: standard output is for results.

    Args:
        what: how the message begins: what was running.

    Raises:
        DataError: for any exception, and for an attempt to end the process; a `UserCodeError` where a trace
            tells more.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
    except TersorError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {one_line(error, 300)}".rstrip(": ")
        raise UserCodeError(f"{what} failed: {said}") from error
