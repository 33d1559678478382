# SPDX-License-Identifier: Apache-2.0
"""Models that add a number to their input, and a judge of such models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tersor.pipeline.builder.accuracy import Judge
from tersor.pipeline.builder.result import Candidate
from tersor.pipeline.builder.settings import BuildSettings
from tests.support.odd_models import model, port
from tests.support.user_code import HERE, X

FEEDS = [{"x": X}, {"x": 2 * X}]


def shifted(folder: Path, shift: float, name: str = "", outputs: tuple[str, ...] = ("y",)) -> Candidate:
    """y = x + shift."""
    nodes = [helper.make_node("Add", ["x", "shift"], [output]) for output in outputs]
    proto = model(
        nodes, [port("x", [2, 3])], [port(output, [2, 3]) for output in outputs],
        {"shift": np.array(shift, np.float32)},
    )  # fmt: skip
    return saved(proto, folder, name or f"plus {shift}")


def saved(proto: onnx.ModelProto, folder: Path, name: str) -> Candidate:
    path = folder / f"{name}.onnx"
    onnx.save(proto, path)
    return Candidate(name, path)


def judge(
    original: Candidate, metric: str | None = None, feeds: Any = FEEDS, min_sqnr_db: float = 20.0
) -> Judge:
    name = None if metric is None else f"{HERE}:{metric}"
    settings = BuildSettings(
        original.path, original.path.parent / "out", metric=name, min_sqnr_db=min_sqnr_db
    )
    return Judge(original, feeds, settings)
