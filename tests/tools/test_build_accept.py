# SPDX-License-Identifier: Apache-2.0
"""What a recipe says to `accept` is a check: `tersor build` exits with 1 where it does not hold."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tests.support import odd_models
from tests.support.building import FILES, hashes, steady, work_in
from tests.support.command import Done, tersor
from tests.support.user_code import HERE, Run, mean

INT8 = (
    'recipe = 1\n[[step]]\npreset = "lossless"\n[[step]]\ncalibrate = {}\n[[step]]\npasses = "insert-qdq"\n'
)
METRIC = ["--metric", f"{HERE}:mean", "--max-drop", "99%"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and a model."""
    steady(monkeypatch)
    onnx.save(odd_models.linear(), tmp_path / "m.onnx")
    return work_in(tmp_path / "work", monkeypatch)


def built(capsys: pytest.CaptureFixture[str], folder: Path, accept: str, *options: object) -> Done:
    (folder / "r.toml").write_text(INT8 + accept)
    asked = ["--data", f"{HERE}:feeds", "--recipe", folder / "r.toml", "--rounds", 1, *options]
    return tersor(capsys, "build", folder / "m.onnx", "-o", folder / "out", *asked)


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("options", [[], METRIC], ids=["by outputs", "beside a metric"])
def test_a_limit_that_is_missed_is_exit_1_and_the_original_is_shipped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str]
) -> None:
    done = built(capsys, tmp_path, "accept = { sqnr_db = 300 }\n", *options)
    assert done.code == 1
    assert done.err.startswith(f"error: recipe {str(tmp_path / 'r.toml')!r} does not keep what it accepts: ")
    assert done.err.endswith(" dB, allowed 300.0 dB; shipped instead: original\n")
    assert sorted(hashes(tmp_path / "out")) == FILES
    assert str(report(tmp_path)["unmet"]).endswith("allowed 300.0 dB")


def test_json_and_a_limit_that_is_missed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = built(capsys, tmp_path, "accept = { sqnr_db = 300 }\n", "--json")
    assert (done.code, json.loads(done.out)) == (1, report(tmp_path))


@pytest.mark.parametrize(
    ("accept", "options"),
    [
        ("accept = { sqnr_db = 10 }\n", ["--min-sqnr", "1"]),
        ('accept = { max_drop = "90%", sqnr_db = 10 }\n', METRIC),
        ("", ["--min-sqnr", "300"]),  # nothing is asked to be accepted: that none is found is no failure
    ],
    ids=["outputs", "metric", "no accept"],
)
def test_what_is_kept_or_not_asked_for_is_exit_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, accept: str, options: list[str]
) -> None:
    done = built(capsys, tmp_path, accept, *options)
    assert (done.code, done.err) == (0, "")
    assert report(tmp_path)["unmet"] == ""


def test_a_share_of_a_metric_that_is_not_there_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done = built(capsys, tmp_path, 'accept = { max_drop = "1%" }\n')
    assert done.code == 2
    assert done.err.endswith("accepts a share of the metric (`max_drop`); give --metric\n")
    assert not (tmp_path / "out").exists()


SEEN: list[float] = []


def first_only(run: Run) -> float:
    """Undefined but for the model that it is asked for first."""
    found = mean(run)
    SEEN.append(found)
    return found if found == SEEN[0] else float("nan")


def test_a_metric_that_fails_on_all_but_the_original_is_exit_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    SEEN.clear()
    asked = ["--data", f"{HERE}:feeds", "--metric", "tests.tools.test_build_accept:first_only", "--rounds", 1]
    done = tersor(capsys, "build", tmp_path / "m.onnx", "-o", tmp_path / "out", *asked)
    assert done.code == 1
    assert done.err.startswith(
        "error: no candidate can be scored: metric 'tests.tools.test_build_accept:first"
    )
    assert done.err.endswith(" gave nan, not a finite number; shipped instead: original\n")
    assert str(report(tmp_path)["unmet"]).startswith("no candidate can be scored: ")


@pytest.mark.parametrize(
    ("metric", "said"),
    [("dice", "the metric is not the same each time "), ("yes", "the metric is 1 for outputs of")],
)
def test_a_metric_that_tells_nothing_is_noted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, metric: str, said: str
) -> None:
    asked = ["--data", f"{HERE}:feeds", "--metric", f"{HERE}:{metric}", "--rounds", 1, "--budget", "1s"]
    done = tersor(capsys, "build", tmp_path / "m.onnx", "-o", tmp_path / "out", *asked)
    assert done.code == 0
    assert done.out.count(f"note: {said}") == 1


def test_a_recipe_that_changes_nothing_ships_the_original_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(
        'recipe = 1\n[[step]]\npasses = "fold-batch-norm"\naccept = { sqnr_db = 300 }\n'
    )
    asked = ["--data", f"{HERE}:feeds", "--recipe", tmp_path / "r.toml", "--rounds", 1]
    done = tersor(capsys, "build", tmp_path / "m.onnx", "-o", tmp_path / "out", *asked)
    assert done.code == 0
    assert "the recipe changes nothing" in done.out
    assert report(tmp_path)["shipped"] == "original"
