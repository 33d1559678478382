# SPDX-License-Identifier: Apache-2.0
"""The public API: small, typed, and free of cost until it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tersor
from tersor.graph_ir import ClaimError, UsageError, parse

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
    with pytest.raises(UsageError, match="--max-drop is a share"):
        tersor.build(tmp_path / "in.onnx", tmp_path / "out", max_drop=1.5)
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
    with pytest.raises(UsageError, match="give --metric too"):
        tersor.prune(tmp_path / "in.onnx", None, ratio=0.5, max_drop=0.01)
    with pytest.raises(UsageError, match="width"):
        tersor.prune(tmp_path / "in.onnx", None, width=0.5)
