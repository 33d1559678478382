# SPDX-License-Identifier: Apache-2.0
"""`tersor prune` never writes over what it reads, nor two things into one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import save
from tersor.passes.prune.plan import load_plan
from tests.support.building import hashes
from tests.support.command import tersor
from tests.support.prune_models import chain


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, a plan for it, data, and links to them."""
    monkeypatch.chdir(tmp_path)
    save(chain(), tmp_path / "chain.onnx")
    save(chain(), tmp_path / "outside.onnx", external_data=True)
    (tmp_path / "feeds").mkdir()
    for name in ("calib.npz", "feeds/first.npz"):
        np.savez(tmp_path / name, x=np.zeros((1, 3, 8, 8), np.float32))
    (tmp_path / "m.onnx.data").symlink_to("chain.onnx")
    os.link("calib.npz", "hard.npz")
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str]) -> None:
    """Save `plan.json` for the model, and links to it."""
    done = tersor(capsys, "prune", "chain.onnx", "--dry-run", "--params", 0.8, "--save-plan", "plan.json")
    assert done.code == 0, done.err
    Path("p.onnx.data").symlink_to("plan.json")


BUDGET = ["--params", "0.5", "--align", "1"]
INPUT = "is the input itself, which is never touched"
DATA = "is --data, which is never touched; give another output"
INSIDE = "lies in the folder of --data, which is never touched; give another output"
BOTH = "is where the model goes; give another file"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "./chain.onnx", *BUDGET], INPUT),
        (["-o", "m.onnx", *BUDGET], f"'m.onnx.data' {INPUT}"),
        (["-o", "o.onnx", "--save-plan", "chain.onnx", *BUDGET], INPUT),
        (["-o", "plan.json", "--plan", "plan.json"], "'plan.json' is --plan, which is never touched"),
        (["-o", "p.onnx", "--plan", "plan.json"], "'p.onnx.data' is --plan, which is never touched"),
        (["-o", "calib.npz", "--data", "calib.npz", *BUDGET], DATA),
        (["-o", "hard.npz", "--data", "calib.npz", *BUDGET], DATA),
        (["-o", "o.onnx", "--save-plan", "calib.npz", "--data", "calib.npz", *BUDGET], DATA),
        (["--dry-run", "--save-plan", "calib.npz", "--data", "calib.npz", *BUDGET], DATA),
        (["-o", "feeds/first.npz", "--data", "feeds", *BUDGET], INSIDE),
        (["-o", "o.onnx", "--save-plan", "feeds/../feeds/p.json", "--data", "feeds", *BUDGET], INSIDE),
        (["-o", "o.json", "--save-plan", "../{here}/o.json", *BUDGET], BOTH),
        (["-o", "o.onnx", "--save-plan", "o.onnx.data", *BUDGET], BOTH),
        (["-o", "sparse.onnx", "--pattern", "2:4", "--data", "feeds/first.npz"], ""),
    ],
)  # fmt: skip
def test_nothing_that_is_read_is_written_over(
    capsys: pytest.CaptureFixture[str], folder: Path, options: list[str], said: str
) -> None:
    planned(capsys)
    before = hashes(folder)
    done = tersor(capsys, "prune", "chain.onnx", *(text.format(here=folder.name) for text in options))
    if not said:
        assert done.code == 0, done.err
        return
    assert (done.code, done.out) == (2, ""), done
    assert said in done.err
    assert done.err.count("\n") == 1
    assert hashes(folder) == before


@pytest.mark.parametrize(
    "options", [["-o", "outside.onnx.data"], ["-o", "o.onnx", "--save-plan", "outside.onnx.data"]]
)
def test_weights_of_the_input_stay(
    capsys: pytest.CaptureFixture[str], folder: Path, options: list[str]
) -> None:
    before = hashes(folder)
    done = tersor(capsys, "prune", "outside.onnx", *options, *BUDGET)
    assert done.code == 2
    assert done.err.startswith("error: 'outside.onnx.data' ")
    assert hashes(folder) == before


def test_a_run_goes_on_in_the_plan_it_was_given(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    planned(capsys)
    given = ["--plan", "plan.json", "--save-plan", "plan.json", "--rounds", "2"]
    done = tersor(capsys, "prune", "chain.onnx", "-o", "o.onnx", *BUDGET, *given)
    assert done.code == 0, done.err
    assert load_plan(folder / "plan.json").rounds == 2


def test_folders_of_results_are_made(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    done = tersor(capsys, "prune", "chain.onnx", "-o", "a/b/m.onnx", "--save-plan", "c/plan.json", *BUDGET)
    assert done.code == 0, done.err
    assert sorted(hashes(folder / "a")) == ["b/", "b/m.onnx"]
    assert load_plan(folder / "c" / "plan.json").cuts
