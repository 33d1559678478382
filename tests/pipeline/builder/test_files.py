# SPDX-License-Identifier: Apache-2.0
"""The files that a written model is made of."""

from __future__ import annotations

from pathlib import Path

from tersor.graph_ir import Model, save
from tersor.pipeline.builder.files import written_files
from tersor.pipeline.builder.lock import hash_files
from tests.support.prune_build import build


def model(seed: int = 0) -> Model:
    return build("y = MatMul(x, w)", "w 300,200", x="float[1,300] x", y="float[1,200] y", seed=seed)


def test_weights_beside_a_model_are_told_apart(tmp_path: Path) -> None:
    hashes: set[str] = set()
    for seed in (0, 1):
        path = tmp_path / "model.onnx"
        save(model(seed), path, external_data=True)
        assert written_files(path) == [path, tmp_path / "model.onnx.data"]
        hashes.add(hash_files(written_files(path)))
    assert len(hashes) == 2


def test_a_model_that_holds_its_weights_is_one_file(tmp_path: Path) -> None:
    save(model(), tmp_path / "model.onnx")
    assert written_files(tmp_path / "model.onnx") == [tmp_path / "model.onnx"]
