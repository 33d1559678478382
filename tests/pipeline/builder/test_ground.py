# SPDX-License-Identifier: Apache-2.0
"""What is measured on a float model is measured in as few runs as can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tersor.calibration import open_feeds, visit
from tersor.graph_ir import load
from tersor.pipeline.builder import BuildSettings
from tersor.pipeline.builder.ground import Ground
from tests.support import odd_models


def test_known_sizes_are_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: shapes that the file does not hold were found out by a run for every few values."""
    path = tmp_path / "m.onnx"
    onnx.save(odd_models.conv_net(batch="N"), path)
    opened: list[object] = []
    evaluator = visit.Evaluator

    def counted(*args: Any, **options: Any) -> object:
        opened.append(options["outputs"])
        return evaluator(*args, **options)

    monkeypatch.setattr(visit, "Evaluator", counted)
    feeds = open_feeds("random:1:2", load(path))
    assert Ground(path, feeds, BuildSettings(path, tmp_path / "out")).means
    assert len(opened) == 1
