# SPDX-License-Identifier: Apache-2.0
"""The public API: small, typed, and free of cost until it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tersor
from tersor.graph_ir import ClaimError, DataError, UsageError, parse
from tersor.pipeline.builder import BuildSettings
from tersor.pipeline.prune.report import PruneReport
from tersor.tools.arguments import called_from

SRC = Path(__file__).resolve().parent.parent / "src"
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "typer", "rich", "ml_dtypes", "networkx")
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N] x) => (float[N] y) { a = Identity(x) y = Relu(a) }
"""


def test_import_loads_nothing_heavy() -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(SRC)!r}); import tersor; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_all_is_there() -> None:
    for name in tersor.__all__:
        assert getattr(tersor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = tersor.lode  # pyright: ignore[reportUnknownVariableType, reportAttributeAccessIssue]
    assert issubclass(ClaimError, tersor.TersorError)


def test_dir_shows_the_names_of_all_and_no_others() -> None:
    assert dir(tersor) == sorted(tersor.__all__)
    assert {"load", "save", "verify"} <= set(dir(tersor))


def test_load_run_verify_save(tmp_path: Path) -> None:
    tersor.save(parse(TEXT), tmp_path / "in.onnx")
    model = tersor.load(tmp_path / "in.onnx")
    context = tersor.Context()
    assert tersor.run(model, "eliminate-identity", context=context)
    assert [node.op_type for node in model.graph] == ["Relu"]
    assert sum(context.counters.values()) == 1
    assert not tersor.run(model)
    tersor.verify(model)
    tersor.save(model, tmp_path / "out.onnx")
    assert len(tersor.load(tmp_path / "out.onnx").graph) == 1


def test_run_refuses_what_is_no_pipeline() -> None:
    with pytest.raises(UsageError, match="no pass is called 'fold-constant'"):
        tersor.run(parse(TEXT), "fold-constant")


def test_optimize_goes_from_file_to_file(tmp_path: Path) -> None:
    tersor.save(parse(TEXT), tmp_path / "in.onnx")
    report = tersor.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert (report.before.total(), report.after.total()) == (2, 1)
    with pytest.raises(UsageError, match="is the input itself"):
        tersor.optimize(tmp_path / "in.onnx", tmp_path / "in.onnx")


def test_build_refuses_settings_before_it_works(tmp_path: Path) -> None:
    tersor.save(parse(TEXT), tmp_path / "in.onnx")
    with pytest.raises(UsageError, match=r"^max_drop is a share of the metric from 0"):
        tersor.build(tmp_path / "in.onnx", tmp_path / "out", metric="m:f", max_drop=1.5)
    with pytest.raises(UsageError, match=r"^max_drop is a share of the metric; give metric too"):
        tersor.build(tmp_path / "in.onnx", tmp_path / "out", max_drop=0.5)
    assert not (tmp_path / "out").exists()


def test_prune_goes_from_file_to_file(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[2,8] x) => (float[2,4] y) <float[8,32] w = {seed}, float[32,4] v = {seed}>
    { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }
    """
    tersor.save(parse(text), tmp_path / "in.onnx")
    report = tersor.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", ratio=0.5)
    assert report.written
    weights = tersor.load(tmp_path / "out.onnx").graph.initializers
    assert [tuple(w.shape or ()) for w in weights.values()] == [(8, 16), (16, 4)]
    report = tersor.prune(tmp_path / "in.onnx", None, macs=0.5, aim="importance")
    assert report.pruned is not None
    assert [len(group.kept) for group in report.pruned.groups] == [16]
    with pytest.raises(UsageError, match="give one budget, not ratio and macs"):
        tersor.prune(tmp_path / "in.onnx", None, ratio=0.5, macs=0.5)
    with pytest.raises(UsageError, match="aim is time or importance, not 'speed'"):
        tersor.prune(tmp_path / "in.onnx", None, macs=0.5, aim="speed")
    with pytest.raises(UsageError, match="aim says what a budget of MACs buys; give it with macs"):
        tersor.prune(tmp_path / "in.onnx", None, ratio=0.5, aim="time")
    with pytest.raises(UsageError, match="max_drop is a share of the metric; give metric too"):
        tersor.prune(tmp_path / "in.onnx", None, ratio=0.5, max_drop=0.01)
    with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
        tersor.prune(tmp_path / "in.onnx", None, width=0.5)  # pyright: ignore[reportCallIssue]


WIDE = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[2,8] x) => (float[2,4] y) <float[8,32] w = {seed}, float[32,4] v = {seed}>
{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }
"""


def kept(report: PruneReport) -> list[int]:
    assert report.pruned is not None
    return [len(group.kept) for group in report.pruned.groups]


def test_prune_takes_what_the_command_line_does(tmp_path: Path) -> None:
    model = tmp_path / "in.onnx"
    tersor.save(parse(WIDE), model)
    assert kept(tersor.prune(model, None, ratio="30%", align=1)) == [22]
    assert kept(tersor.prune(model, None, ratio=0.9, align=1, min_keep=0.5)) == [16]
    assert kept(tersor.prune(model, None, ratio=0.9, align=1, min_keep={"*": 0.75})) == [24]
    np.savez(tmp_path / "d.npz", x=np.ones((4, 8), np.float32))
    report = tersor.prune(model, None, ratio=0.5, whole_model=True, data=tmp_path / "d.npz", samples=1)
    assert kept(report) == [16]
    with pytest.raises(UsageError, match=r"nothing can be pruned|no channel"):
        tersor.prune(model, None, ratio=0.5, exclude=["*"])
    with pytest.raises(UsageError, match="exclude is a str; give a list of patterns"):
        tersor.prune(model, None, ratio=0.5, exclude="head*")
    with pytest.raises(UsageError, match="align: True is no whole number"):
        tersor.prune(model, None, ratio=0.5, align=True)
    with pytest.raises(UsageError, match="ratio: True is no share"):
        tersor.prune(model, None, ratio=True)
    with pytest.raises(UsageError, match="a plan alone is replayed as it is, and align would be ignored"):
        tersor.prune(model, None, plan=tmp_path / "plan.json", align=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": {"x": np.zeros((2, 8))}}, "data is a dict; give a .npz file, a folder, 'module:function'"),
        ({"data": [{"x": np.zeros((2, 8))}]}, "data is a list; give a .npz file"),
        ({"metric": len}, "metric is a builtin_function_or_method; give 'module:function'"),
        ({"metric": "m:f", "max_drop": "much"}, "max_drop: 'much' is no share; write 1% or 0.01"),
        ({"metric": "m:f", "max_drop": [1]}, "max_drop: a list is no share; write 1% or 0.01"),
        ({"metric": "m:f", "max_drop": True}, "max_drop: True is no share; write 1% or 0.01"),
        ({"samples": True}, "samples: True is no whole number"),
        ({"rounds": "3"}, "rounds: '3' is no whole number"),
        ({"seed": 1.5}, "seed: 1.5 is no whole number"),
    ],
)
def test_what_has_no_name_is_refused_in_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    tersor.save(parse(TEXT), tmp_path / "in.onnx")
    for command in (tersor.build, tersor.prune):
        with pytest.raises(UsageError) as told:
            command(tmp_path / "in.onnx", tmp_path / "out", **options)
        assert str(told.value).startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_loaded_model_is_no_path(tmp_path: Path) -> None:
    model: Any = parse(TEXT)
    with pytest.raises(
        UsageError, match=r"model is a Model, not a path; `tersor.save\(model, path\)` writes a model to one"
    ):
        tersor.build(model, tmp_path / "out")
    with pytest.raises(UsageError, match="out is empty; give a path"):
        tersor.build(tmp_path / "in.onnx", "")


