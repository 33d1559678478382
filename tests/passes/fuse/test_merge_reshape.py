# SPDX-License-Identifier: Apache-2.0
"""Chains of Reshape, Flatten, Squeeze and Unsqueeze: copies, inferred sizes, symbols, empty tensors."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.passes.fuse.merge_reshape import MergeReshapes
from tests.support.numerics import assert_bitwise
from tests.support.rewriting import declined, model_of, rewrite

MERGE = MergeReshapes()


@pytest.mark.parametrize(
    ("x", "body", "weights", "y", "left"),
    [
        (
            "2,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[1] p = {24}, int64[2] q = {6,4}",
            "6,4",
            "Reshape(x, q)",
        ),
        (
            "2,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[1] p = {24}, int64[2] q = {-1,6}",
            "4,6",
            "Reshape(x, q)",
        ),
        # the second gives the first's own shape
        (
            "2,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[2] p = {6,4}, int64[2] q = {0,-1}",
            "6,4",
            "Reshape(x, p)",
        ),
        (
            "N,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[2] p = {-1,4}, int64[2] q = {0,4}",
            "M,4",
            "Reshape(x, p)",
        ),
        ("A,B,1", "a = Reshape(x, p) y = Flatten(a)", "int64[2] p = {0,-1}", "A,B", "Reshape(x, p)"),
        ("N,3,1,1", "a = Squeeze(x, p) y = Flatten(a)", "int64[2] p = {2,3}", "N,3", "Squeeze(x, p)"),
        # and the second one's zero copies the same symbol from x
        (
            "N,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[2] p = {0,-1}, int64[3] q = {0,2,6}",
            "N,2,6",
            "Reshape(x, q)",
        ),
        # a zero that copies what is not in x is written out
        (
            "2,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[2] p = {6,4}, int64[3] q = {0,2,2}",
            "6,2,2",
            "{6, 2, 2}",
        ),
        (
            "N,3,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[2] p = {-1,4}, int64[3] q = {0,2,2}",
            "M,2,2",
            "{-1, 2, 2}",
        ),
        ("2,3,4", "a = Flatten<axis=2>(x) y = Reshape(a, q)", "int64[2] q = {4,6}", "4,6", "Reshape(x, q)"),
        ("2,1,5", "a = Squeeze(x) y = Reshape(a, q)", "int64[1] q = {10}", "10", "Reshape(x, q)"),
        (
            "N,3,4,1",
            "a = Flatten(x) y = Unsqueeze(a, p)",
            "int64[2] p = {-1,-2}",
            "N,12,1,1",
            "{0, 12, 1, 1}",
        ),
        (
            "A,B,2,3",
            "a = Unsqueeze(x, p) y = Reshape(a, q)",
            "int64[1] p = {4}, int64[3] q = {0,0,-1}",
            "A,B,6",
            "{0, 0, 6}",
        ),
        (
            "2,3",
            "a = Reshape(x, p) b = Flatten(a) c = Unsqueeze(b, z) y = Reshape(c, q)",
            "int64[3] p = {3,1,2}, int64[1] z = {0}, int64[2] q = {1,6}",
            "1,6",
            "Reshape(x, q)",
        ),
    ],
)
def test_two_become_one(x: str, body: str, weights: str, y: str, left: str) -> None:
    done = rewrite(MERGE, model_of(body, weights, x=f"float[{x}] x", y=f"float[{y}] y"), N=2, M=6, A=2, B=3)
    assert len(done.ops) == 1
    assert left in done.text


def test_two_that_undo_each_other_are_nothing() -> None:
    body, weights = "a = Squeeze(x, p) y = Reshape(a, q)", "int64[1] p = {2}, int64[3] q = {0,0,-1}"
    done = rewrite(MERGE, model_of(body, weights, x="float[A,B,1] x", y="float[A,B,1] y"), A=2, B=3)
    assert done.ops == ["Identity"]


@pytest.mark.parametrize(
    ("x", "body", "weights", "y"),
    [
        ("2,3", "r = Relu(x) y = Reshape(r, q)", "int64[2] q = {2,3}", "2,3"),
        ("N,3", "r = Relu(x) y = Reshape(r, q)", "int64[2] q = {-1,3}", "N,3"),
        ("N,3", "r = Relu(x) y = Reshape(r, q)", "int64[2] q = {0,3}", "N,3"),
        ("N,M", "r = Relu(x) y = Reshape(r, q)", "int64[2] q = {0,-1}", "N,M"),
        ("N,3", "r = Relu(x) y = Reshape(r, q)", "int64[2] q = {2,3}", "2,3"),
        ("N,M", "r = Relu(x) s = Shape(r) y = Reshape(r, s)", "", "N,M"),
        ("N,M", "r = Relu(x) s = Shape(x) y = Reshape(r, s)", "", "N,M"),
        ("N,3", "r = Relu(x) y = Flatten(r)", "", "N,3"),
        ("1,3", "r = Relu(x) y = Flatten<axis=0>(r)", "", "1,3"),
        ("3,1", "r = Relu(x) y = Flatten<axis=2>(r)", "", "3,1"),
        ("2,3", "r = Relu(x) y = Squeeze(r)", "", "2,3"),
        ("N,M", "r = Relu(x) u = Unsqueeze(r, q) y = Squeeze(u, q)", "int64[2] q = {1,-1}", "N,M"),
        ("N,1,M", "r = Relu(x) u = Squeeze(r, q) y = Unsqueeze(u, q)", "int64[1] q = {1}", "N,1,M"),
        (
            "2,3",
            "r = Relu(x) a = Reshape(r, p) b = Unsqueeze(a, z) c = Flatten(b) y = Reshape(c, q)",
            "int64[1] p = {6}, int64[1] z = {0}, int64[2] q = {2,3}",
            "2,3",
        ),
    ],
)
def test_back_to_the_same_shape_is_nothing(x: str, body: str, weights: str, y: str) -> None:
    value_info = f"float[{x}] r"
    model = model_of(
        body, ", ".join(filter(None, [value_info, weights])), x=f"float[{x}] x", y=f"float[{y}] y"
    )
    assert "Reshape" not in (done := rewrite(MERGE, model, N=2, M=3)).ops
    assert set(done.ops) <= {"Relu", "Shape"}


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize(
    ("op", "first", "second", "merged", "ends"),
    [
        ("Squeeze", [0], [1], [0, 2], ("[1,A,1,B]", "[A,B]")),
        ("Unsqueeze", [0], [1], [0, 1], ("[A,B]", "[1,1,A,B]")),
        ("Unsqueeze", [1, 3], [0, 2], [0, 2, 3, 5], ("[A,B]", "[1,A,1,1,B,1]")),
        ("Unsqueeze", [0], [0], [0, 1], ("", "")),
    ],
)
def test_axes_merge_whatever_the_rank(
    op: str, first: list[int], second: list[int], merged: list[int], ends: tuple[str, str], opset: int
) -> None:
    if opset < 13:
        body = f"a = {op}<axes={first}>(x) y = {op}<axes={second}>(a)"
        weights = ""
    else:
        body = f"a = {op}(x, p) y = {op}(a, q)"
        p, q = str(first)[1:-1], str(second)[1:-1]
        weights = f"int64[{len(first)}] p = {{{p}}}, int64[{len(second)}] q = {{{q}}}"
    done = rewrite(
        MERGE,
        model_of(body, weights, x=f"float{ends[0]} x", y=f"float{ends[1]} y", opset=opset),
        numbers=bool(ends[0]),
        A=2,
        B=3,
    )
    assert done.ops == [op]
    assert (f"axes={merged}" if opset < 13 else f"{{{str(merged)[1:-1]}}}") in done.text


@pytest.mark.parametrize(
    ("x", "body", "weights", "y", "reason"),
    [
        # a 0 copies a dimension of the tensor between, which is none of x's
        (
            "A,B,4",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[3] p = {-1,2,2}, int64[2] q = {0,-1}",
            "M,4",
            None,
        ),
        (
            "A,B,C",
            "a = Reshape(x, p) y = Reshape(a, q)",
            "int64[3] p = {-1,2,2}, int64[4] q = {0,-1,2,1}",
            "M,P,2,1",
            "no one target",
        ),
        ("A,B,1,1", "a = Squeeze(x, p) y = Flatten<axis=0>(a)", "int64[1] p = {2}", "1,M", None),
        ("A,B,C", "a = Flatten(x) y = Unsqueeze(a, p)", "int64[1] p = {0}", "1,A,M", "no one target"),
        (
            "2,3",
            "a = Reshape(x, p) r = Relu(a) b = Reshape(a, q) y = Sum(r, b)",
            "int64[1] p = {6}, int64[2] q = {6, 1}",
            "6,6",
            "read by others",
        ),
        (
            "0,3",
            "a = Unsqueeze(x, p) y = Reshape(a, q)",
            "int64[1] p = {0}, int64[2] q = {0,-1}",
            "1,0",
            None,
        ),
        ("0,3", "a = Unsqueeze(x, p) y = Flatten<axis=2>(a)", "int64[1] p = {0}", "0,3", "no one target"),
        ("N", "y = Reshape(x, q)", "int64[1] q = {3}", "3", "another shape"),
        ("N,3", "y = Reshape(x, q)", "int64[2] q = {3,-1}", "3,N", "another shape"),
        ("N,M", "y = Reshape(x, q)", "int64[2] q = {2,3}", "2,3", "another shape"),
        ("N,M", "y = Reshape(x, q)", "int64[2] q = {-1,3}", "N,3", "another shape"),
        ("M,N", "s = Shape<start=0>(x) y = Reshape(x, s)", "", "M,N", "not known"),
        ("2,3", "y = Flatten<axis=0>(x)", "", "1,6", "another shape"),
        ("2,1", "y = Squeeze(x)", "", "2", "another shape"),
    ],
)
def test_near_misses(x: str, body: str, weights: str, y: str, reason: str | None) -> None:
    model = model_of(body, weights, x=f"float[{x}] x", y=f"float[{y}] y")
    if reason is None:  # merges, and must be right: numbers are checked
        rewrite(MERGE, model, A=2, B=2, M=4, N=2)
    else:
        assert any(reason in r for r in declined(MERGE, model))


def test_a_target_the_caller_may_override_is_not_constant() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3] x, int64[2] q = {2, 3}) => (float[A,B] y) { y = Reshape(x, q) }"""
    assert declined(MERGE, parse(text)) == {"shape not known"}


