# SPDX-License-Identifier: Apache-2.0
"""User code named as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..graph_ir import UsageError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def names_function(text: str) -> bool:
    """Whether `text` has the form ``module:function``."""
    return _NAME.fullmatch(text) is not None


def load_function(text: str) -> Callable[..., Any]:
    """Import ``module:function``; the current folder is on the search path, as with ``python -m``.

    Raises:
        UsageError: when the text has another form, the module or function is missing, or it is not callable.
    """
    if not names_function(text):
        raise UsageError(f"{text!r} is not of the form module:function")
    module_name, _, path = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # stays: the function may import its neighbours when it runs
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise UsageError(f"{text!r}: no module {error.name!r} in {here} or on PYTHONPATH") from error
        raise UsageError(f"{text!r}: importing {module_name!r} failed: {error}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise UsageError(f"{text!r}: module {module_name!r} has no {path!r}")
    if not callable(found):
        raise UsageError(f"{text!r} is a {type(found).__name__}, not a function")
    return found
