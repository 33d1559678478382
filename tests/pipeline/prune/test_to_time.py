# SPDX-License-Identifier: Apache-2.0
"""Reaching a measured time: which tries are made, and which of them stands."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tersor.graph_ir import UsageError, parse
from tersor.passes.prune.plan import PrunePlan
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.choice import Chosen, Limits, OutOfReachError
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.steps import Made
from tersor.pipeline.prune.to_time import to_time
from tests.support.prune_models import Steady, chain

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
FREE = Limits(align=1, min_keep=0.0)


def measured(made: Made, attempt: int, attempts: int) -> float:
    """The time of a model falls more slowly than foreseen at first, and faster later."""
    return (made.chosen[0].after / 1000) ** 0.5


def tried(wanted: float, least: float = 0.0) -> tuple[list[float], Made]:
    """The goals asked for on the way to a share of the time, and what came of it; none is below `least`."""
    goals: list[float] = []

    def choose(goal: float) -> list[Chosen]:
        goals.append(goal)
        if goal < least:
            raise OutOfReachError("nothing is so small")
        kept = round(1000 * goal)
        return [Chosen("a", 1000, tuple(range(kept)), 1000, kept, kept, "")]

    made = to_time(
        choose,
        lambda chosen: Made(parse(MODEL), PrunePlan(""), chosen, 1.0),
        lambda kept: float(np.sum(kept)) / 1000,
        measured,
        start=1.0,
        wanted=wanted,
    )
    assert made is not None
    return goals, made


def test_the_third_try_lies_between_one_too_slow_and_one_too_fast() -> None:
    goals, made = tried(0.6)
    assert goals == pytest.approx([0.6, 0.290, 0.370], abs=0.001)
    assert made.left == pytest.approx(0.609, abs=0.001)


def test_a_correction_beyond_reach_is_halved() -> None:
    goals, made = tried(0.66, least=0.4)
    assert goals == pytest.approx([0.66, 0.383, 0.522, 0.414], abs=0.002)
    assert made.left == pytest.approx(0.643, abs=0.002)


@pytest.mark.parametrize("rounds", [1, 2])
def test_measuring_corrects_what_was_predicted(rounds: int) -> None:
    found: list[float] = []
    result = prune(chain(), Job(Budget("latency", 0.5), "l2", FREE, rounds=rounds), clock=Steady(0.3, found))
    assert found[0] > 0.5 ** (1 / rounds) * 1.03  # the first try was too slow
    assert result.rounds[-1].left == pytest.approx(0.5, rel=0.03)
    assert len(found) <= 3 * rounds


def test_a_time_out_of_reach_gives_the_nearest_and_says_so() -> None:
    found: list[float] = []
    limits = Limits(align=1, min_keep=0.5)
    result = prune(chain(), Job(Budget("latency", 0.5), "l2", limits), clock=Steady(2.0, found))
    assert result.rounds[0].left == min(found)
    assert result.notes[0] == "it forgets"  # of the table
    said = r"\d\d\.\d% of the latency is left where 50\.0% was wanted: no widths tried are faster"
    assert re.fullmatch(said, result.notes[1])


def test_the_least_widths_are_timed_before_a_time_is_out_of_reach() -> None:
    """Regression: a time that was foreseen to be out of reach was refused, though models are that fast."""
    limits = Limits(align=1, min_keep=0.5)  # half of the channels are a third of the MACs
    result = prune(chain(), Job(Budget("latency", 0.2), "l2", limits), clock=Steady(-0.2, []))
    assert result.rounds[0].left == pytest.approx(0.2, rel=0.1)
    line = r"20\.0% of the latency cannot be reached: timed with every group at its least width, \d\d\.\d% is"
    with pytest.raises(UsageError, match=line):
        prune(chain(), Job(Budget("latency", 0.2), "l2", limits), clock=Steady(0.3, []))