def test_computed_target_needs_allowzero() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3] x, int64[2] q) => (float[A,B] y) <int64[1] p = {6}> {
      a = Reshape(x, p) y = Reshape%s(a, q) }"""
    assert "target shape not known" in declined(MERGE, parse(text % ""))
    done = rewrite(MERGE, parse(text % "<allowzero=1>"), numbers=False)
    assert "y = Reshape<allowzero=1>(x, q)" in done.text
    assert_bitwise(done.before, done.model, {"x": np.ones((2, 3), np.float32), "q": np.array([3, 2])})


def test_minus_one_beside_a_copied_dimension_is_not_invented() -> None:
    # x with A = 0 runs before, and [0, -1, 1] would not: -1 cannot be inferred for a tensor without elements.
    model = model_of(
        "a = Unsqueeze(x, p) y = Flatten<axis=2>(a)", "int64[1] p = {0}", x="float[A,B,C] x", y="float[A,M] y"
    )
    assert "no one target fits every input" in declined(MERGE, model)


def test_result_read_by_reshapes_only_may_have_several() -> None:
    done = rewrite(
        MERGE,
        model_of(
            "a = Reshape(x, p) y = Reshape(a, q) z = Unsqueeze(a, o)",
            "int64[1] p = {6}, int64[2] q = {3,2}, int64[1] o = {0}",
            x="float[2,3] x",
            y="float[3,2] y, float[1,6] z",
        ),
    )
    assert done.ops == ["Reshape", "Reshape"]
