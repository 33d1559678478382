# SPDX-License-Identifier: Apache-2.0
"""Which groups are taken to save time, and that a MACs budget buys more of it by them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.cost import cost
from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, parse
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.choice import Aim, Limits
from tersor.pipeline.prune.effort import ELEMENT, WORTH, Effort
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.line import LEAN
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.select import select, to_reach
from tersor.pipeline.prune.spend import Spend
from tests.support.prune_models import coupling, mlp

THIN = """
<ir_version: 8, opset_import: ["" : 17]>
thin (float[1,3,64,64] x) => (float[1,8,8,8] y)
<float[32,3,1,1] w0 = {seed}, float[32,32,1,1] w1 = {seed}, float[128,32,3,3] w2 = {seed},
 float[128,128,3,3] w3 = {seed}, float[8,128,1,1] w4 = {seed}>
{
    a = Conv(x, w0)
    ra = Relu(a)
    b = Conv<strides=[8,8]>(ra, w1)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    d = Conv<pads=[1,1,1,1]>(c, w3)
    y = Conv(d, w4)
}
"""
"""The first layer moves many elements for few MACs, the others few for many."""


def in_a_row(first: int, second: int, third: int) -> str:
    """Four convolutions of 3 x 3 in a row, of so many filters and 8."""
    return f"""
<ir_version: 8, opset_import: ["" : 17]>
in_a_row (float[1,3,16,16] x) => (float[1,8,16,16] y)
<float[{first},3,3,3] w0 = {{seed}}, float[{second},{first},3,3] w1 = {{seed}},
 float[{third},{second},3,3] w2 = {{seed}}, float[8,{third},3,3] w3 = {{seed}}>
{{
    a = Conv<pads=[1,1,1,1]>(x, w0)
    b = Conv<pads=[1,1,1,1]>(a, w1)
    c = Conv<pads=[1,1,1,1]>(b, w2)
    y = Conv<pads=[1,1,1,1]>(c, w3)
}}
"""


NARROW = in_a_row(16, 16, 64)
"""Two groups are one block wide, which is no quicker at half of it."""


def effort_of(model: Model) -> Effort:
    sizes = {"B": 2, "T": 5, "N": 1}
    return Effort(Spend(model, couple(model), bindings=sizes), model, Limits.align, sizes)


def gains_of(model: Model) -> NDArray[np.float64]:
    return effort_of(model).gains()


def test_the_share_of_the_time_is_set_against_the_share_of_the_macs() -> None:
    # h is 64 wide, 10 rows; MACs 2 * 10 * 16 * 64, all of which halve with it.
    found = gains_of(mlp())
    macs, x = 2 * 10 * 16 * 64, 10 * 16
    h = 10 * 64  # written by the MatMul, read and written by Add, read by the other MatMul
    effort = macs + ELEMENT * (4 * h + 2 * x)
    saved = macs / 2 + ELEMENT * 4 * h / 2
    assert found == pytest.approx([saved / effort / 0.5])


def test_a_layer_that_moves_much_for_its_macs_gains_more() -> None:
    found = gains_of(parse(THIN))
    assert found[0] > 2
    assert found[-1] < 1


def test_half_a_block_gains_less_than_half_a_layer() -> None:
    found = gains_of(parse(NARROW))
    assert found[0] < found[2]
    assert found[1] < found[2]


def test_the_time_left_is_of_widths_rounded_up() -> None:
    # b reads 16 channels of a and makes 16, c reads them: of 12 MACs count as made of 16 and read of 12.
    model = parse(NARROW)
    effort = effort_of(model)
    at = [(16, 3, 16), (16, 16, 16), (64, 16, 64), (8, 64, 16)]  # made, read, made as the kernels count
    macs = [256 * 9 * read * counted for _, read, counted in at]
    moved = [256 * ELEMENT * (read + made) for made, read, _ in at]
    # A size of the signature is not rounded up, for it cannot change: y is 8 wide, counted as it is.
    macs[3] = 256 * 9 * 64 * 8
    whole = sum(macs) + sum(moved)
    groups = [group.name for group in couple(model).groups]
    assert groups == ["a:1", "b:1", "c:1"]
    assert effort.left(np.array([16, 16, 64])) == 1.0
    # 12 of a: it is made as before, and read less by b; its elements count as of 16, for they are blocked.
    less = whole - 256 * 9 * 4 * 16
    assert effort.left(np.array([12, 16, 64])) == pytest.approx(less / whole)
    # Half of c halves what makes it and what reads it.
    less = whole - macs[2] / 2 - macs[3] / 2 - 2 * 256 * ELEMENT * 32
    assert effort.left(np.array([16, 16, 32])) == pytest.approx(less / whole)


def test_a_group_that_saves_no_macs_gains_nothing() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        added (float[1,4] x) => (float[1,4] y)
        <float[4,64] w = {seed}, float[64,4] v = {seed}, int64[1] at = {0}, float[9,32] e = {seed},
         float[1] axes = {1}>
        { h = MatMul(x, w)  y = MatMul(h, v)  r = Gather(e, at)  n = ReduceMax(r)  }"""
    )
    made = couple(model)
    found = gains_of(model)
    table = {group.name: gain for group, gain in zip(made.groups, found, strict=True)}
    assert table["h:1"] > 0
    assert [gain for name, gain in table.items() if name != "h:1"] == [0.0] * (len(table) - 1)


