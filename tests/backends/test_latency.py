# SPDX-License-Identifier: Apache-2.0
"""Turn-by-turn measurement and paired statistics, on a clock that the test drives."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tersor.backends.onnxruntime.config import SessionConfig
from tersor.backends.onnxruntime.latency import (
    Latency,
    compare,
    in_later_rounds,
    measure,
    own_clock,
    session_runners,
)
from tersor.graph_ir import DataError


class Machine:
    """A clock, and candidates that move it; `load` slows everything down as time goes on."""

    def __init__(self, load: Callable[[float], float] = lambda _: 1.0) -> None:
        self.now = 0.0
        self.log: list[str] = []
        self._load = load

    def clock(self) -> float:
        return self.now

    def candidate(
        self, name: str, seconds: float, jitter: Callable[[], float] = lambda: 1.0
    ) -> Callable[[int], None]:
        def run(_: int) -> None:
            self.log.append(name)
            self.now += seconds * self._load(self.now) * jitter()

        return run


def latency(name: str, *turns: float) -> Latency:
    return Latency(name, turns, min(turns), 1)


def test_candidates_take_turns() -> None:
    machine = Machine()
    runs = {"a": machine.candidate("a", 1.0), "b": machine.candidate("b", 1.0)}
    measure(runs, rounds=3, clock=machine.clock)
    assert "".join(machine.log) == "aa" + "bb" + "ab" * 3


def test_each_round_has_a_feed_of_its_own_for_all_candidates() -> None:
    machine = Machine()
    asked: list[tuple[str, int]] = []

    def candidate(name: str, seconds: float) -> Callable[[int], None]:
        def run(number: int) -> None:
            asked.append((name, number))
            machine.now += seconds * (1 + number)

        return run

    found = measure({"a": candidate("a", 0.5), "b": candidate("b", 1.0)}, rounds=3, clock=machine.clock)
    assert asked[4:] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert found["b"].turns_ms == (1000.0, 2000.0, 3000.0)
    ratio = compare(found["a"], found["b"])
    assert ratio.median == pytest.approx(0.5)


def test_short_runs_fill_their_turn_after_one_that_does_not_count() -> None:
    machine = Machine()
    found = measure({"a": machine.candidate("a", 0.005)}, rounds=2, min_time=0.02, clock=machine.clock)
    assert found["a"].repeats == 4
    assert len(machine.log) == 2 + 2 * (1 + 4)
    assert found["a"].median_ms == pytest.approx(5.0)


def test_runs_can_have_a_clock_of_their_own() -> None:
    machine, own = Machine(), Machine()

    def run(_: int) -> None:
        machine.now += 4.0
        own.now += 1.0

    found = measure({"a": run}, rounds=50, budget_s=20, clock=machine.clock, run_clock=own.clock)
    assert (found["a"].rounds, found["a"].median_ms) == (3, 1000.0)
    assert own_clock(2) is time.perf_counter
    assert own_clock(1) in (time.thread_time, time.perf_counter)


def test_a_low_quantile_of_a_turn_passes_over_interruptions() -> None:
    machine, count = Machine(), 0

    def jitter() -> float:
        nonlocal count
        count += 1
        return 5.0 if count % 3 == 0 else 1.0

    runs = {"a": machine.candidate("a", 0.001, jitter)}
    assert measure(runs, rounds=4, quantile=0.25, clock=machine.clock)["a"].median_ms == pytest.approx(1.0)
    assert measure(runs, rounds=4, quantile=0.9, clock=machine.clock)["a"].median_ms == pytest.approx(5.0)


def test_a_slow_minute_hits_all_candidates_alike() -> None:
    machine = Machine(load=lambda now: 3.0 if 10 < now < 25 else 1.0)
    runs = {"a": machine.candidate("a", 0.9), "b": machine.candidate("b", 1.0)}
    found = measure(runs, rounds=20, clock=machine.clock)
    assert found["a"].p90_ms > 2 * found["a"].min_ms
    ratio = compare(found["a"], found["b"])
    assert ratio.median == pytest.approx(0.9)
    assert ratio.high < 1


def test_equal_candidates_in_noise_are_not_told_apart() -> None:
    draw = random.Random(5)
    wrong = 0
    for _ in range(100):
        a = latency("a", *(draw.lognormvariate(0, 0.3) for _ in range(25)))
        b = latency("b", *(draw.lognormvariate(0, 0.3) for _ in range(25)))
        wrong += compare(a, b).decided
    assert wrong <= 10


def test_the_interval_is_that_of_the_sign_test() -> None:
    a = latency("a", *range(1, 11))
    ratio = compare(a, latency("b", *[1.0] * 10))
    # With 10 rounds the second smallest and second largest hold the median with 97.9 %.
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((5.5, 2.0, 9.0))


def test_five_rounds_decide_nothing() -> None:
    ratio = compare(latency("a", *[1.0] * 5), latency("b", *[2.0] * 5))
    assert (ratio.median, ratio.low, ratio.high) == (pytest.approx(0.5), 0.0, math.inf)
    assert not ratio.decided
    assert compare(latency("a", *[1.0] * 6), latency("b", *[2.0] * 6)).decided


def test_the_budget_ends_the_rounds_but_not_the_first() -> None:
    machine = Machine()
    found = measure({"a": machine.candidate("a", 1.0)}, rounds=50, budget_s=7.5, clock=machine.clock)
    assert (found["a"].rounds, machine.now <= 7.5) == (5, True)
    machine = Machine()
    assert measure({"a": machine.candidate("a", 9.0)}, budget_s=1.0, clock=machine.clock)["a"].rounds == 1


def test_a_clock_that_stands_still_is_survived() -> None:
    found = measure({"a": lambda _: None, "b": lambda _: None}, rounds=8, clock=lambda: 0.0)
    assert compare(found["a"], found["b"]).median == 1.0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(DataError, match="at least one candidate"):
        measure({})
    with pytest.raises(DataError, match="side by side"):
        compare(*in_later_rounds({"a": latency("a", 1.0)}, {"b": latency("b", 2.0)}).values())


def test_only_rounds_of_both_are_compared() -> None:
    first = {
        "original": latency("original", 1.0, 1.0),
        "lead": latency("lead", 2.0, 2.0),
        "a": latency("a", 3.0, 5.0),
    }
    second = {"original": latency("original", 8.0), "lead": latency("lead", 4.0), "b": latency("b", 16.0)}
    third = {"original": latency("original", 1.0), "a": latency("a", 9.0)}
    both = in_later_rounds(in_later_rounds(first, second), third)
    assert both["original"].turns_ms == (1.0, 1.0, 8.0, 1.0)
    assert both["a"].by_round == {0: 3.0, 1: 5.0, 3: 9.0}
    assert both["lead"].min_ms == 2.0
    found = compare(both["a"], both["original"])
    assert (found.median, found.rounds) == (pytest.approx(5.0), 3)
    assert compare(both["b"], both["original"]).median == pytest.approx(2.0)
    assert compare(both["b"], both["lead"]).median == pytest.approx(4.0)
    with pytest.raises(DataError, match="'a' and 'b' were not measured side by side"):
        compare(both["a"], both["b"])


def test_percentiles_are_interpolated_between_rounds() -> None:
    found = Latency("m", (3.0, 1.0, 2.0), 1.0, 1)
    assert (found.p10_ms, found.median_ms, found.p90_ms) == pytest.approx((1.2, 2.0, 2.8))
    assert Latency("m", (7.0,), 7.0, 1).p90_ms == 7.0


def test_session_runners_run_the_models_and_close_them() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20]> g (float[4] x) => (float[4] y) { y = Neg(x) }'
    )
    feeds = [{"x": np.full(4, k, np.float32)} for k in (1, 2)]
    with session_runners({"a": (model, SessionConfig())}, feeds) as runners:
        for number, value in enumerate([-1.0, -2.0, -1.0]):
            assert np.array_equal(np.asarray(runners["a"](number)), [[value] * 4])
    with pytest.raises(DataError), session_runners({"a": (model, SessionConfig())}, [*feeds, {}]):
        pass


def test_the_share_of_the_time_that_the_process_had_a_processor_for() -> None:
    machine, work = Machine(), Machine()

    def run(number: int) -> None:
        machine.now += 2.0
        work.now += 1.0 if number % 2 else 3.0

    runs = {"a": run}
    first = measure(runs, rounds=3, clock=machine.clock, work_clock=work.clock)
    assert first["a"].share == pytest.approx((3 + 1 + 3) / 6)
    more = measure(runs, rounds=1, clock=machine.clock, work_clock=work.clock)
    assert in_later_rounds(first, more)["a"].share == pytest.approx((3 + 1 + 3 + 3) / 8)
    assert measure({"a": lambda _: None}, rounds=2, clock=lambda: 0.0)["a"].share == 1.0
