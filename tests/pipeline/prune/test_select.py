# SPDX-License-Identifier: Apache-2.0
"""Scores, a budget and limits make a choice."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import UsageError
from tersor.pipeline.prune.select import Chosen, Limits, OutOfReachError, select, share_of_each, to_reach
from tests.support.prune_models import coupling

Scores = dict[str, NDArray[np.float64]]

ANY = Limits(align=1, min_keep=0.0)
GLOBAL = Limits(align=1, min_keep=0.0, whole_model=True)


def rising(**sizes: int) -> Scores:
    """Scores 1, 2, 3... by group."""
    return {f"{name}:1": np.arange(1, size + 1, dtype=np.float64) for name, size in sizes.items()}


def atoms_left(kept: NDArray[np.int64], whole: int) -> float:
    return float(kept.sum()) / whole


def kept(chosen: list[Chosen]) -> list[int]:
    return [len(c.kept) for c in chosen]


def test_the_highest_scores_stay_whatever_their_order() -> None:
    scores = {"g0:1": np.array([5.0, 1.0, 4.0, 2.0, 3.0, 0.0])}
    (chosen,) = select(coupling(6), scores, share_of_each(0.5), ANY)
    assert chosen.kept == (0, 2, 4)
    assert (chosen.before, chosen.ideal, chosen.after) == (6, 3, 3)


def test_equal_scores_lose_the_first_so_that_runs_agree() -> None:
    scores = {"g0:1": np.ones(4)}
    assert select(coupling(4), scores, share_of_each(0.5), ANY)[0].kept == (2, 3)


def test_each_group_loses_the_same_share_unless_groups_are_compared() -> None:
    made = coupling(10, 10)
    scores = {"g0:1": np.linspace(0.9, 1.1, 10), "g1:1": np.array([0.01] * 5 + [10.0] * 5)}
    whole = to_reach(lambda k: atoms_left(k, 20), 0.75)
    assert kept(select(made, scores, whole, ANY)) in ([8, 7], [7, 8])
    assert kept(select(made, scores, whole, GLOBAL)) == [10, 5]


def test_groups_are_compared_relative_to_their_mean() -> None:
    made = coupling(4, 4)
    scores = {"g0:1": np.array([1.0, 2, 3, 4]), "g1:1": np.array([100.0, 200, 300, 400])}
    assert kept(select(made, scores, to_reach(lambda k: atoms_left(k, 8), 0.5), GLOBAL)) == [2, 2]


def test_as_little_as_meets_the_budget_goes() -> None:
    made = coupling(40, 24)
    for target in (0.9, 0.51, 0.5, 0.25):
        found = kept(select(made, rising(g0=40, g1=24), to_reach(lambda k: atoms_left(k, 64), target), ANY))
        assert sum(found) == int(target * 64)


def test_alignment_is_part_of_the_search() -> None:
    made = coupling(64, 48)
    limits = Limits(align=16, min_keep=0.0)
    chosen = select(made, rising(g0=64, g1=48), to_reach(lambda k: atoms_left(k, 112), 0.6), limits)
    assert all(n % 16 == 0 for n in kept(chosen))
    assert sum(kept(chosen)) == 64
    assert any(c.ideal != c.after for c in chosen)
    assert all("multiples of 16" in c.why for c in chosen if c.ideal != c.after)


def test_what_the_last_step_saved_too_much_goes_back() -> None:
    # One atom of the large group weighs as much as the whole of the small one: 100, 100 + 32.
    weights = np.array([100.0, 1.0])

    def left(kept: NDArray[np.int64]) -> float:
        return float((kept // 16) @ weights) / 402.0

    chosen = select(
        coupling(64, 32), rising(g0=64, g1=32), to_reach(left, 0.76), Limits(align=16, min_keep=0.0)
    )
    assert kept(chosen) == [48, 32]


def test_what_went_before_a_coarse_step_comes_back_where_that_alone_reaches_the_target() -> None:
    def left(kept: NDArray[np.int64]) -> float:
        return 1.0 if kept[0] == 32 else 0.1 + 0.4 * float(kept[1]) / 64

    scores, limits = rising(g0=32, g1=64), Limits(align=16, min_keep=0.0)
    assert kept(select(coupling(32, 64), scores, to_reach(left, 0.5), limits)) == [16, 64]
    assert kept(select(coupling(32, 64), scores, to_reach(left, 0.45), limits)) == [16, 48]
    # Steps that are small beside what is missing are not free of time or memory, nor any so near the target.
    small = to_reach(lambda k: min(left(k), 0.3 + left(k) / 100) if k[0] < 32 else 1.0, 0.5)
    assert kept(select(coupling(32, 64), scores, small, limits)) == [16, 48]
    assert kept(select(coupling(32, 64), scores, to_reach(lambda k: left(k) + 0.09, 0.5), limits)) == [16, 48]


def test_bounds_hold_for_all_and_for_single_groups() -> None:
    made = coupling(10, 10)
    limits = Limits(align=1, min_keep=0.2, keep=(("g0:*", 0.6, 0.7),))
    left = to_reach(lambda k: atoms_left(k, 20), 0.45)
    assert kept(select(made, rising(g0=10, g1=10), left, limits)) == [6, 3]
    most = Limits(align=1, min_keep=0.0, max_keep=0.7)
    assert kept(select(made, rising(g0=10, g1=10), share_of_each(0.9), most)) == [7, 7]


def test_a_least_and_a_largest_share_by_other_patterns_both_hold() -> None:
    limits = Limits(align=1, min_keep=0.0, keep=(("g*", 0.5, None), ("*:1", None, 0.7)))
    made = coupling(10)
    assert kept(select(made, rising(g0=10), share_of_each(0.9), limits)) == [7]
    assert kept(select(made, rising(g0=10), share_of_each(0.2), limits)) == [5]


def test_bounds_and_shares_speak_of_the_original_over_rounds() -> None:
    made = coupling(10)
    shares = {"g0:1": 0.5}  # it had 20
    half = select(made, rising(g0=10), share_of_each(0.25), ANY, shares=shares)
    assert kept(half) == [5]
    floor = Limits(align=1, min_keep=0.4)
    assert kept(select(made, rising(g0=10), share_of_each(0.25), floor, shares=shares)) == [8]


def test_every_group_keeps_one_atom() -> None:
    assert kept(select(coupling(5, 3), rising(g0=5, g1=3), share_of_each(0.01), ANY)) == [1, 1]


def test_what_is_excluded_or_has_no_score_stays_whole_and_says_so() -> None:
    made = coupling(8, 8, 8)
    chosen = select(made, rising(g0=8, g1=8), share_of_each(0.5), ANY, excluded={"g1:1": "excluded by 'g1*'"})
    assert kept(chosen) == [4, 8, 8]
    assert [c.why for c in chosen[1:]] == ["excluded by 'g1*'", "the criterion has no score for it"]


def test_a_budget_that_counts_nothing_says_so_but_not_where_widths_are_why() -> None:
    made = coupling(16)
    with pytest.raises(OutOfReachError, match="nothing that can be cut counts towards it"):
        select(made, rising(g0=16), to_reach(lambda _: 1.0, 0.5), ANY)
    with pytest.raises(OutOfReachError, match=r"every group at its least width 100\.0% is left"):
        select(made, rising(g0=16), to_reach(lambda k: atoms_left(k, 16), 0.5), Limits(align=16))


def test_a_budget_out_of_reach_says_what_is_left_at_least() -> None:
    limits = Limits(align=16, min_keep=0.5)
    with pytest.raises(UsageError, match=r"30\.0% of the original cannot be reached.*50\.0% is left; lower"):
        select(coupling(64), rising(g0=64), to_reach(lambda k: atoms_left(k, 64), 0.3), limits)


def test_groups_of_one_step_are_halved_for_a_ratio_only_where_it_is_missed_without() -> None:
    made, scores = coupling(16, 16, 64), rising(g0=16, g1=16, g2=64)
    whole, half = (Limits(align=16, min_keep=0.0, halve=halve) for halve in (False, True))
    with pytest.raises(OutOfReachError, match="groups of a single aligned step stay whole"):
        select(made, scores, share_of_each(0.5), whole)
    assert kept(select(made, scores, share_of_each(0.5), half)) == [8, 8, 32]
    assert kept(select(coupling(16, 640), rising(g0=16, g1=640), share_of_each(0.5), whole)) == [16, 320]


def test_bad_scores_are_refused() -> None:
    with pytest.raises(UsageError, match=r"group 'g0:1' has 4 atoms and scores of shape \(3,\)"):
        select(coupling(4), {"g0:1": np.ones(3)}, share_of_each(0.5), ANY)
    with pytest.raises(UsageError, match="group 'g0:1' has a score that is not finite"):
        select(coupling(4), {"g0:1": np.array([1.0, np.nan, 1, 1])}, share_of_each(0.5), ANY)


def test_a_model_without_groups_has_nothing_to_choose() -> None:
    assert select(coupling(), {}, share_of_each(0.5), ANY) == []
