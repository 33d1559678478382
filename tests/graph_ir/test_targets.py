# SPDX-License-Identifier: Apache-2.0
"""Where models may be written: under names of models, and over nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tersor.graph_ir import UsageError, fingerprint, load, parse, save, to_proto

WEIGHTS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] a = {seed}, float[2] c = {seed}> { y = MatMul(x, a) }"""


@pytest.mark.parametrize("name", ["m", "m.txt", "m.onnx.data", "m.npz", "m.py"])
def test_a_model_is_written_under_names_of_models_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"does not end in \.onnx; give such a name, or one of \.onnxtxt"):
        save(parse(WEIGHTS), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_what_is_no_model_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "mine"}')
    with pytest.raises(UsageError, match=r"package\.json' is there already and is no model"):
        save(parse(WEIGHTS), tmp_path / "package.json")
    (tmp_path / "empty.json").touch()
    for name in ("empty.json", "m.json", "m.pbtxt", "m.ONNX", ".onnx"):
        for _ in range(2):
            save(parse(WEIGHTS), tmp_path / name)
        assert fingerprint(load(tmp_path / name)) == fingerprint(parse(WEIGHTS))
    assert (tmp_path / "package.json").read_text() == '{"name": "mine"}'


def test_weights_of_others_and_those_in_use_are_not_replaced(tmp_path: Path) -> None:
    save(parse(WEIGHTS), tmp_path / "m.onnx", external_data=True)
    (tmp_path / "m.onnx").rename(tmp_path / "other.onnx")
    kept = (tmp_path / "m.onnx.data").read_bytes()
    for model in (parse(WEIGHTS, seed=1), load(tmp_path / "other.onnx")):
        with pytest.raises(UsageError, match=r"m\.onnx\.data' is there already and is not of '.*m\.onnx'"):
            save(model, tmp_path / "m.onnx", external_data=True)
    onnx.save(to_proto(parse(WEIGHTS)), tmp_path / "n.onnx", save_as_external_data=True, location="w.onnx")
    with pytest.raises(UsageError, match=r"w\.onnx' holds weights of the model"):
        save(load(tmp_path / "n.onnx"), tmp_path / "w.onnx", external_data=False)
    assert (tmp_path / "m.onnx.data").read_bytes() == kept
    assert fingerprint(load(tmp_path / "n.onnx")) == fingerprint(parse(WEIGHTS))


def test_no_file_of_weights_is_made_where_none_is_large(tmp_path: Path) -> None:
    small = parse('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    save(small, tmp_path / "m.onnx", external_data=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]
