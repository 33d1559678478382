# SPDX-License-Identifier: Apache-2.0
"""What is timed together, and how two forms that were not are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tersor.backends.onnxruntime.latency import Latency, Runner, in_later_rounds, lead_of
from tersor.graph_ir import parse, save
from tersor.pipeline.builder import BuildSettings
from tersor.pipeline.builder.choose import pick, rivals, unasked
from tersor.pipeline.builder.result import Candidate
from tersor.pipeline.builder.timing import Stopwatch, relative_time, side_by_side
from tests.support.building import judged, latency, times

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }'
FEEDS = [{"x": np.zeros((2, 3), np.float32)}]
MS = {"original": 4.0, "a": 1.0, "b": 2.0, "c": 3.0, "d": 0.5}


def candidates(folder: Path) -> list[Candidate]:
    found: list[Candidate] = []
    for name in MS:
        save(parse(TEXT), folder / f"{name}.onnx")
        found.append(Candidate(name, folder / f"{name}.onnx"))
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was measured together; each time all is twice as slow as the time before."""
    found: list[list[str]] = []

    def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
        found.append(list(runners))
        return {name: latency(name, *[MS[name] * 2 ** len(found)] * 8) for name in runners}

    monkeypatch.setattr("tersor.pipeline.builder.timing.measure", measured)
    return found


@pytest.mark.parametrize(
    ("open_bytes", "together"),
    [
        (10**6, [["original", "a", "b", "c", "d"]]),
        (0, [["original", "b", "a"], ["original", "b", "c"], ["original", "b", "d"]]),
    ],
)
def test_large_models_are_timed_in_batches_beside_the_original_and_the_lead(
    open_bytes: int, together: list[list[str]], asked: list[list[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tersor.pipeline.builder.timing.OPEN_BYTES", open_bytes)
    settings = BuildSettings(tmp_path / "m.onnx", tmp_path / "out")
    found = side_by_side(candidates(tmp_path), "b", FEEDS, settings, 1)
    assert [sorted(names) for names in asked] == [sorted(names) for names in together]
    assert found["original"].rounds == found["b"].rounds == 8 * len(together)
    assert {found[name].rounds for name in "acd"} == {8}
    for name, ms in MS.items():
        assert relative_time({1: found}, name, "original") == pytest.approx(ms / 4)


def test_forms_are_told_apart_beside_the_lead() -> None:
    """In the second half a busy machine slows int8 down by half, and not the original."""
    first = {n: latency(n, *[t] * 8) for n, t in (("original", 4.0), ("lead", 1.0), ("a", 1.1))}
    second = {n: latency(n, *[t] * 8) for n, t in (("original", 4.0), ("lead", 1.5), ("b", 1.5))}
    both = {1: in_later_rounds(first, second)}
    assert lead_of(both[1], "original") == "lead"
    assert relative_time(both, "lead", "original") == pytest.approx(1.25 / 4)
    assert relative_time(both, "a", "original") == pytest.approx(1.1 * 1.25 / 4)
    assert relative_time(both, "b", "original") == pytest.approx(1.25 / 4)
    field = {c.name: (c, j) for c, j in (judged("original"), *(judged(n, 40) for n in ("lead", "a", "b")))}
    assert unasked(field, both, "a", "original") == "b", "though the two were never side by side"
    assert pick(field, both, "original")[0].name == "lead"


def test_the_search_times_beside_the_first_candidate(asked: list[list[str]], tmp_path: Path) -> None:
    original, a, b, c, _ = candidates(tmp_path)
    watch = Stopwatch(original, FEEDS)
    assert [watch(each) for each in (a, b, c)] == pytest.approx([0.25, 0.5, 0.75])
    assert asked == [["original", "a"], ["a", "b"], ["a", "c"]]


def test_rivals_are_those_whose_intervals_reach_the_best() -> None:
    field = {c.name: (c, j) for c, j in (judged("original"), *(judged(n, 40) for n in "abc"))}
    turns = {"original": [4.0] * 8, "a": [1.0] * 8, "b": [1.0, 1.2] * 4, "c": [1.2] * 8}
    timed = {1: {name: latency(name, *ms) for name, ms in turns.items()}}
    assert rivals(field, timed, "original") == ["a", "b"]
    steady = {1: {**timed[1], "b": latency("b", *[1.1] * 8)}}
    assert rivals(field, steady, "original") == []
    refused = field | {"b": (field["b"][0], replace(field["b"][1], accepted=False))}
    assert rivals(refused, timed, "original") == []


def test_what_is_as_fast_is_called_so() -> None:
    field = {c.name: (c, j) for c, j in (judged("original"), judged("a", 40), judged("b", 45))}
    assert ", as fast as a, and closer" in pick(field, times(original=4.0, a=1.0, b=1.01), "original")[1]