def test_groups_that_gain_more_are_cut_deeper_and_those_that_gain_nothing_last() -> None:
    made = coupling(64, 64, 64)
    scores = {f"g{i}:1": np.arange(64.0) for i in range(3)}
    free = Limits(align=1, min_keep=0.0)

    def kept(target: float, *lean: float) -> list[int]:
        rule = to_reach(lambda k: float(k.sum()) / 192, target)
        return [len(c.kept) for c in select(made, scores, rule, free, gains=np.array(lean))]

    assert kept(0.5, 1.0, 1.0, 1.0) == [32, 32, 32]
    first, second, third = kept(0.75, 1.4, 1.0, 0.0)
    assert first < second < third == 64
    assert first / 64 == pytest.approx((second / 64) ** (1.4**LEAN), abs=0.02)
    assert kept(0.2, 1.4, 1.0, 0.0)[2] < 64


def test_losses_go_by_the_time_they_save() -> None:
    made = coupling(10, 10)
    scores = {f"g{i}:1": np.ones(10) for i in range(2)}
    rule = to_reach(lambda k: float(k.sum()) / 20, 0.75)
    free = Limits(align=1, min_keep=0.0)
    for lean in ([1.2, 1.0], [1.0, 1.2]):
        chosen = select(made, scores, rule, free, costs=np.ones(2), gains=np.array(lean))
        assert [len(c.kept) < 10 for c in chosen] == [g > 1 for g in lean]


@pytest.mark.parametrize("text", [THIN, NARROW])
def test_the_budget_holds_whatever_the_aim(text: str) -> None:
    aims: tuple[Aim, ...] = ("time", "importance")
    left: list[int] = []
    for aim in aims:
        model = parse(text)
        found = prune(model, Job(Budget("macs", 0.6), "l2", Limits(aim=aim)))
        assert cost(found.model).macs <= 0.6 * cost(model).macs
        left.append(len(found.groups[0].kept))
    # The thin layer is cut deeper for time, the block that is no quicker not at all where others will do.
    assert left[0] <= left[1] if text == THIN else left[0] >= left[1]


EVEN = in_a_row(64, 64, 64)
"""Layers much alike: there is little time to be had by other channels than the least important."""


@pytest.mark.parametrize(("text", "leans"), [(THIN, True), (EVEN, False)])
def test_other_channels_go_only_where_that_is_foreseen_to_save_time(text: str, *, leans: bool) -> None:
    widths: dict[Aim, list[int]] = {}
    for aim in ("time", "importance"):
        found = prune(parse(text), Job(Budget("macs", 0.7), "l2", Limits(aim=aim)))
        widths[aim] = [len(c.kept) for c in found.groups]
    effort = effort_of(parse(text))
    by_time, by_score = (effort.left(np.array(widths[aim])) for aim in ("time", "importance"))
    if leans:
        assert by_time <= (1 - WORTH) * by_score
    else:
        assert widths["time"] == widths["importance"]


@pytest.mark.parametrize("kind", ["params", "ratio"])
def test_other_budgets_have_no_aim(kind: str) -> None:
    aims: tuple[Aim, ...] = ("time", "importance")
    kept = [
        [c.kept for c in prune(parse(THIN), Job(Budget(kind, 0.5), "l2", Limits(aim=aim))).groups]
        for aim in aims
    ]
    assert kept[0] == kept[1]
