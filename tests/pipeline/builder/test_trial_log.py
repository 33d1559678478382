# SPDX-License-Identifier: Apache-2.0
"""A search that was stopped goes on from its log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tersor.graph_ir import DataError, UsageError, save
from tersor.pipeline.builder.accuracy import Judge
from tersor.pipeline.builder.trial_log import TrialLog
from tests.support.building import judged, quick, steady
from tests.support.int8 import graph

FACTS = {"model": "a"}


def test_what_was_put_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    _, judgement = judged("a", -math.inf, accepted=False, drop=0.25)
    TrialLog(path, FACTS).put("1f", "a", judgement)
    log = TrialLog(path, FACTS)
    assert log.get("1f") == judgement
    assert log.get("2f") is None
    assert log.reused == 1


@pytest.mark.parametrize("found", [21.5, -math.inf])
def test_trials_on_the_way_to_a_candidate_are_read_again(tmp_path: Path, found: float) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path, FACTS).put_closeness("1f", "a", found)
    log = TrialLog(path, FACTS)
    assert (log.closeness("1f"), log.closeness("2f")) == (found, None)
    assert log.get("1f") is None


def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    first = TrialLog(path, FACTS)
    for digest in ("1f", "2f"):
        first.put(digest, "a", judged("a", 30.0)[1])
    path.write_text(path.read_text()[:-20])
    log = TrialLog(path, FACTS)
    assert log.get("1f") is not None
    assert log.get("2f") is None
    log.put("2f", "a", judged("a", 30.0)[1])
    assert TrialLog(path, FACTS).get("2f") is not None


def test_a_line_that_lacks_its_end_alone_is_kept_apart_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path, FACTS).put("1f", "a", judged("a", 30.0)[1])
    path.write_text(path.read_text()[:-1])
    TrialLog(path, FACTS).put("2f", "a", judged("a", 30.0)[1])
    log = TrialLog(path, FACTS)
    assert log.get("1f") is not None
    assert log.get("2f") is not None


@pytest.mark.parametrize("text", ["", "no log\n", "[1]\n", '{"other": 1}\n', "\x00\n"])
def test_another_file_is_not_written_to(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no log of trials"):
        TrialLog(path, FACTS)
    assert path.read_text() == text


def test_the_log_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path, FACTS).put("1f", "a", judged("a")[1])
    with pytest.raises(UsageError, match="is of another model"):
        TrialLog(path, {"model": "b"})


def test_a_broken_line_in_between_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    TrialLog(path, FACTS).put("1f", "a", judged("a")[1])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{}", lines[1]]) + "\n")
    with pytest.raises(DataError, match="line 2 is broken"):
        TrialLog(path, FACTS)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A small model's data and a log."""
    weights = "float[8,4,3,3] w1 = {seed}, float[4,8,3,3] w2 = {seed}"
    body = "a = Conv<pads=[1,1,1,1]>(x, w1) b = Relu(a) y = Conv<pads=[1,1,1,1]>(b, w2)"
    save(graph(body, weights, x="1,4,6,6", y="1,4,6,6"), tmp_path / "m.onnx")
    values = np.random.default_rng(0).standard_normal((6, 4, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=values)
    return {"data": str(tmp_path / "calib.npz"), "trials": tmp_path / "trials.jsonl"}


def test_a_build_goes_on_from_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    steady(monkeypatch)
    model, trials = tmp_path / "m.onnx", options["trials"]
    first = quick(model, tmp_path / "one", **options)
    lines = [json.loads(line) for line in trials.read_text().splitlines()[1:]]
    seen = [line["candidate"] for line in lines if "candidate" in line]
    assert len(seen) > 4
    # Stopped in the middle: half of the trials are known.
    half = len(seen) // 2
    kept = trials.read_text().splitlines()[: 1 + half]
    trials.write_text("\n".join(kept) + "\n")
    counted: list[str] = []
    judge = Judge.judge

    def counting(self: Judge, candidate: Any) -> Any:
        counted.append(candidate.name)
        return judge(self, candidate)

    monkeypatch.setattr(Judge, "judge", counting)
    again = quick(model, tmp_path / "two", **options)
    assert any(f"candidates had been judged before, as '{trials}' says" in note for note in again.notes)
    anew = [name for name in dict.fromkeys(seen) if name not in seen[:half]]
    assert anew
    assert [name for name in counted if name not in ("original", "float")] == anew
    assert {n: j for n, (_, j) in again.judged.items()} == {n: j for n, (_, j) in first.judged.items()}


def test_a_budget_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    steady(monkeypatch)
    found = quick(tmp_path / "m.onnx", tmp_path / "out", data=options["data"], budget_s=1e-6)
    tried = [name for name in found.judged if name not in ("original", "float")]
    assert tried == ["plain u8s8"]
    assert any(
        "the search ended with its budget of 1e-06 s, after 1 candidates" in note for note in found.notes
    )


def test_a_log_that_could_not_be_written_is_refused_at_once(tmp_path: Path, options: dict[str, Any]) -> None:
    options["trials"] = tmp_path / "none" / "trials.jsonl"
    with pytest.raises(UsageError, match="there is no folder"):
        quick(tmp_path / "m.onnx", tmp_path / "out", **options)
