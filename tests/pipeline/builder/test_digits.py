# SPDX-License-Identifier: Apache-2.0
"""The build from end to end on the model that ships: what is written, what is said, what is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tersor.analysis.cores import usable_cores
from tersor.analysis.fidelity import Fidelity
from tersor.backends.onnxruntime.config import SessionConfig
from tersor.backends.onnxruntime.session import OrtSession
from tersor.graph_ir import load
from tersor.graph_ir.ops import label
from tersor.pipeline.builder import BuildResult, build
from tersor.pipeline.builder.flow import JUDGING_FEEDS
from tersor.pipeline.builder.report import to_dict
from tersor.pipeline.builder.settings import BuildSettings
from tersor.pipeline.builder.timing import not_slower
from tests.support.building import DIGITS, FILES, default_run, hashes, quick, steady, work_in

MODEL = DIGITS / "digits.onnx"
DATA = str(DIGITS / "calib.npz")
DIGITS_METRIC = "metric:metric"

Report = dict[str, Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """Digits with data and its metric."""
    out = tmp_path_factory.mktemp("digits") / "new" / "out"
    before = hashes(DIGITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DIGITS))
        steady(patch)
        work = work_in(tmp_path_factory.mktemp("work"), patch)
        result = quick(MODEL, out, data=DATA, metric=DIGITS_METRIC, samples=40, rounds=3)
    assert hashes(DIGITS) == before | {k: v for k, v in hashes(DIGITS).items() if "__pycache__" in k}
    assert not hashes(work)
    return result


def report_of(result: BuildResult) -> Report:
    def refuse(text: str) -> float:
        raise AssertionError(text)

    text = (result.winner.path.parent / "report.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)  # NaN and Infinity are no JSON


def test_four_files_are_written_and_nothing_else(built: BuildResult) -> None:
    assert sorted(hashes(built.winner.path.parent)) == FILES


def test_the_model_is_int8_and_within_the_limit(built: BuildResult) -> None:
    judgement = built.judged[built.winner.name][1]
    assert built.winner.quantized
    assert judgement.accepted
    assert judgement.drop is not None
    assert judgement.drop <= 0.01
    assert built.proof.audit is not None
    assert built.proof.audit.linear_int8 >= 10
    assert not built.proof.failure


def test_what_was_judged_is_what_a_default_session_runs(built: BuildResult) -> None:
    """`session.json` may only help: the file itself gives the outputs that were compared."""
    config = SessionConfig.from_json((built.winner.path.parent / "session.json").read_text(encoding="utf-8"))
    with np.load(DATA) as arrays:
        images = arrays["image"][:JUDGING_FEEDS]
    total = Fidelity()
    with OrtSession(built.winner.path, config) as session:
        for image in images:
            feed = {"image": image[None]}
            found = default_run(built.winner.path, feed)[0]
            np.testing.assert_array_equal(found, session.run(feed)[0])
            total.update(default_run(MODEL, feed)[0], found)
    said = built.judged[built.winner.name][1].fidelity["logits"]
    assert total.result().sqnr_db == pytest.approx(said.sqnr_db)
    assert total.result().cosine == pytest.approx(said.cosine)


def test_the_report_agrees_with_itself_and_with_the_files(built: BuildResult) -> None:
    report = report_of(built)
    assert report == json.loads(json.dumps(to_dict(built, BuildSettings(MODEL, built.winner.path.parent))))
    shipped = report["shipped"]
    by_name = {entry["name"]: entry for entry in report["candidates"]}
    assert list(by_name)[:2] == ["original", "float"]
    assert by_name[shipped]["accepted"]
    assert report["facts"][shipped]["size"] == built.winner.path.stat().st_size
    assert report["facts"]["original"]["size"] == MODEL.stat().st_size
    assert report["facts"]["original"]["macs"] == report["facts"][shipped]["macs"]
    assert by_name["original"]["drop"] == 0
    assert by_name["original"]["fidelity"]["logits"]["sqnr_db"] == "inf"
    for threads, names in report["latency"].items():
        assert names["original"]["over_original"][1] == 1
        speed = names["original"]["median_ms"] / names[shipped]["median_ms"]
        assert report["speedup"][threads] == pytest.approx(speed, rel=1e-2)
    originals = {label(node) for node in load(MODEL).graph}
    assert {entry["node"] for entry in report["int8"]["not_int8"]} <= originals
    assert {part["name"] for part in report["sensitivity"]["parts"]} <= originals
    assert report["int8"]["linear_int8"] <= report["int8"]["linear_nodes"]
    assert all(math.isfinite(entry["metric"]) for entry in by_name.values())


def test_the_lock_names_everything_the_result_depends_on(built: BuildResult) -> None:
    lock = json.loads((built.winner.path.parent / "build.lock.json").read_text(encoding="utf-8"))
    assert lock["pipeline"] == built.winner.pipeline
    assert lock["metric"] == DIGITS_METRIC
    assert lock["data"]["source"] == DATA
    assert all(len(lock[key]["blake2b"]) == 32 for key in ("model", "result", "data"))
    assert lock["versions"]["onnxruntime"]
    assert "flags" in lock["host"]


def test_the_same_build_gives_the_same_bytes(
    built: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady(monkeypatch)
    monkeypatch.syspath_prepend(str(DIGITS))
    again = quick(MODEL, tmp_path / "out", data=DATA, metric=DIGITS_METRIC, samples=40, rounds=3)
    assert again.winner.name == built.winner.name
    first, second = built.winner.path.parent, again.winner.path.parent
    for file in ("model.onnx", "session.json", "build.lock.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    judged = [{name: j for name, (_, j) in result.judged.items()} for result in (built, again)]
    assert judged[0] == judged[1]


def test_a_real_clock_never_chooses_what_is_refused_or_slower(tmp_path: Path) -> None:
    result = quick(MODEL, tmp_path / "out", data=DATA, samples=8, rounds=3)
    assert result.judged[result.winner.name][1].accepted
    assert set(result.latency) == {1, usable_cores()}
    assert not_slower(result.latency, result.winner.name, "original")
    timed = set(result.latency[1])
    assert {"original", "float"} <= timed
    assert timed <= {name for name, (_, judgement) in result.judged.items() if judgement.accepted}


def test_without_a_metric_sqnr_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steady(monkeypatch)
    result = quick(MODEL, tmp_path / "out", data=DATA, samples=4, min_sqnr_db=200.0)
    assert result.winner.name == "original"  # not even the float form is that close
    verdicts = {name: j for name, (c, j) in result.judged.items() if c.quantized}
    assert verdicts
    assert not any(judgement.accepted for judgement in verdicts.values())
    assert all("allowed 200.0 dB" in judgement.reason for judgement in verdicts.values())
    assert "refused: " in result.why


def test_an_impossible_limit_ships_the_original_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady(monkeypatch)
    strict = "tests.support.user_code:as_it_was"
    result = quick(MODEL, tmp_path / "out", data=DATA, samples=4, metric=strict, max_drop=0.0)
    assert result.winner.name == "original"
    assert result.why.startswith("original: nothing that keeps within the limits is faster")
    assert "metric drops 100.00%, allowed 0.00%" in result.why
    assert result.winner.path.read_bytes() == MODEL.read_bytes()
    assert report_of(result)["shipped"] == "original"
    assert report_of(result)["int8"] is None


def test_without_data_only_the_lossless_part_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steady(monkeypatch)
    result = quick(MODEL, tmp_path / "out")
    assert list(result.judged) == ["original", "float"]
    assert result.notes == [
        "without data only the lossless part was done; data would add int8, often twice as fast"
    ]
    feed = {"image": np.ones((2, 1, 32, 32), np.float32)}
    found, want = default_run(result.winner.path, feed)[0], default_run(MODEL, feed)[0]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
    lock = json.loads((tmp_path / "out" / "build.lock.json").read_text(encoding="utf-8"))
    assert lock["data"] is None


def test_the_lock_names_the_data_of_the_recipe_and_random_data_is_flagged(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'recipe = 1\n[data.calib]\nsource = "random:0:4"\n[[step]]\npreset = "lossless"\n'
        '[[step]]\npasses = "raise-opset"\n[[step]]\ncalibrate = { data = "calib", observer = "minmax" }\n'
        '[[step]]\npasses = "insert-qdq"\n',
        encoding="utf-8",
    )
    settings = BuildSettings(MODEL, tmp_path / "out", data="random:1:2", recipe=str(recipe), rounds=1)
    result = build(settings)
    lock = json.loads((tmp_path / "out" / "build.lock.json").read_text(encoding="utf-8"))
    assert lock["recipe"]["data"]["calib"]["source"] == "random:0:4"
    assert len(lock["recipe"]["data"]["calib"]["blake2b"]) == 32
    assert any("random data" in note for note in result.notes)
