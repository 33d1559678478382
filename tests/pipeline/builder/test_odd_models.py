# SPDX-License-Identifier: Apache-2.0
"""Models of unusual make: each is built, with data and without, or refused with nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.graph_ir import from_proto, load, parse, signature_of
from tersor.pipeline.builder.model_facts import why_not_int8
from tests.support import odd_models
from tests.support.building import check, default_run, hashes, quick
from tests.support.user_code import HERE

Make = Callable[[], onnx.ModelProto]

WITHOUT_DATA = "without data only the lossless part was done; data would add int8, often twice as fast"

MODELS: dict[str, Make] = {
    "branches": odd_models.branches,
    "dynamic batch": lambda: odd_models.conv_net(batch="N"),
    "default inputs": odd_models.default_inputs,
    "half": lambda: odd_models.conv_net(np.float16),
    "double": odd_models.double,
    "no linear layer": odd_models.without_linear,
    "no inputs": odd_models.no_inputs,
    "one node": odd_models.one_node,
    "odd outputs": odd_models.odd_outputs,
    "quantised output": odd_models.quantised_output,
    "sequences": odd_models.sequences,
    "shared weights": odd_models.conv_net,
    "training": odd_models.training_norm,
    "two inputs": odd_models.embedding_of_many,
}


pytestmark = pytest.mark.usefixtures("work")


@pytest.mark.parametrize("name", MODELS)
def test_built_with_data(tmp_path: Path, name: str, work: Path) -> None:
    proto = MODELS[name]()
    onnx.save(proto, tmp_path / "m.onnx")
    result = quick(tmp_path / "m.onnx", tmp_path / "out", data="random:1:3", samples=3)
    check(result, tmp_path / "m.onnx", proto)
    assert not hashes(work)


@pytest.mark.parametrize("name", MODELS)
def test_built_without_data(tmp_path: Path, name: str) -> None:
    proto = MODELS[name]()
    onnx.save(proto, tmp_path / "m.onnx")
    result = quick(tmp_path / "m.onnx", tmp_path / "out")
    check(result, tmp_path / "m.onnx", proto)
    assert (WITHOUT_DATA in result.notes) == (name != "quantised output")
    assert any("is quantized already" in note for note in result.notes) == (name == "quantised output")


def test_inputs_with_defaults_are_frozen_and_it_is_said(tmp_path: Path) -> None:
    result = quick(odd_models.default_inputs(), tmp_path / "out")
    assert any("frozen" in note for note in result.notes)
    assert [name for name, _, _ in signature_of(load(result.winner.path)).inputs] == ["x"]


def test_nothing_to_quantize_is_said(tmp_path: Path) -> None:
    result = quick(odd_models.one_node(), tmp_path / "out", data="random:1:2")
    assert not any(candidate.quantized for candidate, _ in result.judged.values())
    assert "no int8: the model has no Conv, Gemm or MatMul" in result.notes


def test_data_is_not_gone_through_for_a_model_without_linear_layers(tmp_path: Path) -> None:
    stages: list[str] = []

    def tell(stage: str, _done: int, _total: int | None) -> None:
        stages.append(stage)

    result = quick(odd_models.one_node(), tmp_path / "out", data="random", progress=tell)
    assert "no int8: the model has no Conv, Gemm or MatMul" in result.notes
    assert "calibrating" not in stages
    quick(odd_models.linear(), tmp_path / "out", data="random", progress=tell)
    assert "calibrating" in stages


def test_ids_that_no_drawn_feed_fits_are_no_crash(tmp_path: Path) -> None:
    """Drawn ids are 0 and 1, and one of the tables has a single row."""
    result = quick(odd_models.embedding(), tmp_path / "out")
    assert result.winner.name == "original"
    assert result.why == "original: nothing could be measured"
    assert "the lossless passes found nothing to rewrite" in result.notes
    assert any("so nothing was timed; give data" in note for note in result.notes)
    feed = {"ids": np.full((1, 4), 49), "types": np.zeros((1, 4), np.int64)}
    assert default_run(result.winner.path, feed)[0].shape == (1, 4, 16)


def test_strings_cannot_be_drawn_and_are_no_crash(tmp_path: Path) -> None:
    result = quick(odd_models.texts(), tmp_path / "out")
    assert "so nothing was timed; give data" in result.notes[-1]
    assert result.why == "float: the lossless passes only, nothing could be measured"
    feed = {"x": odd_models.weight(4, 8, seed=5), "names": np.array(["a", "b"], object)}
    assert default_run(result.winner.path, feed)[1].tolist() == ["a", "b"]


def test_an_accepted_float_form_is_asked_for_even_where_nothing_is_timed(tmp_path: Path) -> None:
    """The metric refuses the float form, which therefore is not shipped."""
    metric = f"{HERE}:texts_as_they_were_once"
    result = quick(odd_models.texts(), tmp_path / "out", metric=metric, max_drop=0.0)
    assert result.winner.name == "original"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_leave_the_model_float(tmp_path: Path, bad: float) -> None:
    result = quick(odd_models.conv_net(bad=bad), tmp_path / "out", data="random:1:3")
    assert not result.winner.quantized
    assert any(note.startswith("no int8: sample 0, value ") for note in result.notes)


def test_a_model_that_draws_at_random_is_shipped_as_it_is(tmp_path: Path) -> None:
    onnx.save(odd_models.random_draw(), tmp_path / "m.onnx")
    result = quick(tmp_path / "m.onnx", tmp_path / "out", data="random:1:2")
    assert result.winner.name == "original"
    assert any("does not repeat its answers" in note for note in result.notes)
    assert result.winner.path.read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_feeds_of_changing_length(tmp_path: Path) -> None:
    result = quick(odd_models.embedding(), tmp_path / "out", data=f"{HERE}:growing", samples=4)
    assert result.winner.quantized
    feed = {"ids": np.full((1, 30), 49), "types": np.zeros((1, 30), np.int64)}
    assert default_run(result.winner.path, feed)[0].shape == (1, 30, 16)


def test_it_says_why_nothing_can_be_int8() -> None:
    assert why_not_int8(from_proto(odd_models.conv_net(np.float16))).startswith(
        "the model is of 16-bit floats"
    )
    assert why_not_int8(from_proto(odd_models.quantised_output())) == "the model is quantized already"
    assert why_not_int8(from_proto(odd_models.random_draw())) == "the model has no Conv, Gemm or MatMul"
    head = '<ir_version: 8, opset_import: ["" : 17]> g'
    double = f"{head} (double[2,4] x) => (double[2,3] y) <double[4,3] w = {{seed}}> {{ y = MatMul(x, w) }}"
    assert why_not_int8(parse(double)) == "of each of 1 linear nodes: its weights are double, not float"
    body = f"""{head} (bool c, float[2,4] x) => (float[2,3] y) <float[4,3] w = {{seed}}> {{ y = If (c) <
        then_branch = t () => (float[2,3] u) {{ u = MatMul(x, w) }},
        else_branch = e () => (float[2,3] v) {{ m = MatMul(x, w) v = Neg(m) }}> }}"""
    assert why_not_int8(parse(body)).startswith("all linear nodes are in bodies of If, Loop or Scan")
