# SPDX-License-Identifier: Apache-2.0
"""A recipe prunes before it quantizes: each round is judged, and the build says what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.cost import cost
from tersor.graph_ir import DataError, Model, UsageError, load, save
from tersor.passes.prune.plan import PrunePlan
from tersor.pipeline.builder import BuildResult
from tersor.pipeline.presets import PRUNE_READY
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.job import Job, Origin, Pruned
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.steps import replay
from tests.support.building import quick
from tests.support.prune_models import chain, mlp

X = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)

FIRST: list[NDArray[Any]] = []


def fails_on_others(run: Callable[[Mapping[str, NDArray[Any]]], list[Any]]) -> float:
    """A metric that takes the original alone."""
    found = run({"x": X[:1]})[0]
    FIRST.append(found)
    if not np.allclose(found, FIRST[0], rtol=1e-3):
        raise RuntimeError("out of labels")
    return 1.0


pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    save(chain(), here / "chain.onnx")
    np.savez(here / "calib.npz", x=X)
    return here


def built(folder: Path, steps: str, **options: object) -> BuildResult:
    (folder / "r.toml").write_text(f"recipe = 1\n{steps}")
    given = {"recipe": str(folder / "r.toml"), "data": str(folder / "calib.npz"), **options}
    return quick(folder / "chain.onnx", folder / "out", **given)


def rounds(result: BuildResult) -> list[str]:
    return [note for note in result.notes if note.startswith("prune")]


def test_rounds_are_judged_and_the_rest_is_quantized(folder: Path) -> None:
    steps = (
        '[[step]]\nprune = { params = 0.6, rounds = 2, align = 1, criterion = "l2" }\n'
        "[[step]]\ncalibrate = {}\n[[step]]\npasses = 'insert-qdq'\n"
    )
    result = built(folder, steps, min_sqnr_db=-100.0)
    candidate, _ = result.judged["recipe"]
    assert candidate.quantized
    assert candidate.pipeline == f"freeze-default-inputs,{PRUNE_READY},prune,insert-qdq"
    told = [
        re.fullmatch(r"prune, round (\d), ([\d.]+)% left of ([\d.]+)% wanted, .* dB", n)
        for n in rounds(result)
    ]
    figures = [tuple(float(x) for x in found.groups()) for found in told if found is not None]
    assert [(number, wanted) for number, _, wanted in figures] == [(1, 77.5), (2, 60)]
    assert all(0.95 * wanted < left <= wanted for _, left, wanted in figures)
    assert result.winner.name == "recipe"


def test_a_round_that_goes_too_far_is_given_up_and_the_recipe_goes_on(folder: Path) -> None:
    steps = "[[step]]\nprune = { params = 0.2, align = 1 }\naccept = { sqnr_db = 60 }\n"
    result = built(folder, steps)
    assert "allowed 60.0 dB" in rounds(result)[1]
    assert rounds(result)[1].startswith("prune: round 1 was given up: output 'y' has")
    assert rounds(result)[2].startswith("prune: given up was to cut ")
    assert re.search(r" b:1 from 64 to \d+", rounds(result)[2])
    assert "the recipe changes nothing" in result.notes
    assert "recipe" not in result.judged


def test_a_metric_that_fails_on_a_round_ends_the_build(folder: Path) -> None:
    FIRST.clear()
    with pytest.raises(DataError, match=r"the pruned model cannot be judged: metric .* out of labels"):
        built(folder, "[[step]]\nprune = { params = 0.5, align = 1 }\n", metric=f"{__name__}:fails_on_others")


def test_a_plan_is_replayed(folder: Path) -> None:
    prune(chain(), Job(Budget("ratio", 0.5), "l2")).plan.save(folder / "plan.json")
    result = built(folder, '[[step]]\nprune = { plan = "plan.json" }\n', min_sqnr_db=-100.0)
    model = load(result.winner.path)
    assert result.winner.name == "recipe"
    shapes = [node.inputs[1].shape for node in model.graph if node.op_type == "Conv" and node.inputs[1]]
    assert [shape[0] for shape in shapes if shape is not None] == [16, 32, 32, 8]


def test_a_size_counts_the_bytes_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origins: list[Origin] = []

    def spied(model: Model, job: Job, origin: Origin, **rest: Any) -> Pruned:
        origins.append(origin)
        return prune(model, job, origin, **rest)

    monkeypatch.setattr("tersor.pipeline.builder.pruning.prune", spied)
    built(folder, "[[step]]\nprune = { size = 0.6, align = 1 }\n", min_sqnr_db=-100.0)
    file = (folder / "chain.onnx").stat().st_size
    expected = file - cost(load(folder / "chain.onnx")).parameter_bytes
    assert origins[0].overhead_bytes == pytest.approx(expected, rel=0.1)


def test_the_seed_of_the_step_reaches_a_replay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def spied(model: Model, plan: PrunePlan, *, seed: int, **rest: Any) -> Pruned:
        seeds.append(seed)
        return replay(model, plan, seed=seed, **rest)

    monkeypatch.setattr("tersor.pipeline.builder.pruning.replay", spied)
    prune(chain(), Job(Budget("ratio", 0.5), "l2")).plan.save(folder / "plan.json")
    built(folder, '[[step]]\nprune = { plan = "plan.json", seed = 7 }\n', min_sqnr_db=-100.0)
    assert seeds == [7]


@pytest.mark.parametrize("idle", ["align = 1", 'criterion = "l2"', "rounds = 2", 'attention = "widths"'])
def test_what_a_plan_would_ignore_is_refused(folder: Path, idle: str) -> None:
    name = idle.partition(" ")[0]
    with pytest.raises(UsageError, match=f"a plan alone is replayed as it is, and `{name}` would be ignored"):
        built(folder, f'[[step]]\nprune = {{ plan = "plan.json", {idle} }}\n')


def test_a_plan_for_another_model_ends_the_build(folder: Path) -> None:
    prune(mlp(), Job(Budget("ratio", 0.5), "l2")).plan.save(folder / "plan.json")
    with pytest.raises(UsageError, match="the plan is for model"):
        built(folder, '[[step]]\nprune = { plan = "plan.json" }\n')
