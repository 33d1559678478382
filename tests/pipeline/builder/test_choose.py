# SPDX-License-Identifier: Apache-2.0
"""The choice among candidates: never slower than the original, never refused, never by luck."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph_ir import parse
from tersor.pipeline.builder.choose import TIE, contenders, distrust, pick, unasked
from tersor.pipeline.builder.model_facts import composition
from tersor.pipeline.builder.timing import NOISE, not_slower, relative_time
from tests.support.building import Judged, judged, latency, times

Drawn = tuple[dict[str, Judged], dict[int, Any]]


def field(*candidates: Judged) -> dict[str, Judged]:
    return {candidate.name: (candidate, judgement) for candidate, judgement in candidates}


def chosen(candidates: dict[str, Judged], timing: Any) -> str:
    return pick(candidates, timing, "original")[0].name


def test_relative_time_is_of_paired_rounds() -> None:
    timing = {1: {"a": latency("a", 1, 20, 3), "original": latency("original", 2, 40, 6)}}
    assert relative_time(timing, "a", "original") == pytest.approx(0.5)


def test_relative_time_is_the_geometric_mean_over_thread_counts() -> None:
    timing = times(a=1.0, original=2.0) | {2: times(a=8.0, original=4.0)[1]}
    assert relative_time(timing, "a", "original") == pytest.approx(1.0)


def test_slower_at_one_thread_count_is_slower() -> None:
    timing = times(a=1.0, original=2.0) | {2: times(a=2.2, original=2.0)[1]}
    assert relative_time(timing, "a", "original") < 1
    assert not not_slower(timing, "a", "original")
    assert not_slower({1: timing[1]}, "a", "original")
    why = pick(field(judged("original"), judged("a", 40)), timing, "original")[1]
    assert "slower than the original on 1 or 2 threads: a" in why


def test_few_rounds_give_a_figure_and_a_doubt() -> None:
    candidates = field(judged("original"), judged("a", 30.0))
    few = {1: {"a": latency("a", 1, 2), "original": latency("original", 2, 4)}}
    assert (
        "2.00 times the original's speed by 2 rounds, too few to be sure,"
        in pick(candidates, few, "original")[1]
    )
    many = {1: {n: latency(n, *[t] * 12) for n, t in (("a", 1.0), ("original", 2.0))}}
    assert pick(candidates, many, "original")[1].startswith("a: 2.00 times the original's speed,")


def test_noise_is_not_slowness() -> None:
    assert not_slower(times(a=1 + NOISE / 2, original=1.0), "a", "original")
    assert not not_slower(times(a=1 + 2 * NOISE, original=1.0), "a", "original")


def test_the_fastest_accepted_one_wins() -> None:
    candidates = field(judged("original"), judged("float", 120), judged("a", 40), judged("b", 41))
    assert chosen(candidates, times(original=4.0, float=3.0, a=1.0, b=2.0)) == "a"


def test_a_refused_one_never_wins() -> None:
    candidates = field(judged("original"), judged("a", 40, accepted=False), judged("b", 40))
    winner, why = pick(candidates, times(original=4.0, a=1.0, b=2.0), "original")
    assert winner.name == "b"
    assert "refused: a (made up)" in why


def test_one_that_was_not_timed_never_wins() -> None:
    candidates = field(judged("original"), judged("a", 40), judged("b", 40))
    assert chosen(candidates, times(original=4.0, b=2.0)) == "b"


def test_nothing_accepted_leaves_the_original() -> None:
    candidates = field(
        judged("original"), judged("float", 30, accepted=False), judged("a", 9, accepted=False)
    )
    winner, why = pick(candidates, times(original=4.0, float=1.0, a=1.0), "original")
    assert winner is candidates["original"][0]
    assert "a (made up)" in why
    assert "float (made up)" in why


def test_nothing_faster_leaves_the_original() -> None:
    candidates = field(judged("original"), judged("float", 130), judged("a", 40))
    winner, why = pick(candidates, times(original=1.0, float=1.1, a=1.5), "original")
    assert winner.name == "original"
    assert why.startswith("original: nothing that keeps within the limits is faster")
    assert "slower than the original: float, a" in why


def test_nothing_timed_leaves_the_original() -> None:
    assert chosen(field(judged("original"), judged("float")), {}) == "original"


def test_an_original_that_is_refused_itself_is_still_the_last_resort() -> None:
    candidates = field(judged("original", 3, accepted=False), judged("float", 3, accepted=False))
    assert chosen(candidates, times(original=1.0, float=0.5)) == "original"


def test_ties_go_to_the_more_accurate_and_then_to_the_faster() -> None:
    original, a, b = judged("original"), judged("a", 40), judged("b", 45)
    assert chosen(field(original, a, b), times(original=4.0, a=1.0, b=1.0 + TIE / 2)) == "b"
    assert chosen(field(original, a, b), times(original=4.0, a=1.0, b=1.0 + 2 * TIE)) == "a"
    assert chosen(field(original, a, judged("b", 40)), times(original=4.0, a=1.001, b=1.0)) == "b"
    alike = [(replace(candidate, composition=(("Conv", 1),)), found) for candidate, found in (a, b)]
    assert chosen(field(original, *alike), times(original=4.0, a=1.0, b=2.0)) == "b", "by noise"


def test_speed_is_given_for_closeness_that_is_missing() -> None:
    candidates = field(judged("original"), judged("a", 18), judged("b", 35))
    winner, why = pick(candidates, times(original=4.0, a=1.0, b=1.1), "original")
    assert winner.name == "b"
    assert "closer than a" in why
    assert chosen(candidates, times(original=4.0, a=1.0, b=1.5)) == "a"


def test_little_closeness_buys_little_speed() -> None:
    """Regression: half a dB more once bought a fifth of the speed."""
    candidates = field(judged("original"), judged("a", 22), judged("b", 22.5))
    assert chosen(candidates, times(original=4.0, a=1.0, b=1.1)) == "a"


def test_no_speed_is_given_for_closeness_that_nobody_needs() -> None:
    candidates = field(judged("original"), judged("a", 50), judged("b", 70))
    assert chosen(candidates, times(original=4.0, a=1.0, b=1.1)) == "a"


def test_what_is_expected_to_be_lost_is_the_price_where_it_is_known() -> None:
    """1 % costs 10 % of the time, however far off the outputs are."""
    slow, fast = judged("slow", 60, drop=0.0), expecting("fast", 15.0, 0.005)
    assert chosen(field(judged("original"), slow, fast), times(original=4.0, slow=1.1, fast=1.0)) == "fast"
    assert chosen(field(judged("original"), slow, fast), times(original=4.0, slow=1.02, fast=1.0)) == "slow"


def test_faster_ones_are_asked_before_a_slower_one_wins() -> None:
    timing = times(original=4.0, float=1.1, far=1.0, farther=0.9, slow=1.5)
    candidates = field(
        judged("original"), judged("float", 120, drop=0.0), judged("far", 15, drop=0.0),
        judged("farther", 14, drop=0.0), judged("slow", 14, drop=0.0),
    )  # fmt: skip
    winner = chosen(candidates, timing)
    assert winner == "float"
    assert unasked(candidates, timing, winner, "original") == "farther"
    known = field(*candidates.values(), expecting("far", 15, 0.0), expecting("farther", 14, 0.006))
    assert unasked(known, timing, winner, "original") == "float"
    known = field(*known.values(), expecting("float", 120, 0.0))
    assert unasked(known, timing, winner, "original") is None
    assert chosen(known, timing) == "farther"


def test_a_lucky_metric_is_distrusted() -> None:
    candidates = field(
        judged("original", drop=0.0),
        judged("lucky", 20, drop=0.001),
        judged("b", 21, drop=0.05, accepted=False),
        judged("c", 19, drop=0.04, accepted=False),
    )
    found = distrust(candidates, 0.01)
    assert not found["lucky"][1].accepted
    assert "3 candidates this close lose 3.03% of the metric on average" in found["lucky"][1].reason
    assert candidates["lucky"][1].accepted  # the argument is left as it was


def test_a_metric_in_good_company_is_trusted() -> None:
    candidates = field(
        judged("a", 30, drop=0.001), judged("b", 31, drop=0.002), judged("c", 12, accepted=False, drop=1)
    )
    assert distrust(candidates, 0.01) == candidates


def test_only_int8_candidates_vouch_for_each_other() -> None:
    candidates = field(judged("float", 30, drop=0.5), judged("a", 30, drop=0.001))
    assert distrust(candidates, 0.01)["a"][1].accepted


@pytest.mark.parametrize("sqnr", [math.inf, -math.inf])
def test_infinitely_close_candidates_are_alike(sqnr: float) -> None:
    found = distrust(field(judged("a", sqnr, drop=0.0), judged("b", sqnr, drop=0.5)), 0.01)
    assert not found["a"][1].accepted


def test_without_a_metric_nobody_is_distrusted() -> None:
    candidates = field(judged("a", 30), judged("b", 10))
    assert distrust(candidates, 0.0) == candidates


@st.composite
def fields(draw: Any) -> Drawn:
    """Up to six candidates beside the original, with any closeness, verdict and timing."""
    names = ["float", *"abcde"][: draw(st.integers(0, 6))]
    decibels = st.one_of(st.floats(-20, 140), st.just(math.inf), st.just(-math.inf))
    drops = st.one_of(st.none(), st.floats(-0.5, 1.0))
    candidates = [judged("original")]
    candidates += [
        judged(name, draw(decibels), accepted=draw(st.booleans()), drop=draw(drops)) for name in names
    ]
    timing: dict[int, Any] = {}
    for threads in (1, 2)[: draw(st.integers(1, 2))]:
        timing[threads] = {
            name: latency(name, *(draw(st.floats(0.5, 2.0)) for _ in range(3)))
            for name in ("original", *names)
        }
    return field(*candidates), timing


@given(fields())
def test_the_winner_is_accepted_and_no_slower(drawn: Drawn) -> None:
    candidates, timing = drawn
    trusted = distrust(candidates, 0.01)
    winner, why = pick(trusted, timing, "original")
    assert trusted[winner.name][1].accepted
    assert not_slower(timing, winner.name, "original")
    assert relative_time(timing, winner.name, "original") <= 1.0
    assert why.startswith(winner.name)


@given(fields())
def test_distrust_only_ever_refuses(drawn: Drawn) -> None:
    candidates, _ = drawn
    found = distrust(candidates, 0.01)
    assert found.keys() == candidates.keys()
    for name, (candidate, judgement) in found.items():
        assert candidate is candidates[name][0]
        assert candidates[name][1].accepted or not judgement.accepted
        assert judgement.accepted or judgement.reason


def test_of_candidates_of_equal_composition_the_closest_alone_is_timed() -> None:
    def made(name: str, text: str, sqnr_db: float) -> Judged:
        candidate, judgement = judged(name, sqnr_db)
        return replace(candidate, composition=composition(parse(text))), judgement

    one = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    two = one.replace("y = Relu(x)", "a = Relu(x) y = Relu(a)")
    candidates = field(
        judged("original"), judged("float"),
        made("far", one, 20.0), made("near", one, 30.0), made("other", two, 10.0),
    )  # fmt: skip
    assert [c.name for c in contenders(candidates, 5)] == ["original", "float", "near", "other"]
    assert [c.name for c in contenders(candidates, 1)] == ["original", "float", "near"]


def test_quantizing_to_one_grid_or_two_makes_a_difference() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] a, float[2] b) => (uint8[2] p, uint8[2] q) <float s = {0.1}, float t = {0.2}> {
            p = QuantizeLinear(a, s) q = QuantizeLinear(b, t)
        }"""
    assert composition(parse(text)) == (("QuantizeLinear", 2), ("grids", 2))
    assert composition(parse(text.replace("(b, t)", "(b, s)"))) == (("QuantizeLinear", 2), ("grids", 1))


