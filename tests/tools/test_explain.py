# SPDX-License-Identifier: Apache-2.0
"""`tersor explain` on what `tersor build` makes of the example network, and on models tersor never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tersor.calibration import open_feeds
from tersor.graph_ir import load, parse, save
from tersor.graph_ir.ops import label
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.pipeline.builder import BuildSettings
from tersor.pipeline.builder.form import Form
from tersor.pipeline.builder.workshop import Workshop
from tests.support.building import DIGITS
from tests.support.command import tersor

MODEL, DATA = DIGITS / "digits.onnx", DIGITS / "calib.npz"
QUICK = ("--samples", "2", "--runs", "2")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in int8, as a build makes it."""
    folder = tmp_path_factory.mktemp("built")
    shop = Workshop(BuildSettings(MODEL, folder, data=str(DATA), samples=8), folder)
    shop.calibrate_with(open_feeds(str(DATA), load(MODEL), limit=8))
    made = shop.static(Form("minmax", InsertQdq()))
    assert made is not None
    return made.path


def explained(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    return json.loads(tersor(capsys, "explain", *words, *QUICK, "--json").out)


def test_every_original_node_is_told_of(capsys: pytest.CaptureFixture[str], built: Path) -> None:
    found = explained(capsys, built, "--original", MODEL, "--data", DATA)
    nodes = {node["node"]: node for node in found["nodes"]}
    originals = [label(node) for node in load(MODEL).graph if node.op_type != "Constant"]
    assert list(nodes) == originals
    assert found["weights_dequantized_each_run"] == []
    assert (found["linear_int8"], found["linear_nodes"]) == (12, 13)
    assert 0.3 < found["int8_time_share"] <= 1
    stem, second = nodes["/body/body.0/body.0.0/Conv"], nodes["/body/body.1/body.1.0/Conv"]
    assert (stem["precision"], stem["reason"][:18]) == ("float", "it is the stem: wi")
    assert (second["precision"], second["kernel"]) == ("int8", "QLinearConv")
    norm = nodes["/body/body.1/body.1.1/BatchNormalization"]
    assert (norm["fused_into"], norm["precision"]) == (second["node"], "int8")


def test_errors_grow_from_nothing_in_the_float_stem(capsys: pytest.CaptureFixture[str], built: Path) -> None:
    found = explained(capsys, built, "--original", MODEL, "--data", DATA)
    errors = {node["node"]: node["sqnr_db"] for node in found["nodes"]}
    assert errors["/body/body.0/body.0.0/Conv"] > 100
    assert 25 < errors["/body/body.1/body.1.0/Conv"] < 60
    assert 25 < errors["/classify/Gemm"] < 60
    assert errors["/Div"] is None


def test_without_data_feeds_are_drawn_and_it_is_said(capsys: pytest.CaptureFixture[str], built: Path) -> None:
    found = explained(capsys, built)
    assert found["data"] is None
    assert {node["sqnr_db"] for node in found["nodes"]} == {None}
    text = tersor(capsys, "explain", built, *QUICK).out
    assert "runs on inputs drawn at random" in text
    assert "no weight is dequantized at run time" in text
    assert "12 of 13 linear nodes" in text


def test_a_float_model_nobody_quantized(capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, MODEL)
    assert found["linear_int8"] == found["int8_time_share"] == 0
    nodes = {node["node"]: node for node in found["nodes"]}
    assert nodes["/body/body.1/body.1.0/Conv"]["kernel"] == "nchwc.Conv"
    assert nodes["/body/body.1/body.1.1/BatchNormalization"]["precision"] in ("float", "gone")


def test_a_weight_that_is_dequantized_in_every_run_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1,4,5,5] x) => (float[1,4,3,3] y)
    <int8[4,4,3,3] codes = {seed}, float scale = {0.1}, int8 zero = {0}>
    {
      w = DequantizeLinear (codes, scale, zero)
      y = Conv (x, w)
    }
    """
    save(parse(text), tmp_path / "m.onnx")
    found = explained(capsys, tmp_path / "m.onnx")
    assert found["weights_dequantized_each_run"] == [
        {"initializer": "codes", "elements": 144, "readers": ["Conv(y)"]}
    ]
    assert (
        "dequantized in every run: codes (144 B of codes), read by Conv(y)"
        in tersor(capsys, "explain", tmp_path / "m.onnx", *QUICK).out
    )


def test_the_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str], built: Path) -> None:
    short = tersor(capsys, "explain", built, "--top", "2", *QUICK).out
    assert "more nodes with --all" in short
    assert "more nodes with --all" not in tersor(capsys, "explain", built, "--all", *QUICK).out


def test_what_is_no_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = tersor(capsys, "explain", tmp_path / "none.onnx")
    assert done.code == 2
    assert done.err.startswith("error: no such file")


def test_an_original_that_shares_no_node_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    header = '<ir_version: 8, opset_import: ["": 17]> '
    other = tmp_path / "other.onnx"
    save(parse(header + "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }"), other)
    done = tersor(capsys, "explain", MODEL, "--original", other, *QUICK)
    assert done.code == 2
    assert done.err == (
        f"error: no node of {MODEL} stands for one of {other}; --original takes the model it was made from\n"
    )


def test_models_the_other_way_round_are_refused(capsys: pytest.CaptureFixture[str], built: Path) -> None:
    done = tersor(capsys, "explain", MODEL, "--original", built, *QUICK)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {built} was made from {MODEL}: give them the other way round\n"
    assert tersor(capsys, "explain", built, "--original", built, *QUICK).code == 0


@pytest.mark.parametrize("command", ["explain", "bench"])
def test_a_model_that_does_not_run_on_drawn_inputs_asks_for_real_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,5] x, int64[1] i) => (float[1,2] y)
        <float[1,2] table = {seed}> { m = Identity(x) two = Add(i, i) r = Add(two, i) k = Add(r, two)
        five = Add(k, k) y = Gather(table, five) }"""
    save(parse(text), tmp_path / "m.onnx")
    done = tersor(capsys, command, tmp_path / "m.onnx")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "Gather" in done.err
    assert "tersor_kernel" not in done.err
    assert done.err.endswith("; inputs were drawn at random, give real ones with --data\n")