def test_a_path_is_no_loaded_model() -> None:
    path: Any = "in.onnx"
    calls: list[Callable[[], object]] = [
        lambda: tersor.run(path),
        lambda: tersor.verify(path),
        lambda: tersor.save(path, "out.onnx"),
    ]
    for call in calls:
        with pytest.raises(
            UsageError, match=r"^model is a str, not a model; `tersor.load\(path\)` gives one$"
        ):
            call()


def test_what_is_no_path_and_no_pipeline_is_said() -> None:
    model: Any = parse(TEXT)
    with pytest.raises(UsageError, match="path is a Model, not a path"):
        tersor.load(model)
    with pytest.raises(UsageError, match=r"path is an int, not a path$"):
        tersor.save(model, 3)  # pyright: ignore[reportArgumentType]
    passes: Any = ["cse"]
    for call in (lambda: tersor.run(model, passes), lambda: tersor.optimize("a", "b", passes=passes)):
        with pytest.raises(UsageError, match="passes is a list; give pipeline text: 'fold-constants,cse'"):
            call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"macs": 3}, "macs is the share of the MACs to keep"),
        ({"ratio": 0.5, "align": 0}, "align must be at least 1, not 0"),
        ({"ratio": 0.5, "criterion": "taylor"}, "criterion 'taylor' looks at activations; give data"),
        ({}, "say how much is to go: ratio 0.3, macs 0.5, latency 0.6, or a plan"),
        ({"ratio": 0.5, "exclude": ["nope"]}, "exclude 'nope' fits no node and no value"),
    ],
)
def test_errors_name_parameters_and_no_options(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    tersor.save(parse(WIDE), tmp_path / "in.onnx")
    with pytest.raises(UsageError) as told:
        tersor.prune(tmp_path / "in.onnx", None, **options)
    assert str(told.value).startswith(said)


def test_only_options_that_a_function_has_are_renamed() -> None:
    with pytest.raises(DataError) as told, called_from(tersor.prune):
        raise DataError("--global, --max-drop, --save-plan and --min-sqnr failed")
    text = "whole_model, max_drop, save_plan and --min-sqnr failed"
    assert str(told.value) == text
    with pytest.raises(DataError, match=r"^min_sqnr_db and --global$"), called_from(tersor.build):
        raise DataError("--min-sqnr and --global")


def test_reports_are_one_short_line(tmp_path: Path) -> None:
    tersor.save(parse(WIDE), tmp_path / "in.onnx")
    optimized = tersor.optimize(tmp_path / "in.onnx", tmp_path / "opt.onnx")
    assert repr(optimized).startswith("Report(nodes 3 -> 3, bytes ")
    pruned = tersor.prune(tmp_path / "in.onnx", None, ratio=0.5)
    assert repr(pruned) == (
        "PruneReport(parameters 384 -> 192, MACs 768 -> 384, held=True, written=False; see to_dict(), notes)"
    )
    built = tersor.build(tmp_path / "in.onnx", tmp_path / "out", rounds=1)
    assert repr(built).startswith(f"BuildResult({built.winner.name!r} in ")
    for report in (optimized, pruned, built, built.winner):
        assert "\n" not in repr(report)
        assert len(repr(report)) < 200 + len(str(tmp_path))


def test_build_hands_its_arguments_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BuildSettings] = []
    monkeypatch.setattr("tersor.pipeline.builder.build", seen.append)
    options: dict[str, Any] = {"budget": "2m", "trials": "t.jsonl", "passes": "cse", "seed": 3}
    tersor.build("m.onnx", "out", metric="m:f", max_drop="0.5%", data=Path("d.npz"), **options)
    (got,) = seen
    assert (got.budget_s, got.trials, got.passes, got.seed) == (120, Path("t.jsonl"), "cse", 3)
    assert (got.max_drop, got.data) == (0.005, "d.npz")
    tersor.build("m.onnx", "out", budget=90)
    assert seen[1].budget_s == 90
    tersor.build("m.onnx", "out")
    assert seen[2].budget_s == BuildSettings(Path("m.onnx"), Path("out")).budget_s == 300
    with pytest.raises(UsageError, match="budget: a list is no time; write 90s, 2m or 1h30m"):
        tersor.build("m.onnx", "out", budget=[])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="min_sqnr_db: True is no number"):
        tersor.build("m.onnx", "out", min_sqnr_db=True)
