# SPDX-License-Identifier: Apache-2.0
"""The ladder of placements: each rung holds the one before, and what is cheap and noisy goes first."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.shapes import infer_shapes
from tersor.calibration.sensitivity import Loss, Sensitivity
from tersor.calibration.switches import Part
from tersor.pipeline.builder.placement import (
    FIRST_DB,
    MOST_LOST,
    RUNGS,
    STEP_DB,
    Region,
    ladder,
    regions_of,
    share_of,
)
from tests.support.int8 import graph


def region(name: str, noise: float, cost: float = 1.0, gain: float | None = None) -> Region:
    return Region(name, noise, cost, cost if gain is None else gain)


def several(drawn: list[tuple[float, float, float]]) -> list[Region]:
    return [region(f"n{i}", noise, cost, cost * part) for i, (noise, cost, part) in enumerate(drawn)]


noises = st.one_of(st.floats(0, 1), st.just(math.inf))
regions = st.lists(st.tuples(noises, st.floats(0.5, 100), st.floats(0, 1)), max_size=40).map(several)


@given(regions, st.floats(-10, 40))
def test_rungs_grow_within_what_may_be_lost(drawn: list[Region], full_db: float) -> None:
    rungs = ladder(drawn, full_db, 35.0)
    assert len(rungs) <= RUNGS
    gain = {r.name: r.gain_us for r in drawn}
    noise = {r.name: r.noise for r in drawn}
    for rung in rungs:
        assert len(set(rung)) == len(rung) > 0
        assert sum(gain[name] for name in rung) <= MOST_LOST * sum(gain.values()) + 1e-6
        assert all(noise[name] > 0 for name in rung)
        assert all(name in rung for name, value in noise.items() if math.isinf(value))
    for before, after in pairwise(rungs):
        assert after[: len(before)] == before
        assert len(after) > len(before)


@given(regions, st.data())
def test_the_order_of_the_regions_does_not_matter(drawn: list[Region], data: st.DataObject) -> None:
    assert ladder(data.draw(st.permutations(drawn)), 20.0, 35.0) == ladder(drawn, 20.0, 35.0)


def test_noise_for_time_decides_not_noise_alone() -> None:
    drawn = [region("dear", 0.5, 100.0), region("cheap", 0.4, 1.0), region("quiet", 0.1, 100.0)]
    assert ladder(drawn, 30.0, 35.0)[0] == ("cheap",)


def test_each_rung_brings_a_step() -> None:
    drawn = [region(f"n{i}", 2.0**-i) for i in range(12)]
    total = sum(r.noise for r in drawn)
    left = [total - sum(2.0 ** -int(name[1:]) for name in rung) for rung in ladder(drawn, 23.0, 35.0)]
    brought = [10 * math.log10(total / rest) for rest in left]
    assert brought[0] >= FIRST_DB
    assert all(b >= STEP_DB * k for k, b in enumerate(brought[1:], 1))


def test_the_first_rung_is_a_small_one() -> None:
    first, second = ladder([region(f"n{i:02}", 1.0) for i in range(40)], 23.0, 35.0)
    assert len(first) == 9  # 10 lg (40 / 31) is 1.1 dB
    assert len(second) == 15  # and 10 lg (40 / 25) 2.0 dB


def test_nothing_noisy_makes_no_rungs() -> None:
    assert ladder([region("a", 0.0)], 20.0, 35.0) == []
    assert ladder([], 20.0, 35.0) == []


def test_a_larger_layer_costs_more_and_a_grouped_one_its_boundary() -> None:
    model = graph(
        "a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv<pads=[1,1,1,1], group=16>(a, w2) y = Conv(b, w3)",
        "float[16,8,3,3] w1 = {seed}, float[16,1,3,3] w2 = {seed}, float[4,16,1,1] w3 = {seed}",
        x="1,8,8,8", y="1,4,8,8",
    )  # fmt: skip
    infer_shapes(model)
    names = [node.name or f"{node.op_type}({node.outputs[0].name})" for node in model.graph]
    losses = tuple(Loss(Part(name, "region", "Conv", (), ""), 20.0, "y", 0.1) for name in names)
    first, second, third = regions_of(model, Sensitivity(losses, 1, 20.0, 20.0), {})
    assert first.gain_us > third.gain_us > second.gain_us == 0
    assert second.cost_us == pytest.approx(max(0.5, 2 * 16 * 64 * 4 * 60e-6))


def test_the_share_of_linear_work_counts_products_and_weights() -> None:
    """A classifier's last layer behind convolutions, with few weights and with many."""
    weights = "float[16,16,3,3] w = {seed}, float[16,%d] v = {seed}"
    body = "c = Conv<pads=[1,1,1,1]>(x, w) p = GlobalAveragePool(c) f = Flatten(p) y = MatMul(f, v)"
    small, large = (graph(body, weights % count, x="1,16,32,32", y=f"1,{count}") for count in (10, 40000))
    assert 0 < share_of(small, ("Gemm", "MatMul")) < 0.01
    assert 0.5 < share_of(large, ("Gemm", "MatMul")) < 1
    assert share_of(small, ("Gemm",)) == 0
    assert share_of(small, ("Conv", "MatMul")) == 1
