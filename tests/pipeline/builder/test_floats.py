# SPDX-License-Identifier: Apache-2.0
"""Models of 16 bits or float64 get a float32 form, and int8 from there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tersor.backends.base import BackendError
from tersor.graph_ir import load, save, signature_of
from tersor.pipeline.builder import BuildResult
from tersor.pipeline.manager import run
from tersor.pipeline.spec import parse
from tests.support import odd_models
from tests.support.building import check, quick, steady


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    steady(monkeypatch)


def built(proto: onnx.ModelProto, folder: Path, **options: Any) -> BuildResult:
    onnx.save(proto, folder / "m.onnx")
    result = quick(folder / "m.onnx", folder / "out", **options)
    check(result, folder / "m.onnx", proto)
    assert signature_of(load(folder / "out" / "model.onnx")) == signature_of(load(folder / "m.onnx"))
    return result


def test_a_half_model_has_a_float32_form_and_int8(tmp_path: Path) -> None:
    result = built(odd_models.conv_net(np.float16), tmp_path, data="random:1:8")
    assert "float32" in result.judged
    assert result.winner.quantized
    assert "to-float" in result.winner.pipeline
    assert not any("no int8" in note for note in result.notes)
    nodes = Counter(node.op_type for node in load(tmp_path / "out" / "model.onnx").graph)
    assert nodes["QuantizeLinear"]


def test_without_data_half_becomes_float32_and_double_stays(tmp_path: Path) -> None:
    half = built(odd_models.conv_net(np.float16), tmp_path)
    candidate, judgement = half.judged["float32"]
    assert judgement.accepted
    assert "fp64" not in candidate.pipeline
    assert "float32" not in built(odd_models.double(), tmp_path).judged


def test_with_data_double_becomes_float32(tmp_path: Path) -> None:
    result = built(odd_models.double(), tmp_path, data="random:1:8")
    _, judgement = result.judged["float32"]
    assert judgement.accepted
    assert judgement.closeness_db > 60


def test_a_model_without_kernels_is_refused_with_the_way_round(tmp_path: Path) -> None:
    onnx.save(odd_models.conv_net(np.float64), tmp_path / "m.onnx")
    with pytest.raises(BackendError, match="--passes infer-shapes,to-float"):
        quick(tmp_path / "m.onnx", tmp_path / "out", data="random:1:2")
    model = load(tmp_path / "m.onnx")
    run(parse("infer-shapes,to-float"), model)
    save(model, tmp_path / "float.onnx")
    quick(tmp_path / "float.onnx", tmp_path / "out")


def test_float32_models_and_named_passes_have_no_such_form(tmp_path: Path) -> None:
    assert "float32" not in built(odd_models.conv_net(), tmp_path, data="random:1:8").judged
    named = built(odd_models.conv_net(np.float16), tmp_path, data="random:1:8", passes="eliminate-identity")
    assert "float32" not in named.judged
