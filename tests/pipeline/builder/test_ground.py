# SPDX-License-Identifier: Apache-2.0
"""What is measured on the model behind an accuracy method, and what is known of it already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.calibration.data import open_feeds
from tersor.graph_ir import Node, Value, constant, load, save
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.pipeline.builder.form import Form, plain
from tersor.pipeline.builder.ground import Ground
from tersor.pipeline.builder.settings import BuildSettings
from tersor.pipeline.builder.workshop import Workshop
from tersor.pipeline.spec import parse
from tests.support.int8 import graph

ROUNDING = "adaptive-rounding{bits=8 sweeps=2}"
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


CHAIN = "a = Conv(x, w, b) r = Relu(a) c = Conv(r, v) s = Relu(c) d = Conv(s, u) y = Relu(d)"
CHAINED = """float[16,3,3,3] w = {seed}, float[16] b = {seed}, float[16,16,3,3] v = {seed},
    float[16,16,3,3] u = {seed}"""


@pytest.mark.parametrize(
    ("options", "floats"),
    [
        (InsertQdq(), {"w"}),
        (InsertQdq(float_stem=False), set[str]()),
        (InsertQdq(exclude=("Conv(c)",)), {"w", "v"}),
    ],
)
def test_weights_that_stay_float_are_not_rounded(
    tmp_path: Path, options: InsertQdq, floats: set[str]
) -> None:
    """Regression: the stem, and layers that went back to float, had the noise of eight bits for nothing."""
    model = graph(CHAIN, CHAINED, x="1,3,16,16", y="1,16,10,10")
    save(model, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((6, 3, 16, 16)).astype(np.float32))
    workshop = Workshop(BuildSettings(tmp_path / "m.onnx", tmp_path / "out"), tmp_path)
    workshop.calibrate_with(open_feeds(str(tmp_path / "calib.npz"), model))
    made = workshop.static(Form("minmax", options, (ROUNDING,)))
    assert made is not None
    assert ("exclude=" in made.pipeline.partition(",infer-shapes,insert-qdq")[0]) == bool(floats)
    weights = {name: _weights(model.graph.initializers[name]) for name in "wvu"}
    left = [found for node in load(made.path).graph if (found := constant(_read(node))) is not None]
    assert len(left) == len(floats)
    for name in floats:
        assert any(np.array_equal(found, weights[name]) for found in left)
    ground = workshop.ground(made.form.methods if isinstance(made.form, Form) else ())
    assert ground is not None
    rounded = [_weights(_read(node)) for node in ground.model().graph if node.op_type == "Conv"]
    moved = [not np.array_equal(found, weights[name]) for found, name in zip(rounded, "wvu", strict=True)]
    assert moved == [name not in floats for name in "wvu"]


def _read(node: Node) -> Value | None:
    """The weights of a convolution."""
    return node.inputs[1] if node.op_type == "Conv" else None


def _weights(value: Value | None) -> NDArray[Any]:
    found = constant(value)
    assert found is not None
    return found
