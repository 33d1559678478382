# SPDX-License-Identifier: Apache-2.0
"""Sums of widths behind a Concat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tersor.analysis.coupling import Coupling, couple
from tersor.graph_ir import Model, parse
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.shared import SharedAxes, evened
from tests.support.prune_models import chain


def joined(*widths: int) -> Model:
    """Convolutions of these widths, and one that reads them all."""
    weights = ", ".join(f"float[{width},4,3,3] w{i} = {{seed}}" for i, width in enumerate(widths))
    parts = "\n".join(f"p{i} = Conv<pads=[1,1,1,1]>(x, w{i})" for i in range(len(widths)))
    return parse(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        joined (float[1,4,6,6] x) => (float[1,8,6,6] y)
        <{weights}, float[8,{sum(widths)},1,1] w = {{seed}}>
        {{
            {parts}
            j = Concat<axis=1>({", ".join(f"p{i}" for i in range(len(widths)))})
            y = Conv(j, w)
        }}"""
    )


def moved(made: Coupling, kept: list[int], most: int = 1000) -> list[int]:
    """12 channels may be 4, 8 or 12 and 20 may be 16 or 20, with `most` in all."""
    allowed = {0: np.array([4, 8, 12]), 1: np.array([16, 20])}

    def left(now: NDArray[np.int64]) -> float:
        return float(now.sum())

    found = evened(SharedAxes(made, 16), allowed, np.array(kept), left, most)
    return [int(n) for n in found]


def test_the_sum_becomes_a_multiple() -> None:
    made = couple(joined(12, 20))
    assert moved(made, [8, 20]) == [12, 20]
    assert moved(made, [8, 16]) == [12, 20]  # in two moves, each nearer to a multiple


def test_nothing_moves_beyond_the_target() -> None:
    assert moved(couple(joined(12, 20)), [8, 20], most=28) == [8, 20]


def test_sums_that_are_multiples_stay() -> None:
    assert moved(couple(joined(12, 20)), [12, 20]) == [12, 20]


def test_axes_that_were_no_multiple_or_are_one_groups_do_not_count() -> None:
    assert SharedAxes(couple(joined(12, 24)), 16).groups == []
    assert SharedAxes(couple(chain()), 16).groups == []


def test_the_parts_of_a_pruned_concat_make_a_multiple() -> None:
    result = prune(joined(12, 12, 24), Job(Budget("macs", 0.75), "l2"))
    widths = [group.after for group in result.groups]
    assert sum(widths) == 32
    assert min(widths) < 12
