# SPDX-License-Identifier: Apache-2.0
"""What is measured on the model behind an accuracy method, and what is known of it already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.calibration.data import open_feeds
from tersor.graph_ir import load, save
from tersor.pipeline.builder.form import Form, plain
from tersor.pipeline.builder.ground import Ground
from tersor.pipeline.builder.settings import BuildSettings
from tersor.pipeline.spec import parse
from tests.support.int8 import graph

TEXT = "c = Conv(x, w, b) r = Relu(c) y = Conv(r, v)"
WEIGHTS = "float[16,8,3,3] w = {seed}, float[16] b = {seed}, float[6,16,3,3] v = {seed}"


@pytest.mark.parametrize(
    ("method", "moved"),
    [("adaptive-rounding", False), ("smooth-quant{between-layers}", True), ("equalize", True)],
)
def test_values_that_a_method_moves_are_measured_again(tmp_path: Path, method: str, moved: bool) -> None:
    """Also where the method reads no measurements, or takes those that it has read out of the facts."""
    save(graph(TEXT, WEIGHTS, x="1,8,8,8", y="1,6,4,4"), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((6, 8, 8, 8)).astype(np.float32))
    feeds = open_feeds(str(tmp_path / "calib.npz"), load(tmp_path / "m.onnx"))
    before = Ground(tmp_path / "m.onnx", feeds, BuildSettings(tmp_path / "m.onnx", tmp_path / "out"))
    form: Form = plain("u8s8")
    known = before.ranges(form)
    after = before.after(parse(method), tmp_path / "after.onnx")
    assert after is not None
    alone = Ground(tmp_path / "after.onnx", feeds, BuildSettings(tmp_path / "m.onnx", tmp_path / "out"))
    for value in ("r", "y"):
        assert after.ranges(form)[value].hi == pytest.approx(alone.ranges(form)[value].hi, rel=0.02)
    assert (after.ranges(form)["r"].hi != known["r"].hi) is moved
