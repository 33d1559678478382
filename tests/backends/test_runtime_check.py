# SPDX-License-Identifier: Apache-2.0
"""Threads and callers: equal answers pass, a wrong one stops everything with its place."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tersor.backends.base import Feed
from tersor.backends.onnxruntime.runtime_check import (
    MismatchError,
    Tolerance,
    call_concurrently,
    check_concurrency,
    output_steps,
)
from tersor.graph_ir import DataError
from tests.support.qdq_models import Qdq

FEEDS = [{"x": np.full(3, float(i), np.float32)} for i in range(3)]
EXPECTED = [[feed["x"] * 2] for feed in FEEDS]


class Doubler:
    """Doubles `x`, but not in call number `wrong_at`."""

    def __init__(self, wrong_at: int = -1) -> None:
        self.calls = 0
        self._wrong_at = wrong_at
        self._lock = threading.Lock()

    def __call__(self, feed: Feed) -> list[NDArray[Any]]:
        with self._lock:
            self.calls += 1
            wrong = self.calls == self._wrong_at
        return [feed["x"] * np.float32(2.5 if wrong else 2)]


def quantized_model() -> onnx.ModelProto:
    g = Qdq([1, 16, 8, 8])
    tensor = g.qdq(g.op("Relu", g.conv(g.qdq("x"), 16, 16, name="conv"), name="relu"))
    return g.model(tensor, g.op("HardSwish", tensor, name="swish"))


def test_every_setting_of_a_real_model_agrees() -> None:
    draw = np.random.default_rng(0)
    feeds = [{"x": draw.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(3)]
    found = check_concurrency(quantized_model(), feeds, runs=12, threads=(1, 2), callers=(1, 3), budget_s=60)
    assert [(c.mode, c.threads, c.callers) for c in found] == [
        (mode, threads, callers)
        for mode in ("shared", "separate")
        for threads in (1, 2)
        for callers in (1, 3)
    ]
    assert all(c.runs == 12 and c.runs_per_s > 0 and 0 < c.p50_ms <= c.p99_ms for c in found)


def test_calls_are_spread_over_all_callers() -> None:
    runners = [Doubler(), Doubler()]
    times, elapsed = call_concurrently(
        runners, FEEDS, EXPECTED, ["y"], runs=11, budget_s=60, tolerance=Tolerance()
    )
    assert ([r.calls for r in runners], len(times)) == ([6, 5], 11)
    assert elapsed > 0


def test_a_wrong_answer_soon_stops_all_callers() -> None:
    runners = [Doubler(), Doubler(wrong_at=2)]
    with pytest.raises(MismatchError, match=r"two callers, feed 0: output 'y' is off by") as error:
        call_concurrently(
            runners, [FEEDS[2]], [EXPECTED[2]], ["y"], runs=10**6, budget_s=60, tolerance=Tolerance(),
            title="two callers",
        )  # fmt: skip
    assert error.value.exit_code == 1
    assert runners[1].calls <= 64  # answers are compared together, so that no call waits for it
    assert runners[0].calls < 5 * 10**5


def test_comparing_is_not_within_the_time_of_calls() -> None:
    class Slow(Tolerance):
        def excess(self, name: str, got: object, want: object) -> str:
            time.sleep(0.002)
            return ""

    runners = [Doubler(), Doubler()]
    begun = time.perf_counter()
    _, elapsed = call_concurrently(
        runners, FEEDS, EXPECTED, ["y"], runs=260, budget_s=60, tolerance=Slow(), title="slow to compare"
    )
    whole = time.perf_counter() - begun
    assert [runner.calls for runner in runners] == [130, 130]
    assert elapsed < whole - 128 * 0.002  # of the 130 answers of each caller


def test_large_answers_are_not_kept() -> None:
    waiting = most = 0

    class Watching(Tolerance):
        def excess(self, name: str, got: object, want: object) -> str:
            nonlocal waiting
            waiting -= 1
            return ""

    def run(_: Feed) -> list[NDArray[Any]]:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return [np.zeros(2**22, np.float32)]

    call_concurrently([run], FEEDS, EXPECTED, ["y"], runs=9, budget_s=60, tolerance=Watching())
    assert (waiting, most) == (0, 2)


def test_an_answer_to_another_feed_is_seen() -> None:
    def always_first(_: Feed) -> list[NDArray[Any]]:
        return EXPECTED[0]

    with pytest.raises(MismatchError, match="feed 1"):
        call_concurrently([always_first], FEEDS, EXPECTED, ["y"], runs=3, budget_s=60, tolerance=Tolerance())


def test_an_error_of_a_runner_comes_through() -> None:
    def broken(_: Feed) -> list[NDArray[Any]]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call_concurrently(
            [Doubler(), broken], FEEDS, EXPECTED, ["y"], runs=10**6, budget_s=60, tolerance=Tolerance()
        )


def test_a_spent_budget_still_calls_once() -> None:
    runner = Doubler()
    times, _ = call_concurrently(
        [runner], FEEDS, EXPECTED, ["y"], runs=10**6, budget_s=0.0, tolerance=Tolerance()
    )
    assert 1 <= len(times) < 10**5


@pytest.mark.parametrize(
    ("got", "want", "excess"),
    [
        (np.array([1, 5], np.uint8), np.array([2, 5], np.uint8), ""),
        (np.array([1, 5], np.uint8), np.array([3, 5], np.uint8), "2 quantization steps"),
        (np.array([0.5], np.float32), np.array([0.75], np.float32), ""),
        (np.array([0.5], np.float32), np.array([1.25], np.float32), "3 quantization steps"),
        (np.array([np.nan, 1], np.float32), np.array([np.nan, 1], np.float32), ""),
        (np.array([np.nan, 1], np.float32), np.array([1, np.nan], np.float32), "NaN in other places"),
        (np.array([np.inf], np.float32), np.array([np.inf], np.float32), ""),
        (np.array([np.inf], np.float32), np.array([1], np.float32), "off by"),
        (np.array([True]), np.array([False]), "differs"),
        (np.array([1], np.float32), np.array([1], np.float64), "instead of"),
        (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), ""),
    ],
)
def test_distance_in_quantization_steps(got: NDArray[Any], want: NDArray[Any], excess: str) -> None:
    answer = Tolerance(steps=1, step_of={"y": 0.25}).excess("y", got, want)
    assert excess in answer
    assert bool(excess) == bool(answer)


def test_outputs_behind_quantized_values_may_move_by_a_part_of_their_noise() -> None:
    want, limits = np.array([0.5, 8.0], np.float32), Tolerance(noise_of={"y": 1e-3})
    assert limits.excess("y", want + np.float32(0.007), want) == ""
    assert "off by 0.009" in limits.excess("y", want + np.float32(0.009), want)
    assert "off by 0.007" in limits.excess("z", want + np.float32(0.007), want)
    steps = Tolerance(step_of={"y": 0.25}, noise_of={"y": 0.1})
    assert steps.excess("y", want + np.float32(0.75), want) == ""
    assert "quantization steps" in steps.excess("y", want + np.float32(1), want)


def test_distance_in_rounding_without_a_step() -> None:
    want = np.array([100.0, 1.0], np.float32)
    assert Tolerance().excess("y", np.array([100.0, 1.0005], np.float32), want) == ""
    assert "off by" in Tolerance().excess("y", np.array([100.0, 1.01], np.float32), want)


def test_values_that_are_no_numbers_agree_with_themselves_only() -> None:
    odd: NDArray[Any] = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert Tolerance().excess("y", np.array(odd), odd) == ""
    assert Tolerance().excess("y", np.array(odd[:1]), odd[:1]) == ""
    assert "NaN in other places" in Tolerance().excess("y", np.flip(odd), odd)
    assert "off by inf" in Tolerance().excess("y", np.array([np.nan, np.inf, 0.0, 1.0], np.float32), odd)


def test_halves_may_differ_by_a_few_units() -> None:
    want = np.array([1.0, 0.5], np.float16)
    assert Tolerance().excess("y", np.array([1.001, 0.5], np.float16), want) == ""
    assert "off by" in Tolerance().excess("y", np.array([1.01, 0.5], np.float16), want)


def test_sequences_are_compared_item_by_item() -> None:
    one, two = np.array([1.0], np.float32), np.array([2.0], np.float32)
    assert Tolerance().excess("y", [one, two], [one, two]) == ""
    assert "off by" in Tolerance().excess("y", [one, one], [one, two])
    assert Tolerance().excess("y", [one], [one, two]) == "has 1 items instead of 2"
    assert Tolerance().excess("y", {"a": 1.0}, {"a": 2.0}) == "differs"


def test_steps_are_read_from_outputs_that_are_dequantized() -> None:
    model = quantized_model()
    dequantized, computed = (value.name for value in model.graph.output)
    steps = output_steps(model)
    assert steps == {dequantized: pytest.approx(0.05)}
    assert computed not in steps


def test_no_feed_is_refused() -> None:
    with pytest.raises(DataError, match="at least one feed"):
        check_concurrency(quantized_model(), [])
