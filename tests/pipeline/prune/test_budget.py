# SPDX-License-Identifier: Apache-2.0
"""Budgets: what is accepted, and how rounds share them out."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tersor.graph_ir import UsageError
from tersor.pipeline.prune.budget import KINDS, Budget


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_shares_out_of_range_are_refused_by_the_option_they_came_from(kind: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^--{kind} is the share of .*, above 0 and below 1, not "):
        Budget(kind, value)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="no budget is called 'flops'; there is ratio, params"):
        Budget("flops", 0.5)


def test_a_ratio_is_what_goes_and_all_others_are_what_stays() -> None:
    assert Budget("ratio", 0.3).left == pytest.approx(0.7)
    assert Budget("macs", 0.3).left == pytest.approx(0.3)
    assert str(Budget("ratio", 0.3)) == "30% of the channels removed"
    assert str(Budget("latency", 0.6)) == "60% of the latency left"


@pytest.mark.parametrize("budget", [Budget("ratio", 0.5), Budget("params", 0.2)])
def test_rounds_remove_the_same_share_each_and_end_at_the_budget(budget: Budget) -> None:
    steps = [budget.after(i, 4) for i in range(5)]
    assert steps[0] == 1
    assert steps[-1] == pytest.approx(budget.left)
    shares = [b / a for a, b in pairwise(steps)]
    assert shares == pytest.approx([shares[0]] * 4)
