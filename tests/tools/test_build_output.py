# SPDX-License-Identifier: Apache-2.0
"""What `tersor build` prints of what it found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.pipeline.builder import BuildResult
from tersor.pipeline.builder.result import Proof
from tersor.tools.build_cmd import beside, shown_outputs, speed
from tests.support import odd_models
from tests.support.building import FILES, hashes, judged, latency
from tests.support.command import Done, tersor
from tests.support.user_code import HERE

pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(odd_models.linear(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def built(capsys: pytest.CaptureFixture[str], model: Path, out: Path, *options: object) -> Done:
    done = tersor(capsys, "build", model, "-o", out, "--rounds", 1, *options)
    assert (done.code, done.err) == (0, "")
    assert sorted(hashes(out)) == FILES
    return done


def test_the_table_has_every_figure(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    data = ["--data", f"{HERE}:feeds", "--metric", f"{HERE}:mean", "--max-drop", "99%"]
    lines = built(capsys, model, tmp_path / "out", *data).out.splitlines()
    for word in ("size", "parameters", "MACs", "nodes", "latency, 1 thread ", "metric", "output y"):
        assert any(line.startswith(word) for line in lines), word
    assert any(line.startswith("shipped: ") for line in lines)
    assert any(line.startswith("sensitivity") and "report.json" in line for line in lines)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert f"in words: {report['words']}" in lines
    assert report["words"].startswith("static int8; ranges by ")
    assert report["sensitivity"]["form"] in [candidate["name"] for candidate in report["candidates"]]
    assert any(line.startswith("concurrent callers: answers agree") for line in lines)
    assert lines[-1].endswith("model.onnx, session.json, report.json, build.lock.json")


def test_what_is_beside_the_shipped_form_has_its_speed_on_the_same_threads_and_its_refusal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    data = ["--data", f"{HERE}:feeds", "--min-sqnr", 500]
    out = built(capsys, model, tmp_path / "out", *data).out
    (beside,) = (line for line in out.splitlines() if line.startswith("timed beside it"))
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    several = f" on {' and '.join(report['latency'])} threads together" if len(report["latency"]) > 1 else ""
    assert beside.startswith(f"timed beside it{several}: ")
    assert "plain u8s8 2.00x (refused: output 'y' has " in beside
    assert "plain u8s8 (output" not in out, "its refusal is said once"


def test_of_many_forms_beside_the_shipped_one_the_fastest_are_shown() -> None:
    names = ["original", "float", "plain u8s8", "int8 a", "int8 b", "int8 c", "int8 d"]
    forms = {name: judged(name, 30.0, accepted=name != "int8 c") for name in names}
    taken = dict(zip(names, (4.0, 4.0, 2.0, 1.0, 2.5, 1.6, 3.2), strict=True))
    latencies = {name: latency(name, *[ms] * 3) for name, ms in taken.items()}
    result = BuildResult(
        winner=forms["int8 a"][0],
        why="made up",
        before=forms["original"][0],
        facts={},
        judged=forms,
        latency={1: latencies},
        proof=Proof(None, [], ""),
    )
    assert beside(result) == (
        "timed beside it: float 1.00x, plain u8s8 2.00x, int8 c 2.50x (refused: made up), int8 b 1.60x "
        "and 1 slower form"
    )
    result.latency = {1: latencies, 2: latencies}
    assert beside(result).startswith("timed beside it on 1 and 2 threads together: float 1.00x, ")
    result.latency = {}
    assert beside(result) == ""


@pytest.mark.parametrize(
    ("times", "said"), [(2.0, "2.00x faster"), (1.0, "1.00x"), (0.994, "0.99x"), (1.02, "1.02x faster")]
)
def test_what_is_as_fast_is_not_called_faster(times: float, said: str) -> None:
    assert speed(times) == said


def test_a_model_that_is_quantized_is_said_to_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    asked = ["--data", f"{HERE}:feeds", "--metric", f"{HERE}:mean", "--max-drop", "99%"]
    built(capsys, model, tmp_path / "int8", *asked)
    for options in ([], asked):
        out = built(capsys, tmp_path / "int8" / "model.onnx", tmp_path / "out", *options).out
        assert out.count("quantized already") == 1
        assert "data would add int8" not in out


def test_an_output_that_hardly_depends_on_the_input_shows_how_close_its_varying_part_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    proto = odd_models.linear()
    proto.graph.node[0].output[0] = "product"
    proto.graph.node.append(onnx.helper.make_node("Add", ["product", "far"], ["y"], "far"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 1), 1000, np.float32), "far"))
    onnx.save(proto, tmp_path / "m.onnx")
    out = built(capsys, tmp_path / "m.onnx", tmp_path / "out", "--data", f"{HERE}:feeds").out
    assert "output 'y' hardly depends on the input (" in out
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    forms = {each["name"]: each["fidelity"]["y"] for each in report["candidates"]}
    close = forms["int8 mse"]
    assert close["varying_db"] < close["sqnr_db"] - 30
    shown = forms[report["shipped"]]
    assert ("  of what varies" in out) == (shown["varying_db"] != shown["sqnr_db"])


def test_without_data_the_table_says_what_data_would_add(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    assert "note: without data only the lossless part was done" in built(capsys, model, tmp_path / "out").out


def test_a_table_without_timings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    onnx.save(odd_models.texts(), tmp_path / "m.onnx")
    out = built(capsys, tmp_path / "m.onnx", tmp_path / "out").out
    assert "latency" not in out
    assert "nothing was timed; give data" in out


def test_json_is_the_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path) -> None:
    out = built(capsys, model, tmp_path / "out", "--json").out
    assert json.loads(out) == json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))


def test_of_many_outputs_the_first_and_those_furthest_off_have_rows() -> None:
    assert shown_outputs({"a": 40.0, "b": 30.0}) == ["a", "b"]
    many = {"logits": 90.0, **{f"present.{i}": 60.0 - i % 5 for i in range(20)}}
    shown = shown_outputs(many)
    assert shown[0] == "logits"
    assert shown == [name for name in many if name in shown]
    assert len(shown) == 7
    assert max(many[name] for name in shown[1:]) <= min(many[name] for name in many if name not in shown)
