# SPDX-License-Identifier: Apache-2.0
"""Which ranges of single values are tried, and what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.pipeline.builder.budget import OutOfBudgetError
from tersor.pipeline.builder.form import Form
from tersor.pipeline.builder.picking import MOST_PICKED, pick

BEST = Form("mse", InsertQdq())
RULES = ("mse", "percentile", "minmax", "entropy")


class Trials:
    """Forms whose closeness grows by what each range brings; `alike` values have one range by all rules."""

    def __init__(
        self, brings: dict[tuple[str, str], float], alike: tuple[str, ...] = (), last: int = 99
    ) -> None:
        self.brings, self.alike, self.last = brings, alike, last
        self.tried: list[tuple[tuple[str, str], ...]] = []
        self.told: list[tuple[int, int | None]] = []

    def tell(self, stage: str, done: int, total: int | None) -> None:
        assert stage == "choosing ranges of single values"
        self.told.append((done, total))

    def range_of(self, form: Form, value: str) -> tuple[float, float]:
        rule = dict(form.picked).get(value, form.observer)
        return (0.0, 1.0 if value in self.alike else 1.0 + RULES.index(rule))

    def closeness(self, form: Form) -> float:
        if len(self.tried) == self.last:
            raise OutOfBudgetError
        self.tried.append(form.picked)
        return 20 + sum(self.brings.get(item, 0.0) for item in form.picked)

    def picked(self, values: list[str]) -> tuple[tuple[str, str], ...]:
        found = pick(
            BEST,
            values,
            RULES,
            range_of=self.range_of,
            closeness=self.closeness,
            known=20.0,
            tell=self.tell,
        )
        assert replace(found, picked=()) == BEST
        return found.picked


def test_each_value_keeps_the_rule_that_brings_most_beside_those_before() -> None:
    trials = Trials(
        {("a", "minmax"): 1.0, ("a", "entropy"): 2.0, ("b", "percentile"): 0.05, ("c", "minmax"): 3.0}
    )
    assert trials.picked(["a", "b", "c"]) == (("a", "entropy"), ("c", "minmax"))
    assert trials.tried[-1] == (("a", "entropy"), ("c", "entropy"))
    assert len(trials.tried) == 9
    assert trials.told == [(0, 3), (1, 3), (2, 3)]


def test_no_value_has_two_rules() -> None:
    trials = Trials({("a", "percentile"): 1.0, ("a", "minmax"): 1.0})
    assert trials.picked(["a"]) == (("a", "percentile"),)
    assert all(len(tried) == 1 for tried in trials.tried)


def test_equal_ranges_are_not_tried_and_make_room_for_other_values() -> None:
    values = [f"v{i}" for i in range(9)]
    trials = Trials({}, alike=("v0", "v2"))
    assert trials.picked(values) == ()
    assert len(trials.tried) == 3 * MOST_PICKED
    assert {tried[0][0] for tried in trials.tried} == {"v1", "v3", "v4", "v5"}


@pytest.mark.parametrize("last", range(4))
def test_what_was_found_outlives_the_budget(last: int) -> None:
    """Regression: the budget's end threw it away."""
    trials = Trials({("a", "percentile"): 1.0, ("b", "percentile"): 1.0}, last=last)
    assert trials.picked(["a", "b"]) == ((("a", "percentile"),) if last else ())