def expecting(name: str, sqnr_db: float, expected: float) -> Judged:
    candidate, judgement = judged(name, sqnr_db, drop=0.0)
    return candidate, replace(judgement, vouched=True, expected=expected, at_most=expected)


def test_what_is_expected_is_the_mean_of_those_alike() -> None:
    lucky, unlucky = expecting("lucky", 25.0, 0.002), expecting("unlucky", 25.0, 0.03)
    alone = distrust(field(judged("original"), lucky), 0.01)
    assert alone["lucky"][1].accepted
    both = distrust(field(judged("original"), lucky, unlucky), 0.01)
    assert not both["lucky"][1].accepted
    assert both["lucky"][1].reason.startswith("1.60% is to be expected on other data")
    assert both["lucky"][1].reason.endswith(", allowed 1.00%")
    apart = distrust(field(judged("original"), lucky, expecting("far", 15.0, 0.03)), 0.01)
    assert apart["lucky"][1].accepted


def test_one_that_is_less_alike_counts_less() -> None:
    """3 dB apart it counts half: (0.2 % + x / 2 * 10 ** (-3 / 20)) / 1.5 is within 1 % up to x = 3.67 %."""
    lucky = expecting("lucky", 25.0, 0.002)
    for drop, kept in ((0.036, True), (0.037, False)):
        found = distrust(field(judged("original"), lucky, expecting("far", 22.0, drop)), 0.01)
        assert found["lucky"][1].accepted is kept


def test_a_closer_one_is_expected_to_lose_less() -> None:
    """As the error, which is 10 ** (2 / 20) times as large 2 dB further off."""
    near, far = expecting("near", 27.0, 0.009), expecting("far", 25.0, 0.009 * 10**0.1)
    found = distrust(field(judged("original"), near, far), 0.01)
    assert (found["near"][1].accepted, found["far"][1].accepted) == (True, False)
