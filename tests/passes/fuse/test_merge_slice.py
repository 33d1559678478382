# SPDX-License-Identifier: Apache-2.0
"""Chains of Slices: those of different axes are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.passes.base import Context
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.fuse.merge_slice import MergeSlices
from tersor.pipeline.presets import LOSSLESS
from tests.support.rewriting import declined, model_of, rewrite

STEPS = (InferShapes(), MergeSlices(), EliminateDeadCode())
WEIGHTS = (
    "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {-1}, int64[1] end = {99}"
)
X, Y = "float[4,6,8] x", "float[A,B,C] y"


def sliced(first: str, second: str) -> str:
    return f"a = Slice(x, {first})\n y = Slice(a, {second})"


BOUND = st.integers(-9, 9)
PART = st.tuples(BOUND, BOUND, st.integers(-3, 2), st.integers(-3, 3).filter(bool))


@given(st.lists(st.lists(PART, min_size=1, max_size=2), min_size=2, max_size=3))
def test_whatever_is_taken_of_whichever_axes_is_the_same(
    chain: list[list[tuple[int, int, int, int]]],
) -> None:
    """Where an axis comes twice, in one Slice or two, nothing is merged."""
    axes = [[part[2] % 3 for part in parts] for parts in chain]
    if any(len(set(each)) < len(each) for each in axes):
        return
    weights, nodes = list[str](), list[str]()
    for number, parts in enumerate(chain):
        names = [f"w{number}{k}" for k in range(4)]
        rows = zip(*parts, strict=True)
        weights += [
            f"int64[{len(parts)}] {name} = {{{', '.join(map(str, row))}}}"
            for name, row in zip(names, rows, strict=True)
        ]
        nodes.append(f"v{number} = Slice({'x' if not number else f'v{number - 1}'}, {', '.join(names)})")
    body = "\n".join([*nodes, f"y = Neg(v{len(chain) - 1})"])
    done = rewrite(STEPS, model_of(body, ", ".join(weights), x=X, y="float[A,B,C] y"))
    left = 1
    seen = set(axes[0])
    for each in axes[1:]:
        left, seen = (left, seen | set(each)) if seen.isdisjoint(each) else (left + 1, set(each))
    assert done.ops.count("Slice") <= left


def test_axes_and_steps_may_be_left_out() -> None:
    done = rewrite(STEPS, model_of(sliced("one, end", "zero, last, two"), WEIGHTS, x=X, y=Y))
    assert done.ops == ["Slice"]


def test_what_a_picture_strides_over_is_one_slice_by_default() -> None:
    model = model_of(sliced("zero, end, one, two", "zero, end, two, two"), WEIGHTS, x=X, y="float[4,3,4] y")
    assert "merge-slice" in LOSSLESS
    assert rewrite(STEPS, model).ops == ["Slice"]


@pytest.mark.parametrize(
    ("body", "x", "y"),
    [
        (sliced("one, end, one", "zero, last, one"), X, Y),  # of one axis
        (sliced("one, end, two", "zero, last, last"), X, Y),  # the same, told by the rank
        (sliced("one, end, one", "zero, n, two"), f"{X}, int64[1] n", Y),  # not constant
    ],
)
def test_near_misses_stay(body: str, x: str, y: str) -> None:
    assert declined(MergeSlices(), model_of(body, WEIGHTS, x=x, y=y))


@pytest.mark.parametrize("more", [("\n z = Neg(a)", "z"), ("", "a")])
def test_a_slice_that_others_read_stays(more: tuple[str, str]) -> None:
    body = sliced("one, end, one", "zero, last, two") + more[0]
    done = rewrite(MergeSlices(), model_of(body, WEIGHTS, x=X, y=f"{Y}, float[D,E,F] {more[1]}"))
    assert done.ops[:2] == ["Slice", "Slice"]


def test_no_rank_no_merge() -> None:
    model = model_of(sliced("one, end, one", "zero, last, two"), WEIGHTS, x="float[] x", y="float[] y")
    model.graph.inputs[0].shape = None
    assert not MergeSlices().run(model, Context())


def test_pixels_of_each_phase_are_one_slice_each() -> None:
    """As Swin merges its patches: both columns' Slices read the one of the rows."""
    body = """a = Slice(x, zero, end, one, two)  b = Slice(x, one, end, one, two)
    c = Slice(a, zero, end, two, two)  d = Slice(a, one, end, two, two)
    e = Slice(b, zero, end, two, two)  f = Slice(b, one, end, two, two)
    y = Concat<axis = 0>(c, d, e, f)"""
    done = rewrite(STEPS, model_of(body, WEIGHTS, x=X, y="float[16,3,4] y"))
    assert done.ops == [*["Slice"] * 4, "Concat"]


def test_a_slice_that_one_reader_needs_stays_for_all() -> None:
    """The other one takes of the same axis again."""
    body = sliced("one, end, one", "zero, last, two") + "\n z = Slice(a, zero, last, one)"
    done = rewrite(MergeSlices(), model_of(body, WEIGHTS, x=X, y=f"{Y}, float[D,E,F] z"))
    assert done.ops == ["Slice"] * 3
