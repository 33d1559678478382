# SPDX-License-Identifier: Apache-2.0
"""Coupling through the bodies of If, Loop and Scan."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, from_proto, to_proto
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks
from tests.support.coupled import sizes
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_build import build
from tests.support.prune_oracle import oracle

X = "float[2,3,8,8] x, bool c"
OUT = "float[2,4,8,8]"


def both(model: Model) -> dict[str, int]:
    """Atoms of each group; half of each goes from a copy, which computes the oracle in both branches."""
    copy = from_proto(to_proto(model))
    coupling = couple(copy)
    rng = np.random.default_rng(0)
    kept = {g.name: rng.permutation(g.atoms) < g.atoms // 2 for g in coupling.groups}
    masks = coupling.masks(kept)
    expected = to_proto(oracle(copy, masks))
    assert apply_masks(copy, masks, Context())
    for chosen in (True, False):
        feeds = {**feeds_for(expected, 0), "c": np.array(chosen)}
        want, got = run_onnxruntime(expected, feeds), run_onnxruntime(to_proto(copy), feeds)
        assert want is not None
        assert got is not None
        for a, b in zip(want, got, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(np.abs(a).max())))
    return sizes(coupling)


def branching(
    then: str, other: str, body: str = "", weights: str = "", tail: str = "y = Conv(r, w2)"
) -> Model:
    return build(
        f"""{body} r = If (c) <then_branch = t () => (float[2,8,8,8] p) {{ {then} }},
        else_branch = e () => (float[2,8,8,8] q) {{ {other} }}>  {tail}""",
        f"w1 8,3,1,1; w2 4,8,1,1{weights}",
        x=X,
        y=f"{OUT} y",
    )


def test_branches_and_what_is_made_of_them_go_together() -> None:
    model = branching("p = Conv(x, w1)", "q = Conv(x, w3)", weights="; w3 8,3,1,1")
    assert both(model) == {"p:1": 8}
    group = couple(model).group("p:1")
    assert [n.op_type for n in group.producers] == ["Conv", "Conv"]
    assert {axis.value.name for axis in group.axes} == {"p", "q", "r", "w1", "w2", "w3"}


def test_layers_inside_a_branch_are_cut_by_themselves() -> None:
    model = branching(
        "m = Conv(x, w3)  n = Relu(m)  p = Conv(n, w4)", "q = Conv(x, w1)", weights="; w3 6,3,1,1; w4 8,6,1,1"
    )
    assert both(model) == {"m:1": 6, "p:1": 8}


def test_what_branches_read_from_outside_is_cut_with_them() -> None:
    assert both(branching("p = Relu(a)", "q = Neg(a)", "a = Conv(x, w1)")) == {"a:1": 8}
    read = branching(
        "p = Conv(a, w3)", "q = Conv(a, w4)", "a = Conv(x, w1)", "; w3 8,8,1,1; w4 8,8,1,1", "y = Conv(r, w2)"
    )
    assert both(read) == {"a:1": 8, "p:1": 8}


def test_branches_in_branches() -> None:
    inner = """p = If (c) <then_branch = t2 () => (float[2,8,8,8] p2) { p2 = Conv(x, w1) },
        else_branch = e2 () => (float[2,8,8,8] q2) { q2 = Conv(x, w1) }>"""
    assert both(branching(inner, "q = Conv(x, w3)", weights="; w3 8,3,1,1")) == {"p2:1": 8}


def test_a_branch_that_is_an_output_or_of_another_rank_stays() -> None:
    handed = build(
        """y = If (c) <then_branch = t () => (float[2,4,8,8] p) { p = Conv(x, w1) },
        else_branch = e () => (float[2,4,8,8] q) { q = Conv(x, w3) }>""",
        "w1 4,3,1,1; w3 4,3,1,1",
        x=X,
        y=f"{OUT} y",
    )
    assert [pin.reason for pin in couple(handed).pinned] == ["it is an output of the model"]
    other = build(
        """a = Conv(x, w1)  r = If (c) <then_branch = t () => (p) { p = Flatten(a) },
        else_branch = e () => (q) { q = Identity(a) }>  y = Shape(r)""",
        "w1 8,3,1,1",
        x=X,
        y="int64[n] y",
    )
    assert "do not agree in its rank" in couple(other).pinned[0].reason


@pytest.mark.parametrize("body", ["m = Conv(h, w1)  n = Relu(m)  g = Conv(n, w3)"])
def test_what_iterations_hand_on_stays_and_the_rest_of_the_body_goes(body: str) -> None:
    model = build(
        f"""a = Conv(x, w0)  s, t = Loop (count, , a, x) <body = b (int64 i, bool k, float[2,4,8,8] h,
        float[2,3,8,8] u) => (bool ko, float[2,4,8,8] g, float[2,3,8,8] v) {{ ko = Identity(k) {body}
        v = Relu(u) }}>  y = Conv(s, w2)""",
        "w0 4,3,1,1; w1 6,4,1,1; w3 4,6,1,1; w2 4,4,1,1",
        x=X,
        y=f"{OUT} y",
        constants="int64 count = {3}",
    )
    assert both(model) == {"m:1": 6}
    assert {pin.reason for pin in couple(model).pinned if pin.size == 4 and pin.node != "Conv(y)"} == {
        "Loop 'Loop(s)' hands it on"
    }
