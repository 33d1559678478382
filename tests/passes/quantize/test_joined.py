# SPDX-License-Identifier: Apache-2.0
"""One grid for what a Concat joins: when, and when not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph_ir import Model
from tersor.passes.quantize.joined import MOST_WIDER, joined
from tersor.passes.quantize.plan import PlanOptions, plan
from tests.support.int8 import Span, graph

W = "float[16,16,1,1] w = {seed}, float[16,32,1,1] v = {seed}"
TWO = "a = Conv(x, w) r = Relu(a) b = Conv(x, w) s = Relu(b) c = Concat<axis=1>(r, s) y = Conv(c, v)"


def ranges_after(model: Model, **spans: Span) -> dict[str, tuple[float, float]]:
    found = joined(list(model.graph), spans)
    return {name: (found[name].lo, found[name].hi) for name in spans}


def test_the_union_is_taken() -> None:
    found = ranges_after(
        graph(TWO, W), x=Span(-1, 1), r=Span(0, 4), s=Span(0, 3), c=Span(0, 3.9), y=Span(-1, 1)
    )
    assert found == {"x": (-1, 1), "r": (0, 4), "s": (0, 4), "c": (0, 4), "y": (-1, 1)}


@pytest.mark.parametrize(
    "spans",
    [
        {"r": Span(0, 4), "s": Span(0, 1.9), "c": Span(0, 4)},  # more than a bit
        {"r": Span(0, 4), "s": Span(0, 4, "seen NaN"), "c": Span(0, 4)},
        {"r": Span(0, 4), "c": Span(0, 4)},
        {"r": Span(0, 4), "s": Span(0, 3), "c": Span(-1, 4)},  # a Relu would have to be computed
        {"r": Span(0, 4), "s": Span(0, 0), "c": Span(0, 4)},
    ],
)
def test_what_costs_too_much_is_left_alone(spans: dict[str, Span]) -> None:
    found = ranges_after(graph(TWO, W), **spans)
    assert found == {name: (span.lo, span.hi) for name, span in spans.items()}


def test_a_clip_keeps_its_bound() -> None:
    model = graph(
        TWO.replace("s = Relu(b)", "s = Clip(b, low, high)"), W + ", float low = {0}, float high = {6}"
    )
    spans = {"r": Span(0, 8), "s": Span(0, 6), "c": Span(0, 8)}
    assert ranges_after(model, **spans)["s"] == (0, 6)


def test_concats_that_share_a_tensor_share_a_grid() -> None:
    body = "c = Concat<axis=1>(x, p) m = MaxPool<kernel_shape=[2,2]>(c) d = Concat<axis=1>(m, q) y = Relu(d)"
    model = graph(f"p = Sigmoid(x) k = MaxPool<kernel_shape=[2,2]>(x) q = Tanh(k) {body}")
    spans = {"x": Span(-1, 1), "p": Span(-0.5, 1), "q": Span(-1, 0.8), "c": Span(-1, 1), "d": Span(-1, 1.2)}
    assert set(ranges_after(model, **spans).values()) == {(-1, 1.2)}


@given(st.lists(st.tuples(st.floats(0.1, 4), st.floats(0.1, 4)), min_size=2, max_size=5))
def test_no_tensor_gives_up_more_than_a_bit(drawn: list[tuple[float, float]]) -> None:
    names = [f"t{i}" for i in range(len(drawn))]
    body = " ".join(f"{name} = Identity(x)" for name in names)
    pairs = " ".join(f"c{i} = Concat<axis=1>({a}, {b})" for i, (a, b) in enumerate(pairwise(names)))
    model = graph(f"{body} {pairs} y = Relu(c0)")
    spans = {name: Span(-lo, hi) for name, (lo, hi) in zip(names, drawn, strict=True)}
    spans |= {f"c{i}": Span(-0.1, 0.1) for i in range(len(drawn) - 1)}
    for name, (lo, hi) in ranges_after(model, **spans).items():
        before = spans[name]
        assert lo <= before.lo
        assert hi >= before.hi
        assert hi - lo <= MOST_WIDER * (before.hi - before.lo) * (1 + 1e-12)


def test_the_plan_asks_for_it() -> None:
    model = graph(TWO, W)
    spans = {"x": Span(-1, 1), "r": Span(0, 4), "s": Span(0, 3), "c": Span(0, 4), "y": Span(-1, 1)}
    for join in (False, True):
        params = plan(model, spans, PlanOptions(float_stem=False, join_concats=join)).params
        scales = {float(params[value].scale) for value in params if value.name in ("r", "s", "c")}
        assert len(scales) == (1 if join else 2)
