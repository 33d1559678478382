# SPDX-License-Identifier: Apache-2.0
"""`tersor sensitivity` on the example network, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import load, parse, save
from tersor.graph_ir.ops import label, walk_nodes
from tests.support.building import DIGITS
from tests.support.command import tersor

MODEL, DATA = DIGITS / "digits.onnx", DIGITS / "calib.npz"


@pytest.mark.parametrize(("per", "kinds"), [("region", {"region"}), ("tensor", {"activation", "weight"})])
def test_the_json_holds_every_part(capsys: pytest.CaptureFixture[str], per: str, kinds: set[str]) -> None:
    asked = ("--data", DATA, "--per", per, "--samples", "8", "--runs", "2", "--json")
    found = json.loads(tersor(capsys, "sensitivity", MODEL, *asked).out)
    assert (found["per"], found["form"], found["observer"], found["samples"]) == (per, "int8 mse", "mse", 2)
    assert {part["kind"] for part in found["parts"]} == kinds
    assert found["parts"][-1]["cumulative"] == pytest.approx(1, abs=1e-5)
    assert all(part["output"] == "logits" for part in found["parts"])
    assert min(part["sqnr_db"] for part in found["parts"]) >= found["together_db"]


def test_the_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--data", DATA, "--samples", "4", "--runs", "1")
    short = tersor(capsys, "sensitivity", MODEL, *asked, "--top", "3").out
    whole = tersor(capsys, "sensitivity", MODEL, *asked, "--all").out
    assert "13 more with --all" in short
    assert "more with" not in whole
    assert len(whole.splitlines()) == len(short.splitlines()) + 12
    assert "of 16 regions make 9" in whole.splitlines()[-2]
    assert whole.splitlines()[-1].startswith("form: int8 mse; where build finds a better one, ")


def test_what_cannot_be_measured_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = tersor(capsys, "sensitivity", MODEL, "--data", DATA, "--per", "layer")
    assert (done.code, done.err) == (2, "error: --per takes region or tensor, not 'layer'\n")
    header = '<ir_version: 8, opset_import: ["": 17]> '
    save(parse(header + "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((2, 4), np.float32))
    done = tersor(capsys, "sensitivity", tmp_path / "m.onnx", "--data", tmp_path / "d.npz")
    assert done.code == 2
    assert done.err == "error: nothing can be int8: the model has no Conv, Gemm or MatMul\n"


def test_parts_are_called_by_what_the_users_model_has(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = {label(node) for node in walk_nodes(load(MODEL))}
    values = {output.name for node in walk_nodes(load(MODEL)) for output in node.outputs}
    asked = ("--data", DATA, "--samples", "4", "--runs", "1")
    regions = json.loads(tersor(capsys, "sensitivity", MODEL, *asked, "--json").out)["parts"]
    assert {part["name"] for part in regions} <= nodes
    assert "/body/body.1/body.1.0/Conv" in {part["name"] for part in regions}
    assert len({part["name"] for part in regions}) == len(regions)
    tensors = tersor(capsys, "sensitivity", MODEL, *asked, "--per", "tensor", "--all").out
    assert "body.2.0.weight " in tensors
    assert "body.2.0.weight (" not in tensors, "the user's own name needs no node beside it"
    assert "/ReduceMean (/ReduceMean)" in tensors
    assert "/Conv_1" not in tensors
    found = json.loads(tersor(capsys, "sensitivity", MODEL, *asked, "--per", "tensor", "--json").out)["parts"]
    assert all(part["node"] in nodes for part in found)
    assert {part["name"] for part in found} & values


def test_a_quantized_model_is_called_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,8] x) => (float[1,8] y)
    <float[8,8] w = {seed}, float[8,8] v = {seed}, float s = {0.05}, int8 z = {0}>
    { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) h = MatMul(d, w) y = MatMul(h, v) }"""
    save(parse(text), tmp_path / "m.onnx")
    asked = ("sensitivity", tmp_path / "m.onnx", "--data", "random")
    said = tersor(capsys, *asked).out.splitlines()[-1]
    assert said.startswith(
        "note: the model is quantized already: the figures are of what int8 would cost on top"
    )
    assert json.loads(tersor(capsys, *asked, "--json").out)["notes"] == [said.removeprefix("note: ")]
