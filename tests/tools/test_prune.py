# SPDX-License-Identifier: Apache-2.0
"""`tersor prune`: what it writes and says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.cost import cost
from tersor.backends.onnxruntime.latency import Latency, Runner
from tersor.backends.onnxruntime.session import OrtSession
from tersor.graph_ir import Model, load, save
from tersor.passes.prune.plan import load_plan
from tersor.pipeline.prune.criteria import Request, Scores
from tersor.pipeline.prune.criteria.l2 import L2
from tests.support.building import hashes, work_in
from tests.support.command import Done, tersor
from tests.support.prune_models import chain, pinned, residual

HERE = "tests.tools.test_prune"
X: NDArray[np.float32] = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)


def share_kept(run: Callable[[Mapping[str, NDArray[Any]]], list[Any]]) -> float:
    """How close answers are to the original's: 1 for the model asked first, less the further off."""
    found = run({"x": X[:1]})[0]
    first = _FIRST.setdefault("y", found)
    return float(1 / (1 + np.abs(found - first).mean()))


_FIRST: dict[str, NDArray[Any]] = {}


def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
    """The original takes one millisecond, all else half of it."""
    return {name: Latency(name, (1.0 if name == "original" else 0.5,) * 3, 0.5, 1) for name in runners}


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clock that does not look at work; a cache of its own; a metric that forgets."""
    monkeypatch.setattr("tersor.pipeline.prune.timing.measure", measured)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _FIRST.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the models and data."""
    here = tmp_path / "here"
    here.mkdir()
    for name, make in {"chain": chain, "residual": residual, "pinned": pinned}.items():
        save(make(), here / f"{name}.onnx")
    np.savez(here / "calib.npz", x=X)
    return here


