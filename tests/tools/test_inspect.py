# SPDX-License-Identifier: Apache-2.0
"""`tersor inspect` counts what is there, and says what it assumed or could not count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import parse, save
from tests.support.building import quick
from tests.support.command import tersor

TEXT = """
<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1], producer_name: "hand", producer_version: "1">
g (float[N,4] x, float[1] d = {1.0}) => (float[N,3] y, z)
<float[4,3] w = {seed}, int64[2] s = {1, 3}>
{ m = MatMul(x, w)  a = Add(m, d)  y = Relu(a)  z = com.acme.Secret(y, s) }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with something of everything."""
    save(parse(TEXT), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_for_machines(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    done = tersor(capsys, "inspect", model, "--dim", "N=5", "--json")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert found["ir_version"] == 8
    assert found["opsets"] == {"ai.onnx": 17, "com.acme": 1}
    assert found["producer"] == "hand 1"
    assert found["file_bytes"] == model.stat().st_size
    assert found["inputs"] == [{"name": "x", "type": "float", "shape": ["N", 4]}]
    assert found["inputs_with_default"] == ["d"]
    assert [port["name"] for port in found["outputs"]] == ["y", "z"]
    assert found["outputs"][1]["shape"] is None
    assert found["ops"] == {"MatMul": 1, "Add": 1, "Relu": 1, "com.acme.Secret": 1}
    assert found["macs"] == 5 * 4 * 3
    assert found["weight_types"]["float"] == {"tensors": 2, "bytes": 52}
    assert found["weight_types"]["int64"] == {"tensors": 1, "bytes": 16}
    assert not found["assumed_sizes"]
    assert "operator com.acme.Secret is of a custom domain: 1 left untouched" in found["notes"]


def test_for_people(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    out = tersor(capsys, "inspect", model, "--nodes").out
    assert "IR 8, opset ai.onnx 17, com.acme 1, made by hand 1" in out
    assert "unknown rank" in out
    assert "MACs             at least 12\n" in out  # Secret may have some, too
    assert "note: sizes taken for free dimensions: N=1; say others with --dim" in out
    assert "note: 1 input has a default and could be overridden" in out
    assert "note: operator com.acme.Secret is of a custom domain" in out


def test_external_weights_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,900] x) => (float[2,9] y)'
    save(
        parse(text + " <float[900,9] w = {seed}> { y = MatMul(x, w) }"),
        tmp_path / "m.onnx",
        external_data=True,
    )
    found = json.loads(tersor(capsys, "inspect", tmp_path / "m.onnx", "--json").out)
    assert found["external_files"] == ["m.onnx.data"]
    assert found["file_bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert found["parameters"] == 8100


@pytest.mark.parametrize("dim", ["N", "N=", "=3", "N=0", "N=x", "N=-1"])
def test_wrong_sizes(capsys: pytest.CaptureFixture[str], model: Path, dim: str) -> None:
    done = tersor(capsys, "inspect", model, "--dim", dim)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: --dim takes NAME=SIZE, for example --dim N=8, not {dim!r}\n"


def test_a_size_is_given_once(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    done = tersor(capsys, "inspect", model, "--dim", "N=2", "--dim", "N=3")
    assert (done.code, done.err) == (2, "error: --dim 'N=3': the size of 'N' is given already\n")


def test_an_unknown_dimension_is_named_with_those_there_are(
    capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    done = tersor(capsys, "inspect", model, "--dim", "M=3")
    assert done.code == 2
    assert done.err == "error: no free dimension of an input is called 'M'; it has N\n"


def test_a_dimension_without_a_name_goes_by_input_and_axis(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[?,4] x) => (float[?,3] y)'
    save(parse(text + " <float[4,3] w = {seed}> { y = MatMul(x, w) }"), tmp_path / "m.onnx")
    assert "sizes taken for free dimensions: x.0=1;" in tersor(capsys, "inspect", tmp_path / "m.onnx").out
    found = json.loads(tersor(capsys, "inspect", tmp_path / "m.onnx", "--dim", "x.0=5", "--json").out)
    assert (found["macs"], found["macs_unknown_nodes"], found["assumed_sizes"]) == (60, 0, {})


def test_free_sizes_are_those_of_a_build(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,T,?,4] x) => (float[N,T,S,3] y)'
    save(parse(text + " <float[4,3] w = {seed}> { y = MatMul(x, w) }"), tmp_path / "m.onnx")
    found = json.loads(tersor(capsys, "inspect", tmp_path / "m.onnx", "--json").out)
    assert found["assumed_sizes"] == {"N": 1, "T": 64, "x.2": 64}
    result = quick(tmp_path / "m.onnx", tmp_path / "plain")
    assert found["macs"] == result.facts["original"].macs == 64 * 64 * 4 * 3
    assert "MACs are of one run with N=1, T=64, x.2=64" in result.notes
    np.savez(tmp_path / "d.npz", x=np.ones((3, 5, 7, 4), np.float32))
    result = quick(tmp_path / "m.onnx", tmp_path / "data", data=str(tmp_path / "d.npz"), recipe="lossless")
    assert result.facts["original"].macs == 5 * 7 * 4 * 3


def test_what_is_not_counted_is_said_in_few_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = "".join(f" a{i} = com.acme.Secret(x) b{i} = MatMul(a{i}, w)" for i in range(9))
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]> g (float[2,4] x) => (float[2,3] y)
        <float[4,3] w = {{seed}}> {{ y = MatMul(x, w) {nodes} }}"""
    save(parse(text), tmp_path / "m.onnx")
    out = tersor(capsys, "inspect", tmp_path / "m.onnx").out
    assert "MACs             at least 24\n" in out
    assert out.count("note: not counted: ") == 5
    assert " more not counted; --json lists them" in out
