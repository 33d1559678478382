# SPDX-License-Identifier: Apache-2.0
"""A form is refused as slower on evidence only, not by the noise of a busy machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tersor.backends.onnxruntime.latency import Latency, Runner
from tersor.graph_ir import parse, to_proto
from tersor.pipeline.builder.choose import in_doubt, pick
from tersor.pipeline.builder.timing import not_slower, relative_time, undisturbed
from tests.support.building import judged, latency, quick, times

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[2,3] y)
    { i = Identity(x) y = Relu(i) }"""


def test_what_looks_slower_by_noise_alone_is_timed_once_more_and_not_refused() -> None:
    rounds = [0.5, 2.2, 0.6, 2.4, 2.1, 0.7, 2.3, 2.5, 0.8, 2.6, 2.2, 0.9]  # a busy machine: median 2.15
    steady = {1: {n: latency(n, *[t] * 12) for n, t in (("a", 0.5), ("b", 0.9), ("original", 1.0))}}
    noisy = {2: {n: latency(n, *t) for n, t in (("a", rounds), ("b", [0.9] * 12), ("original", [1.0] * 12))}}
    candidates = {c.name: (c, j) for c, j in (judged("original"), judged("a", 40), judged("b", 40))}
    both = steady | noisy
    assert relative_time(both, "a", "original") > relative_time(both, "b", "original")
    assert not_slower(both, "a", "original")
    assert in_doubt(candidates, both, "original") == [], "whatever it were, it would not be chosen"
    half = {2: {**noisy[2], "a": latency("a", *(min(ms, 1.3) for ms in rounds))}}
    assert in_doubt(candidates, steady | half, "original") == [2]
    assert pick(candidates, steady | half, "original")[0].name == "a"
    sure = {2: {**noisy[2], "a": latency("a", *[1.3] * 12)}}
    assert not not_slower(steady | sure, "a", "original")
    assert in_doubt(candidates, steady | sure, "original") == []


def test_what_looks_slower_somewhere_ships_only_where_it_is_clearly_the_fastest() -> None:
    noisy = [0.95, 1.06] * 3 + [1.06] * 4  # on 2 threads 1.06, of which the interval holds 1

    def timed(one: float, other: float) -> dict[int, Mapping[str, Latency]]:
        rounds = {"original": [1.0] * 10, "float": noisy, "b": [other] * 10}
        first = {"original": 1.0, "float": one, "b": other}
        return {
            1: {name: latency(name, *[ms] * 10) for name, ms in first.items()},
            2: {name: latency(name, *turns) for name, turns in rounds.items()},
        }

    candidates = {c.name: (c, j) for c, j in (judged("original"), judged("float"), judged("b", 50))}
    taken = timed(0.94, 1.5)
    assert relative_time(taken, "float", "original") < 1
    assert not_slower(taken, "float", "original")
    assert in_doubt(candidates, taken, "original") == [], "it gains too little to be asked once more"
    assert pick(candidates, taken, "original")[0].name == "original"
    winner, why = pick(candidates, timed(0.6, 0.8), "original")
    assert winner.name == "b"
    assert "and float may be slower" in why
    assert pick(candidates, timed(0.5, 0.8), "original")[0].name == "float"


def test_rounds_are_added_where_the_fastest_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    busy = [0.5, 1.3] * 3 + [1.3] * 2

    def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
        asked.append(list(runners))
        of_float = busy if len(asked) == 2 else [0.5] * 8
        return {name: latency(name, *([1.0] * 8 if name == "original" else of_float)) for name in runners}

    monkeypatch.setattr("tersor.pipeline.builder.timing.measure", measured)
    monkeypatch.setattr("tersor.pipeline.builder.timing.usable_cores", lambda: 2)
    result = quick(to_proto(parse(TEXT)), tmp_path / "out")
    assert asked == [["original", "float"]] * 3, "on 1, on 2 and once more on 2 threads"
    assert {n: by_name["float"].rounds for n, by_name in result.latency.items()} == {1: 8, 2: 16}
    assert result.latency[2]["original"].rounds == 16
    assert result.winner.name == "float"


def test_times_that_other_programs_had_the_cores_in_have_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
        asked.extend(runners)
        slow = 2.0 if len(asked) > len(runners) else 0.5  # on the second number of threads
        share = 0.6 if len(asked) > len(runners) else 1.0
        found = {n: latency(n, *[1.0 if n == "original" else slow] * 8) for n in runners}
        return {name: replace(time, share=share) for name, time in found.items()}

    monkeypatch.setattr("tersor.pipeline.builder.timing.measure", measured)
    monkeypatch.setattr("tersor.pipeline.builder.timing.usable_cores", lambda: 2)
    result = quick(to_proto(parse(TEXT)), tmp_path / "out")
    assert result.winner.name == "float"
    assert "2.00 times the original's speed" in result.why
    assert "threads" not in result.why
    assert set(result.latency) == {1, 2}, "they are shown"
    (note,) = (note for note in result.notes if "cores" in note)
    assert note.startswith("other programs had the cores for 40% of the time on 2 threads")
    assert undisturbed(result.latency).keys() == {1}
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [report["latency"][threads]["float"]["share"] for threads in "12"] == [1.0, 0.6]
    alone = {threads: {"a": replace(latency("a", 1.0), share=0.3)} for threads in (1, 2)}
    assert undisturbed(alone).keys() == {1}, "one thread's are of processor time"


def test_what_is_a_little_slower_than_the_original_is_not_shipped() -> None:
    candidates = {c.name: (c, j) for c, j in (judged("original"), judged("float"))}
    winner, why = pick(candidates, times(original=1.0, float=1.006), "original")
    assert winner.name == "original"
    assert why == "original: nothing that keeps within the limits is faster and as close"
    why = pick(candidates, times(original=1.0, float=0.5), "original")[1]
    assert " by 3 rounds, too few to be sure, the fastest " in why
