# SPDX-License-Identifier: Apache-2.0
"""Ranges in files and in models, and refused where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tersor.analysis.evaluate import Evaluator
from tersor.calibration import Ranges, TensorRange
from tersor.graph_ir import DataError, Model, fingerprint, load, parse, save

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { h = Mul(x, w)  y = Relu(h) }
"""


def made(model: Model) -> Ranges:
    values = {
        "x": TensorRange(-1.0, 2.5, -1.0, 3.0, 8, "mse", 0.1, 0.9),
        "h": TensorRange(0.0, 0.1 + 0.2, 0.0, 1e300, 8, "mse", unsafe="2 infinite values"),
        "y": TensorRange(0.0, 0.0, 0.0, 0.0, 8, "mse", 0.0, 0.0),
    }
    return Ranges(fingerprint(model), values, "asymmetric-8", 4, "d.npz")


def test_files_keep_everything_and_are_deterministic(tmp_path: Path) -> None:
    ranges = made(parse(TEXT))
    ranges.save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json") == ranges
    first = (tmp_path / "r.json").read_bytes()
    Ranges.load(tmp_path / "r.json").save(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    assert ranges.get("x") is ranges.values["x"]
    assert ranges.get("z") is None


def test_a_calibrated_model_is_one_file_that_still_runs(tmp_path: Path) -> None:
    model = parse(TEXT)
    ranges = made(model)
    assert Ranges.stored(model) is None
    ranges.store(model)
    assert fingerprint(model) == ranges.fingerprint
    save(model, tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert Ranges.stored(again) == ranges
    x = np.array([1, -1], np.float32)
    assert Evaluator(again).run({"x": x})["y"].tolist() == [1, 0]
    fewer = Ranges(ranges.fingerprint, {"x": ranges.values["x"]})
    fewer.store(again)
    assert Ranges.stored(again) == fewer


def test_stale_ranges_are_refused_naming_both_fingerprints() -> None:
    model, other = parse(TEXT), parse(TEXT.replace("{1, 2}", "{1, 3}"))
    ranges = made(model)
    ranges.check(model)
    with pytest.raises(DataError, match=f"{fingerprint(model)}.*{fingerprint(other)}"):
        ranges.check(other)
    with pytest.raises(DataError, match="calibrate"):
        ranges.store(other)
    ranges.store(model)
    node = next(iter(model.graph))
    node.outputs[0].name = "renamed"
    with pytest.raises(DataError, match="'h'"):
        ranges.check(model)
    for value in other.graph.inputs:
        other.metadata_props.update(model.metadata_props)
        value.metadata_props.update(model.graph.inputs[0].metadata_props)
    with pytest.raises(DataError, match=fingerprint(other)):
        Ranges.stored(other)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', '{"format": 99, "fingerprint": "a", "values": {}}', "nonsense"],
)
def test_wrong_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="file of ranges") as caught:
        Ranges.load(tmp_path / "r.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        Ranges.load(tmp_path / "missing.json")


def test_wrong_entries(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    made(parse(TEXT)).save(path)
    for change in ({"lo": 1.0}, {"hi": float("nan")}, {"colour": 1}, {"lo": None}):
        document = json.loads(path.read_text())
        document["values"]["x"].update(change)
        (tmp_path / "w.json").write_text(json.dumps(document))
        with pytest.raises(DataError):
            Ranges.load(tmp_path / "w.json")
