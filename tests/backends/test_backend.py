# SPDX-License-Identifier: Apache-2.0
"""The onnxruntime backend behind the common protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.backends.base import Backend
from tersor.backends.onnxruntime.backend import OnnxRuntimeBackend
from tersor.backends.onnxruntime.config import SessionConfig
from tersor.graph_ir import ModelError, fingerprint, from_proto
from tests.support.qdq_models import Qdq

FEED = {"x": np.ones((1, 16, 8, 8), np.float32)}


def test_emit_open_run_profile(tmp_path: Path) -> None:
    g = Qdq([1, 16, 8, 8])
    model = from_proto(g.model(g.qdq(g.conv(g.qdq("x"), 16, 16, name="conv"))))
    backend: Backend = OnnxRuntimeBackend()
    assert backend.available() is None
    assert all(backend.supports(node) for node in model.graph)
    config = SessionConfig({}, ("NhwcTransformer",))
    artifact = OnnxRuntimeBackend().emit(model, tmp_path / "model.onnx", config, pipeline="insert-qdq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "session.json"]
    assert sorted(artifact.files) == sorted(tmp_path.iterdir())
    assert (artifact.fingerprint, artifact.pipeline) == (fingerprint(model), "insert-qdq")
    with backend.open(artifact) as session:
        assert session.run(FEED)[0].shape == (1, 16, 8, 8)
    kernels = {row.kernel for row in backend.profile(artifact, [FEED]).rows}
    # The artifact's own options were used: no change of layout was made.
    assert "QLinearConv" in kernels
    assert "Transpose" not in kernels


def test_emit_into_no_folder_leaves_nothing(tmp_path: Path) -> None:
    g = Qdq([2])
    model = from_proto(g.model(g.op("Neg", "x")))
    with pytest.raises(ModelError, match="cannot write"):
        OnnxRuntimeBackend().emit(model, tmp_path / "none" / "model.onnx")
    assert list(tmp_path.iterdir()) == []
