# SPDX-License-Identifier: Apache-2.0
"""Losses go by what they save."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import parse
from tersor.pipeline.prune.select import Limits, select, to_reach
from tersor.pipeline.prune.spend import Spend
from tests.support.prune_models import coupling

ANY = Limits(align=1, min_keep=0.0)
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,5,8,8] y)
<float[16,3,3,3] W = {seed}, float[16] B = {seed}, float[8,16,1,1] V = {seed}, float[5,8,1,1] U = {seed}>
{
    a = Conv<pads = [1,1,1,1]>(x, W, B)
    r = Relu(a)
    b = Conv(r, V)
    s = Relu(b)
    y = Conv(s, U)
}
"""


@pytest.mark.parametrize("kind", ["params", "size", "macs"])
def test_a_cost_is_what_one_atom_takes(kind: str) -> None:
    model = parse(TEXT)
    found = couple(model)
    spend = Spend(model, found)
    costs = spend.costs(kind)
    for i in range(len(found.groups)):
        kept = np.array([group.atoms for group in found.groups])
        kept[i] -= 1
        whole = {"params": 16 * 28 + 8 * 16 + 5 * 8, "macs": 64 * (16 * 27 + 8 * 16 + 5 * 8)}
        taken = (1.0 - spend.left(kind, kept)) * (4 * whole["params"] if kind == "size" else whole[kind])
        assert costs[i] == pytest.approx(taken)


def test_of_equal_losses_the_one_that_saves_more_goes_first() -> None:
    scores = {"g0:1": np.ones(8), "g1:1": np.ones(8)}
    costs = np.array([1.0, 10.0])

    def left(kept: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        return float(kept @ costs) / 88.0

    chosen = select(coupling(8, 8), scores, to_reach(left, 0.6), ANY, costs=costs)
    assert [len(c.kept) for c in chosen] == [8, 4]


def test_what_saves_nothing_stays() -> None:
    scores = {"g0:1": np.zeros(8), "g1:1": np.ones(8)}
    chosen = select(
        coupling(8, 8), scores, to_reach(lambda k: float(k[1]) / 8, 0.5), ANY, costs=np.array([0.0, 1.0])
    )
    assert [len(c.kept) for c in chosen] == [8, 4]
