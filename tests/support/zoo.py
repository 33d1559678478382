# SPDX-License-Identifier: Apache-2.0
"""The zoo of real models, where a checkout has one; tests that need it skip in sight elsewhere."""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray


def zoo_folder() -> Path:
    """The folder named by TERSOR_ZOO, or the one beside the checkout (which may not exist)."""
    named = os.environ.get("TERSOR_ZOO")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "zoo"


def zoo_models() -> list[Any]:
    """One pytest parameter per model of the zoo; a single skipped one where there is no zoo."""
    found = sorted((zoo_folder() / "models").glob("*.onnx"))
    if not found:
        return [
            pytest.param(
                None, marks=pytest.mark.skip(reason="no zoo: set TERSOR_ZOO to its folder"), id="zoo"
            )
        ]
    return [pytest.param(path, id=path.stem) for path in found]


@cache
def _evaluate() -> Any:
    spec = importlib.util.spec_from_file_location("zoo_evaluate", zoo_folder() / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def zoo_feed(path: Path) -> dict[str, NDArray[Any]]:
    """The first calibration feed of a zoo model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its script leaves files to the collector and scores these few
        feeds: list[dict[str, NDArray[Any]]] = _evaluate().feeds(str(path), limit=2)
    return feeds[0]
