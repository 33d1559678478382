# SPDX-License-Identifier: Apache-2.0
"""`report.json` of made-up results, hashes of the lock file, and what settings refuse."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tersor.backends.onnxruntime.audit import Audit, AuditRow
from tersor.backends.onnxruntime.runtime_check import Concurrency
from tersor.graph_ir import UsageError
from tersor.pipeline.builder import BuildResult, BuildSettings
from tersor.pipeline.builder.lock import code_hash, hash_files
from tersor.pipeline.builder.report import to_dict
from tersor.pipeline.builder.result import Facts, Proof
from tests.support.building import closeness, judged, latency

SETTINGS = BuildSettings(Path("m.onnx"), Path("out"))
KEYS = [
    "report", "model", "target", "shipped", "words", "why", "unmet", "pipeline", "observer", "limits",
    "facts", "speedup", "candidates", "latency", "int8", "sensitivity", "concurrency", "notes",
]  # fmt: skip
LOST = replace(
    judged("int8", drop=0.5)[1],
    drop=math.inf,
    fidelity={"y": closeness(-math.inf), "z": closeness(math.nan)},
)


def result(**changes: Any) -> BuildResult:
    """An int8 winner over an original."""
    original, best = judged("original", drop=0.0), judged("int8", 30.0, drop=0.001)
    row = AuditRow("gemm", "Gemm", "Gemm", "float", "no-q", "it has no quantized input")
    found = BuildResult(
        winner=best[0],
        why="int8: made up",
        before=original[0],
        facts={"original": Facts(10, 20, 400, 2), "int8": Facts(10, 20, 100, 5)},
        judged={"original": original, "int8": best},
        latency={1: {"original": latency("original", 2, 4, 6), "int8": latency("int8", 1, 2, 3)}},
        proof=Proof(audit_of(row), [Concurrency("shared", 1, 4, 64, 100.0, 1.0, 2.0)], ""),
        notes=["a note"],
    )
    return replace(found, **changes)


def audit_of(*rows: AuditRow) -> Audit:
    return Audit(rows, (), 1, 2, 1, 30.0, 20.0)


def plain(report: dict[str, Any]) -> dict[str, Any]:
    """The report as it comes back from a strict JSON reader."""
    return json.loads(json.dumps(report, allow_nan=False))


def test_the_keys_are_always_the_same() -> None:
    bare = result(latency={}, proof=Proof(None, [], ""), facts={}, notes=[])
    assert list(to_dict(result(), SETTINGS)) == KEYS
    assert list(to_dict(bare, SETTINGS)) == KEYS
    assert plain(to_dict(bare, SETTINGS))["int8"] is None


def test_figures_are_those_of_the_result() -> None:
    report = plain(to_dict(result(), SETTINGS))
    assert report["shipped"] == "int8"
    assert report["speedup"] == {"1": 2.0}
    assert report["latency"]["1"]["int8"]["over_original"][1] == 0.5
    assert report["facts"]["int8"] == {
        "parameters": 10, "macs": 20, "size": 100, "nodes": 5, "uncounted": 0,
    }  # fmt: skip
    assert report["int8"]["linear_int8"] == 1
    assert [entry["name"] for entry in report["candidates"]] == ["original", "int8"]
    assert report["candidates"][1]["fidelity"]["y"]["sqnr_db"] == 30.0


def test_what_json_has_no_number_for_is_text() -> None:
    candidates = {"original": judged("original"), "int8": (judged("int8")[0], LOST)}
    report = plain(to_dict(result(judged=candidates), SETTINGS))
    entry = report["candidates"][1]
    assert entry["drop"] == "inf"
    assert (entry["fidelity"]["y"]["sqnr_db"], entry["fidelity"]["z"]["sqnr_db"]) == ("-inf", "nan")
    assert report["latency"]["1"]["int8"]["over_original"][2] == "inf"  # three rounds decide nothing


def test_the_speed_of_what_was_not_timed_is_one() -> None:
    assert result(latency={}).speedup(1) == 1.0
    assert result(latency={1: {"original": latency("original", 2)}}).speedup(1) == 1.0
    with pytest.raises(UsageError, match="nothing was timed on 99 threads, but on 1"):
        result(latency={1: {"original": latency("original", 2)}}).speedup(99)


def test_hashes_follow_the_content_and_the_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    both = [tmp_path / "a", tmp_path / "b"]
    first = hash_files(both)
    assert len(first) == 32
    assert hash_files(both) == first
    assert hash_files(both[::-1]) != first
    (tmp_path / "b").write_bytes(b"3")
    assert hash_files(both) != first
    assert code_hash() == code_hash()


@pytest.mark.parametrize(("budget_s", "time"), [(20, 5.0), (1e-9, 2.0), (300, 10.0), (math.inf, 10.0)])
def test_a_small_budget_bounds_what_comes_behind_the_search_too(budget_s: float, time: float) -> None:
    settings = BuildSettings(Path("m.onnx"), Path("out"), budget_s=budget_s)
    assert settings.at_most(10.0) == time


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "foo"}, "no target is called 'foo'; there is onnxruntime-cpu"),
        ({"max_drop": 1.0}, "from 0 to below 1, not 1, which is 100 %; 1 % is written 1% or 0.01"),
        ({"max_drop": 1.5}, "not 1.5, which is 150 %; 1.5 % is written 1.5% or 0.015"),
        ({"max_drop": -0.1}, "not -0.1"),
        ({"max_drop": math.nan}, "not nan"),
        ({"min_sqnr_db": math.nan}, "--min-sqnr is a number of dB, not nan"),
        ({"min_sqnr_db": math.inf}, "not inf"),
        ({"passes": "cse", "recipe": "int8"}, "give --passes or --recipe, not both"),
        ({"samples": 0}, "--samples must be at least 1, not 0"),
        ({"rounds": 0}, "--rounds must be at least 1, not 0"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"out": Path(__file__)}, "is a file; -o names a folder"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SETTINGS, **changes).check()


@pytest.mark.parametrize("changes", [{}, {"max_drop": 0.0}, {"min_sqnr_db": -5.0}, {"samples": None}])
def test_settings_that_mean_something_are_taken(changes: dict[str, Any]) -> None:
    assert replace(SETTINGS, **changes).check() is None
