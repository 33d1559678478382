# SPDX-License-Identifier: Apache-2.0
"""Chains of Transpose, and Transposes that only move dimensions of size 1."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model, parse
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.merge_reshape import MergeReshapes
from tersor.passes.fuse.merge_transpose import MergeTransposes
from tests.support.rewriting import declined, model_of, rewrite

MERGE = MergeTransposes()


@pytest.mark.parametrize(
    ("first", "second", "left", "y"),
    [
        ("<perm = [0,2,3,1]>", "<perm = [0,3,1,2]>", None, "2,3,4,5"),
        ("", "", None, "2,3,4,5"),
        ("", "<perm = [3,2,1,0]>", None, "2,3,4,5"),
        ("<perm = [0,2,3,1]>", "<perm = [0,2,3,1]>", "[0, 3, 1, 2]", "2,5,3,4"),
        ("<perm = [1,0,2,3]>", "", "[3, 2, 0, 1]", "5,4,2,3"),
        ("", "<perm = [1,2,3,0]>", "[2, 1, 0, 3]", "4,3,2,5"),
    ],
)
def test_two_transposes(first: str, second: str, left: str | None, y: str) -> None:
    body = f"r = Relu(x) a = Transpose{first}(r) y = Transpose{second}(a)"
    done = rewrite(MERGE, model_of(body, x="float[2,3,4,5] x", y=f"float[{y}] y"))
    assert done.ops == (["Relu"] if left is None else ["Relu", "Transpose"])
    assert left is None or f"perm={left}" in done.text


def test_the_way_back_is_dropped_even_when_the_way_there_is_read_by_others() -> None:
    body = "a = Transpose<perm = [1,0]>(x) r = Relu(a) b = Transpose<perm = [1,0]>(a) y = Abs(b)"
    done = rewrite(MERGE, model_of(body, x="float[2,3] x", y="float[3,2] r, float[2,3] y"))
    assert done.ops == ["Transpose", "Relu", "Abs"]


def test_another_order_is_not_worth_a_second_transpose() -> None:
    body = "a = Transpose<perm = [1,2,0]>(x) r = Relu(a) y = Transpose<perm = [1,2,0]>(a)"
    model = model_of(body, x="float[2,3,4] x", y="float[3,4,2] r, float[4,2,3] y")
    assert "the first is read by others" in declined(MERGE, model)


def test_graph_output_keeps_its_name() -> None:
    body = "y = Transpose<perm = [1,0]>(x) z = Transpose<perm = [1,0]>(y)"
    done = rewrite(MERGE, model_of(body, x="float[2,3] x", y="float[3,2] y, float[2,3] z"))
    assert done.ops == ["Transpose", "Identity"]


@pytest.mark.parametrize(
    ("x", "perm", "y"),
    [("N,1,1,8", "[0,3,1,2]", "N,8,1,1"), ("2,1,6,5", "[0,2,1,3]", "2,6,1,5"), ("1,N,M", "[1,0,2]", "N,1,M")],
)
def test_moving_ones_beside_a_reshape_is_a_reshape(x: str, perm: str, y: str) -> None:
    body = f"t = Transpose<perm = {perm}>(x) y = Unsqueeze(t, a)"
    model = model_of(body, "int64[1] a = {0}", x=f"float[{x}] x", y=f"float[1,{y}] y")
    if x == "1,N,M":  # two sizes in other places cannot be written as one constant
        assert "no one target fits every input" in declined(MERGE, model)
        return
    done = rewrite((MERGE, MergeReshapes()), model, N=2)
    assert done.ops == ["Reshape"]


@pytest.mark.parametrize(
    ("body", "x", "y", "reason"),
    [
        ("y = Transpose<perm = [0,2,1]>(x)", "2,1,3", "2,3,1", "no reshape beside it"),
        ("t = Transpose<perm = [0,2,1]>(x) y = Flatten(t)", "2,4,3", "2,12", "moves more than ones"),
        ("t = Transpose<perm = [0,2,1]>(x) y = Flatten(t)", "2,N,3", "2,M", "moves more than ones"),
        ("t = Transpose<perm = [0,1,2]>(x) y = Flatten(t)", "2,1,3", "2,3", "moves more than ones"),
    ],
)
def test_near_misses(body: str, x: str, y: str, reason: str) -> None:
    assert declined(MERGE, model_of(body, x=f"float[{x}] x", y=f"float[{y}] y")) == {reason}


def test_across_a_body_only_the_way_back_goes() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3] x, bool c) => (float[2,3] y) {
      a = Transpose(x)
      y = If (c) <
        then_branch = t () => (float[2,3] o) { b = Transpose(a) o = Relu(b) },
        else_branch = e () => (float[2,3] p) { p0 = Transpose(a) p = Abs(p0) }
      >
    }"""
    done = rewrite(MERGE, parse(text))
    assert "o = Relu(x)" in done.text
    assert "p = Abs(x)" in done.text


STACK = "a = Reshape(x, first) b = Transpose<perm = [0,2,1]>(a) y = Reshape(b, back)"


def stack(body: str = STACK, back: str = "0, 3, 4, -1", x: str = "N,3,T,4", y: str = "N,3,4,T") -> Model:
    # The sizes are computed, as exporters do.
    sizes = (
        "n = Shape<start = 0, end = 1>(x) t = Shape<start = 2, end = 3>(x) "
        "first = Concat<axis = 0>(rest, t, four) "
        "back = Concat<axis = 0>(n, three, four, t) "
    )
    weights = f"int64[1] rest={{-1}}, int64[1] four={{4}}, int64[1] three={{3}}, int64[4] fixed={{{back}}}"
    model = model_of(sizes + body, weights, x=f"float[{x}] x", y=f"float[{y}] y", opset=18)
    infer_shapes(model)
    return model


def test_matrices_turned_in_a_stack_turn_where_they_stand() -> None:
    done = rewrite((MERGE, EliminateDeadCode()), stack(), N=2, T=5)
    assert done.ops == ["Transpose"]
    assert "perm=[0, 1, 3, 2]" in done.text


@pytest.mark.parametrize(
    ("body", "y", "reason"),
    [
        (STACK.replace("[0,2,1]", "[1,0,2]"), "N,3,4,T", "the matrices are not turned"),
        (STACK.replace("back)", "fixed)"), "T,3,4,N", "not known to come back"),
        (STACK.replace("b, back)", "b, first)"), "A,T,4", "not known to come back"),
    ],
)
def test_other_stacks_stay(body: str, y: str, reason: str) -> None:
    assert reason in declined(MERGE, stack(body, y=y))
