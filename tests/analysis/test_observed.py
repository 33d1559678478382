# SPDX-License-Identifier: Apache-2.0
"""Sizes that only a run tells."""

from __future__ import annotations

import numpy as np

from tersor.analysis.cost import cost
from tersor.analysis.observed import observed_sizes
from tersor.graph_ir import parse

PADDED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,1,T] x) => (float[N,4,U] y)
<float[8,1,3] W = {seed}, float[4,8,3] V = {seed}, int64[5] zeros = {0,0,0,0,0}, int64[1] four = {4}>
{
    s = Shape<start = 2>(x)
    r = Mod(s, four)
    f = Cast<to = 1>(r)
    q = Sqrt(f)
    i = Cast<to = 7>(q)
    p = Concat<axis = 0>(zeros, i)
    a = Pad(x, p)
    b = Conv(a, W)
    y = Conv(b, V)
}
"""
BINDINGS = {"N": 2, "T": 11}
FEED = {"x": np.zeros((2, 1, 11), np.float32)}


def test_what_follows_from_a_computed_length_is_counted() -> None:
    model = parse(PADDED)
    blind = cost(model, bindings=BINDINGS)
    assert blind.uncounted == 2
    found = observed_sizes(model, BINDINGS, FEED)
    assert found.items() >= BINDINGS.items()
    seen = cost(model, bindings=found)
    assert not seen.uncounted
    assert seen.macs == 2 * (10 * 8 * 3 + 8 * 4 * 8 * 3)


def test_nothing_is_run_where_all_is_known() -> None:
    model = parse(PADDED.replace("a = Pad(x, p)", "a = Identity(x)"))
    assert observed_sizes(model, BINDINGS, {}) == BINDINGS
