# SPDX-License-Identifier: Apache-2.0
"""Kernel times find their source nodes, whatever the runtime called the kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.backends.onnxruntime.profile import profile
from tersor.graph_ir import DataError
from tests.support.qdq_models import Qdq


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    g = Qdq([1, 16, 16, 16])
    tensor = g.qdq(g.op("Relu", g.conv(g.qdq("x"), 16, 16, name="stem"), name="relu"))
    tensor = g.qdq(g.conv(tensor, 16, 16, name="body"))
    return g.model(g.op("HardSwish", tensor, name="swish"))


FEEDS = [{"x": np.ones((1, 16, 16, 16), np.float32)}]


def test_rows_name_sources_kernels_and_shares(model: onnx.ModelProto) -> None:
    found = profile(model, FEEDS, runs=3, warmup=1)
    by_kernel = {row.sources: row.kernel for row in found.rows if row.kernel == "QLinearConv"}
    assert by_kernel == {("stem",): "QLinearConv", ("body",): "QLinearConv"}
    assert {row.kernel for row in found.rows if row.sources == ("swish",)} == {"HardSigmoid", "Mul"}
    assert [row.calls for row in found.rows if row.sources == () and row.kernel == "Transpose"] == [2]
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)
    assert sum(row.time_us for row in found.rows) == pytest.approx(found.total_us)
    assert [row.time_us for row in found.rows] == sorted((row.time_us for row in found.rows), reverse=True)
    assert found.runs == 3


def test_origins_lead_further_back(model: onnx.ModelProto) -> None:
    found = profile(model, FEEDS, runs=2, origins={"stem": ["conv1", "bn1"], "body": ["conv2"]})
    names = {row.sources for row in found.rows if row.kernel == "QLinearConv"}
    assert names == {("conv1", "bn1"), ("conv2",)}


def test_origins_in_the_file_are_used(model: onnx.ModelProto) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = 10
    stem = next(node for node in copy.graph.node if node.name == "stem")
    stem.metadata_props.add(key="tersor.origins", value="conv1\nbn1")
    names = {row.sources for row in profile(copy, FEEDS, runs=2).rows}
    assert ("conv1", "bn1") in names


def test_a_profile_leaves_nothing_behind(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = model.SerializeToString()
    assert profile(model, FEEDS, runs=1).runs == 1
    assert list(tmp_path.iterdir()) == []
    assert model.SerializeToString() == before


def test_no_feed_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(DataError, match="at least one feed"):
        profile(model, [])
