# SPDX-License-Identifier: Apache-2.0
"""Accuracy methods in recipes: what they read is measured for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.calibration import open_feeds
from tersor.graph_ir import UsageError, load, save
from tersor.pipeline.build import BuildSettings, build
from tersor.pipeline.build.accuracy import Judge
from tersor.pipeline.build.follow import follow
from tersor.pipeline.build.measured import wanted_by
from tersor.pipeline.build.result import Candidate
from tersor.pipeline.recipe import parse_recipe
from tersor.pipeline.spec import parse
from tests.support.int8 import graph

BODY = """c = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(c) d = Conv<pads=[1,1,1,1]>(r, w2) s = Relu(d)
    g = GlobalAveragePool(s) f = Flatten(g) y = Gemm<transB=1>(f, w3)"""
WEIGHTS = """float[16,8,3,3] w1 = {seed}, float[16] b1 = {seed}, float[16,16,3,3] w2 = {seed},
    float[4,16] w3 = {seed}"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    save(graph(BODY, WEIGHTS, x="1,8,8,8", y="1,4"), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((12, 8, 8, 8)).astype(np.float32))
    return tmp_path


def built(work: Path, *steps: str) -> onnx.ModelProto:
    """What a recipe of these steps makes; the recipe's candidate even when it is not the fastest."""
    text = "recipe = 1\n" + "\n".join(f"[[step]]\n{step}" for step in steps)
    settings = BuildSettings(model=work / "m.onnx", out=work / "out", data=str(work / "calib.npz"))
    feeds = open_feeds(str(work / "calib.npz"), load(work / "m.onnx"))
    judge = Judge(Candidate("original", work / "m.onnx", ""), list(feeds)[:2], settings)
    made, _ = follow(parse_recipe(text), settings, feeds, work, judge=judge)
    return onnx.load(made.path)


@pytest.mark.parametrize(
    "method", ["adaptive-rounding", "gptq", "gptq{bits=7}", "smooth-quant{between-layers}", "equalize"]
)
def test_a_recipe_measures_what_its_passes_read(work: Path, method: str) -> None:
    moved = method.startswith(("smooth", "equalize"))
    again = ['calibrate = { observer = "mse" }'] if moved else []
    plain = built(work, 'calibrate = { observer = "mse" }', 'passes = "insert-qdq"')
    made = built(
        work, 'calibrate = { observer = "mse" }', f'passes = "{method}"', *again, 'passes = "insert-qdq"'
    )
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in plain.graph.node]
    codes = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    before = [t for t in plain.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert any(a.raw_data != b.raw_data for a, b in zip(codes, before, strict=True))


def test_ranges_of_another_model_are_not_used(work: Path) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        built(work, 'calibrate = { observer = "mse" }', 'passes = "equalize,insert-qdq"')


def test_what_passes_want() -> None:
    wanted, guard = wanted_by([parse("(gptq)!"), parse("to-half,smooth-quant")])
    assert {"second-moments", "channel-maxima"} <= wanted
    assert guard
    assert wanted_by([parse("equalize")]) == (set(), False)


def test_to_half_keeps_what_overflows_float32(tmp_path: Path) -> None:
    text = "c = MatMul(x, w1) d = Mul(c, big) e = Mul(d, small) y = MatMul(e, w2)"
    weights = """float[8,8] w1 = {seed}, float[8,8] w2 = {seed}, float[1] big = {20000.0},
        float[1] small = {0.0005}"""
    save(graph(text, weights, x="4,8", y="4,8"), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((12, 8)).astype(np.float32))
    made = built(tmp_path, 'calibrate = { observer = "minmax" }', 'passes = "to-half"')
    ops = [n.op_type for n in made.graph.node]
    assert ops == ["Cast", "MatMul", "Cast", "Mul", "Mul", "Cast", "MatMul", "Cast"]


def test_a_build_follows_such_a_recipe(work: Path) -> None:
    (work / "r.toml").write_text(
        'recipe = 1\n[[step]]\npreset = "lossless"\n[[step]]\ncalibrate = { observer = "mse" }\n'
        '[[step]]\npasses = "adaptive-rounding"\n[[step]]\npasses = "insert-qdq"\n'
    )
    settings = BuildSettings(
        model=work / "m.onnx",
        out=work / "out",
        data=str(work / "calib.npz"),
        recipe=str(work / "r.toml"),
        rounds=3,
    )
    result = build(settings)
    assert result.judged["recipe"][1].accepted
