# SPDX-License-Identifier: Apache-2.0
"""Reaching a measured time: which tries are made, and which of them stands."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.passes.prune.plan import PrunePlan
from tersor.pipeline.prune.choice import Chosen, OutOfReachError
from tersor.pipeline.prune.steps import Made
from tersor.pipeline.prune.to_time import to_time

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'


def measured(made: Made, attempt: int, attempts: int) -> float:
    """The time of a model falls more slowly than foreseen at first, and faster later."""
    return (made.chosen[0].after / 1000) ** 0.5


def test_the_third_try_lies_between_one_too_slow_and_one_too_fast() -> None:
    goals: list[float] = []

    def choose(goal: float) -> list[Chosen]:
        goals.append(goal)
        kept = round(1000 * goal)
        return [Chosen("a", 1000, tuple(range(kept)), 1000, kept, kept, "")]

    made = to_time(
        choose,
        lambda chosen: Made(parse(MODEL), PrunePlan(""), chosen, 1.0),
        lambda kept: float(np.sum(kept)) / 1000,
        measured,
        start=1.0,
        wanted=0.6,
    )
    assert made is not None
    assert goals == pytest.approx([0.6, 0.290, 0.370], abs=0.001)
    assert made.left == pytest.approx(0.609, abs=0.001)


def test_a_correction_beyond_reach_is_halved() -> None:
    goals: list[float] = []

    def choose(goal: float) -> list[Chosen]:
        goals.append(goal)
        if goal < 0.4:
            raise OutOfReachError("nothing is so small")
        kept = round(1000 * goal)
        return [Chosen("a", 1000, tuple(range(kept)), 1000, kept, kept, "")]

    made = to_time(
        choose,
        lambda chosen: Made(parse(MODEL), PrunePlan(""), chosen, 1.0),
        lambda kept: float(np.sum(kept)) / 1000,
        measured,
        start=1.0,
        wanted=0.66,
    )
    assert made is not None
    assert goals == pytest.approx([0.66, 0.383, 0.522, 0.414], abs=0.002)
    assert made.left == pytest.approx(0.643, abs=0.002)
