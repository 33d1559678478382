# SPDX-License-Identifier: Apache-2.0
"""`tersor prune` and the metric: one that fails is an error, and without one nothing is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import save
from tersor.passes.prune.plan import load_plan
from tests.support.building import hashes
from tests.support.command import tersor
from tests.support.prune_models import chain

HERE = "tests.tools.test_prune_metric"
X: NDArray[np.float32] = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
CALLS: list[int] = []


def fails_third(run: Callable[[Mapping[str, NDArray[Any]]], list[Any]]) -> float:
    """A metric that takes the original and one round, and then no more."""
    CALLS.append(1)
    if len(CALLS) == 3:
        raise RuntimeError("out of labels")
    return float(np.isfinite(run({"x": X[:1]})[0]).mean())


def nan_second(run: Callable[[Mapping[str, NDArray[Any]]], list[Any]]) -> float:
    """A metric that gives no number for anything but the original."""
    CALLS.append(1)
    run({"x": X[:1]})
    return 1.0 if len(CALLS) == 1 else float("nan")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and data, and metrics that count from one."""
    CALLS.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "here"
    here.mkdir()
    save(chain(), here / "chain.onnx")
    np.savez(here / "calib.npz", x=X)
    return here


def test_a_metric_that_fails_in_a_later_round_is_an_error(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    out, plan = folder / "o.onnx", folder / "plan.json"
    given = ["--params", "0.5", "--rounds", 2, "--align", 1, "--metric", f"{HERE}:fails_third"]
    done = tersor(capsys, "prune", folder / "chain.onnx", "-o", out, *given, "--save-plan", plan)
    assert (done.code, done.out) == (2, "")
    assert "the pruned model cannot be judged: metric" in done.err
    assert "RuntimeError: out of labels" in done.err
    assert done.err.count("\n") == 1
    assert not out.exists()
    assert load_plan(plan).rounds == 1


@pytest.mark.parametrize("how", [["--ratio", "0.5"], ["--pattern", "2:4"]])
def test_a_metric_that_gives_no_number_is_an_error(
    capsys: pytest.CaptureFixture[str], folder: Path, how: list[str]
) -> None:
    before = hashes(folder)
    given = ["-o", folder / "o.onnx", *how, "--metric", f"{HERE}:nan_second"]
    done = tersor(capsys, "prune", folder / "chain.onnx", *given)
    assert (done.code, done.out) == (2, "")
    assert "gave nan, not a finite number" in done.err
    assert hashes(folder) == before


@pytest.mark.parametrize("how", [["--ratio", "0.5"], ["--pattern", "2:4"]])
def test_without_a_metric_it_says_that_nothing_was_judged(
    capsys: pytest.CaptureFixture[str], folder: Path, how: list[str]
) -> None:
    given = ["prune", folder / "chain.onnx", "-o", folder / "o.onnx", *how, "--json"]
    for options, judged in ([], False), (["--metric", f"{HERE}:fails_third"], True):
        CALLS.clear()
        done = tersor(capsys, *given, *options)
        assert done.code == 0, done.err
        told = any("the accuracy was not judged" in note for note in json.loads(done.out)["notes"])
        assert told is not judged


def test_outputs_far_from_the_originals_are_said_to_be(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    digits = Path(__file__).parents[2] / "examples" / "digits"
    given = ["prune", digits / "digits.onnx", "-o", folder / "o.onnx", "--json"]
    for ratio, far in (("0.9", True), ("0.3", False)):
        data = ["--data", digits / "calib.npz", "--samples", "8", "--criterion", "l2"]
        done = tersor(capsys, *given, *data, "--ratio", ratio)
        assert done.code == 0, done.err
        assert any("far from the original's" in note for note in json.loads(done.out)["notes"]) is far