def parsed(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    return json.loads(done.out)


def widths(path: Path) -> list[int]:
    """Output channels of the convolutions."""
    return [cast_shape(node.inputs[1])[0] for node in load(path).graph if node.op_type == "Conv"]


def cast_shape(value: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in value.shape)


def test_it_writes_a_smaller_model_that_runs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out = folder / "out.onnx"
    done = tersor(capsys, "prune", folder / "chain.onnx", "-o", out, "--ratio", "0.5")
    assert done.code == 0, done.err
    assert widths(out) == [16, 32, 32, 8]
    with OrtSession(out) as session:
        assert session.run({"x": X[:1]})[0].shape == (1, 8, 1, 1)
    assert "a:1" in done.out
    assert "multiples of 16" in done.out
    assert "1 layer cannot be pruned, in full or in part: last; --explain says why" in done.out
    assert f"wrote {out}" in done.out
    assert "latency, 1 thread" in done.out


def test_the_report_for_machines(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    found = parsed(
        tersor(capsys, "prune", folder / "chain.onnx", "-o", folder / "o.onnx", "--macs", "50%", "--json")
    )
    assert found["budget"] == {"macs": 0.5}
    assert found["written"] is True
    after = cost(load(folder / "o.onnx"))
    assert found["after"]["macs"] == after.macs <= 0.5 * found["before"]["macs"]
    assert found["after"]["parameters"] == after.parameters
    assert found["after"]["size"] == (folder / "o.onnx").stat().st_size
    assert found["latency"]["pruned"]["median_ms"] == 0.5
    assert [g["group"] for g in found["groups"]] == ["a:1", "b:1", "c:1"]
    assert [p["node"] for p in found["pinned"]] == ["last"]
    assert found["rounds"][0]["left"] <= 0.5


def test_the_aim_is_for_a_budget_of_macs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    given = ["prune", folder / "chain.onnx", "-o", folder / "o.onnx", "--align", 4, "--json"]

    def widths(*options: str) -> list[int]:
        found = parsed(tersor(capsys, *given, "--macs", "0.3", *options))
        assert found["rounds"][0]["left"] <= 0.3
        return [group["kept"] for group in found["groups"]]

    assert widths() == widths("--aim", "time") != widths("--aim", "importance")
    failed = tersor(capsys, *given, "--params", "0.5", "--aim", "time")
    assert failed.code == 2
    assert "--aim says what a budget of MACs buys; give it with --macs" in failed.err


def test_data_refits_and_the_metric_is_told_after_every_round(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    given = ["prune", folder / "chain.onnx", "-o", folder / "o.onnx", "--params", "0.6", "--json"]
    how = ["--data", folder / "calib.npz", "--metric", f"{HERE}:share_kept", "--max-drop", "99%"]
    found = parsed(tersor(capsys, *given, *how, "--rounds", 2, "--align", 1, "--criterion", "l2"))
    assert [r["round"] for r in found["rounds"]] == [1, 2]
    assert all(0 < r["metric"] < 1 and r["kept"] for r in found["rounds"])
    assert found["metric"] == {"before": 1.0, "after": found["rounds"][-1]["metric"]}
    assert found["rounds"][0]["sqnr_db"] > found["rounds"][1]["sqnr_db"]
    assert not any("refitted" in note for note in found["notes"])


def test_a_first_round_that_loses_too_much_writes_nothing_and_says_so(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = hashes(folder)
    options = ["--ratio", "0.5", "--metric", f"{HERE}:share_kept", "--max-drop", "0"]
    done = tersor(capsys, "prune", folder / "chain.onnx", "-o", folder / "o.onnx", *options)
    assert done.code == 1
    assert "stopped: round 1 was given up: metric drops" in done.out
    assert "3 more groups stay whole; --explain lists them" in done.out
    tried = done.out.partition("tried, and given up")[2]
    assert re.search(r"b:1 +64 +32 +32 +lowest l2|b:1 +64 +32 +32 +highest l2", tried)
    assert "nothing was written" in done.out
    assert hashes(folder) == before


def test_a_dry_run_writes_no_model_and_explains(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    before = hashes(folder)
    done = tersor(capsys, "prune", folder / "chain.onnx", "--ratio", "0.5", "--dry-run", "--explain")
    assert done.code == 0
    assert "cannot be pruned" in done.out
    assert "it is an output of the model" in done.out
    assert "dry run: no model was written" in done.out
    assert hashes(folder) == before


def test_a_plan_is_saved_edited_and_replayed(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    plan = folder / "plan.json"
    first = tersor(capsys, "prune", folder / "chain.onnx", "--dry-run", "--ratio", "0.5", "--save-plan", plan)
    assert first.code == 0, first.err
    again = tersor(capsys, "prune", folder / "chain.onnx", "-o", folder / "o.onnx", "--plan", plan)
    assert again.code == 0, again.err
    assert widths(folder / "o.onnx") == [16, 32, 32, 8]
    document = json.loads(plan.read_text())
    document["cuts"][0]["kept"] = "0-3"
    plan.write_text(json.dumps(document))
    edited = tersor(capsys, "prune", folder / "chain.onnx", "-o", folder / "o.onnx", "--plan", plan)
    assert edited.code == 0, edited.err
    assert widths(folder / "o.onnx") == [4, 32, 32, 8]


def test_exclusion_bounds_and_comparison_across_groups(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    out = folder / "o.onnx"
    given = ["prune", folder / "chain.onnx", "-o", out, "--ratio", "0.5", "--align", "8"]
    assert tersor(capsys, *given, "--exclude", "second").code == 0
    assert widths(out) == [16, 64, 24, 8]
    assert tersor(capsys, *given, "--min-keep", "a:*=1", "--max-keep", "0.25", "--min-keep", "0").code == 2
    assert tersor(capsys, *given, "--min-keep", "a:*=75%").code == 0
    assert widths(out) == [24, 32, 24, 8]
    assert tersor(capsys, *given, "--global").code == 0
    assert sum(widths(out)[:3]) == 72


def test_single_weights_go_instead(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out = folder / "o.onnx"
    done = tersor(capsys, "prune", folder / "chain.onnx", "-o", out, "--pattern", "2:4")
    assert done.code == 0, done.err
    assert "onnxruntime gains nothing from zeros" in done.out
    assert widths(out) == widths(folder / "chain.onnx")
    found = parsed(
        tersor(capsys, "prune", folder / "chain.onnx", "-o", out, "--sparsity", "0.7", "--global", "--json")
    )
    sparsity = found["sparsity"]
    assert sparsity["zeros"] == pytest.approx(0.7 * sparsity["weights"], rel=0.01)


@pytest.mark.parametrize("how", [["--sparsity", "0.9"], ["--pattern", "2:4"]])
def test_single_weights_are_judged_by_the_metric(
    capsys: pytest.CaptureFixture[str], folder: Path, how: list[str]
) -> None:
    before = hashes(folder)
    given = ["prune", folder / "chain.onnx", "-o", folder / "o.onnx", *how, "--metric", f"{HERE}:share_kept"]
    done = tersor(capsys, *given, "--max-drop", "0")
    assert done.code == 1
    assert "stopped: metric drops" in done.out
    assert "nothing was written" in done.out
    done = tersor(capsys, *given, "--max-drop", "0", "--json")
    found = json.loads(done.out)
    assert (done.code, found["written"]) == (1, False)
    assert found["stopped"].startswith("metric drops")
    assert 0 < found["metric"]["after"] < found["metric"]["before"] == 1
    assert hashes(folder) == before
    kept = parsed(tersor(capsys, *given, "--max-drop", "0.9999", "--json"))
    assert kept["metric"]["after"] == found["metric"]["after"]
    assert (folder / "o.onnx").exists()


def test_inputs_with_defaults_are_frozen_first(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    model = chain()
    model.graph.inputs.append(model.graph.initializers["w1"])
    save(model, folder / "old.onnx")
    found = parsed(
        tersor(capsys, "prune", folder / "old.onnx", "-o", folder / "o.onnx", "--ratio", "0.5", "--json")
    )
    assert "1 inputs with defaults were frozen: callers can no longer override them" in found["notes"]
    assert widths(folder / "o.onnx") == [16, 32, 32, 8]


def test_ctrl_c_leaves_the_plan_so_far_and_nothing_else(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = work_in(folder.parent / "work", monkeypatch)
    calls: list[Model] = []

    def interrupted(self: object, request: Request) -> Scores:
        calls.append(request.model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return L2().score(request)

    plan, out = folder / "plan.json", folder / "o.onnx"
    given = ["prune", folder / "chain.onnx", "-o", out, "--params", 0.3, "--rounds", 3, "--align", 1]
    monkeypatch.setattr("tersor.pipeline.prune.criteria.l1.L1.score", interrupted)
    done = tersor(capsys, *given, "--criterion", "l1", "--save-plan", plan)
    assert done.code == 130
    assert load_plan(plan).rounds == 1
    assert not out.exists()
    assert not list(work.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr("tersor.pipeline.prune.timing.measure", measured)
    resumed = parsed(tersor(capsys, *given, "--criterion", "l1", "--plan", plan, "--json"))
    assert [r["round"] for r in resumed["rounds"]] == [2, 3]
    assert resumed["rounds"][-1]["left"] <= 0.3


def test_a_latency_budget_is_corrected_by_measuring(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratio(self: object, model: Model) -> float:
        return 0.2 + 0.8 * cost(model).macs / cost(chain()).macs

    def timed(layer: Any, pairs: list[tuple[int, int]], threads: int) -> list[float]:
        return [1e-6 * i * o for i, o in pairs]

    monkeypatch.setattr("tersor.pipeline.prune.timing.Clock.ratio", ratio)
    monkeypatch.setattr("tersor.pipeline.prune.table._time_layer", timed)
    out = folder / "o.onnx"
    done = tersor(
        capsys, "prune", folder / "chain.onnx", "-o", out, "--latency", "0.6", "--align", "1", "--json"
    )
    found = parsed(done)
    assert found["rounds"][0]["left"] == pytest.approx(0.6, rel=0.03)
    assert list((folder.parent / "cache" / "tersor").glob("latency-*.json"))
