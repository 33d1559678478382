# SPDX-License-Identifier: Apache-2.0
"""JSON that comes from outside: an object, or one line on what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from .errors import DataError, TersorError, a_kind, one_line


def parse_object(text: str, where: str, error: type[TersorError] = DataError) -> dict[str, Any]:
    """The object that a JSON text holds.

    Args:
        text: from anywhere.
        where: what a message calls it.
        error: what is raised.

    Raises:
        TersorError: of the kind asked for; the text is no JSON, is nested too deeply, or holds no object.
    """
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise error(f"{where} is not JSON: {one_line(cause)}") from cause
    if not isinstance(found, dict):
        raise error(f"{where} holds no JSON object, but {a_kind(found)}")
    return cast("dict[str, Any]", found)


def read_object(
    path: str | os.PathLike[str], where: str = "", error: type[TersorError] = DataError
) -> dict[str, Any]:
    """The object that a JSON file holds; see `parse_object`.

    Args:
        path: the file.
        where: what a message calls it; by default its path.
        error: what is raised.

    Raises:
        TersorError: of the kind asked for; also where the file cannot be read, or is no text.
    """
    where = where or repr(str(path))
    return parse_object(read_text(path, where, error), where, error)


def read_text(path: str | os.PathLike[str], where: str, error: type[TersorError] = DataError) -> str:
    """The text of a file.

    Raises:
        TersorError: of the kind asked for; the file cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as cause:
        raise error(f"cannot read {where}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{where} is no text") from cause
