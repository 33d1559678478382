# SPDX-License-Identifier: Apache-2.0
"""Transposes sink through operators that name axes, in each form the opsets give them."""

from __future__ import annotations

import pytest

from tests.support.layouts import TO_FIRST, TO_LAST, X, between, sink
from tests.support.rewriting import model_of

# The call, its constants, the opset, and what must stand in the text afterwards.
MOVES = [
    ("Concat<axis = 3>(v, v)", "", 17, "Concat<axis=1>(x, x)"),
    ("Concat<axis = -2>(v, c)", "float[2,4,3,6] c = {seed}", 17, "Concat<axis=3>(x, c_moved)"),
    ("Slice(v, one, three, axes)", "int64[2] axes = {3, -2}", 17, "{1, 3}"),
    ("Slice(v, one, three)", "", 17, "{0, 2}"),
    ("Slice(v, one, three, axes, one)", "int64[2] axes = {-1, 2}", 13, "{1, 3}"),
    ("Slice<starts = [1], ends = [3], axes = [3]>(v)", "", 9, "axes=[1]"),
    ("Slice<starts = [0, 1], ends = [2, 3]>(v)", "", 9, "axes=[0, 2]"),
    ("Pad(v, pads)", "int64[8] pads = {0,1,2,0, 0,1,0,3}", 17, "{0, 0, 1, 2, 0, 3, 1, 0}"),
    ('Pad<mode = "reflect">(v, pads)', "int64[8] pads = {0,1,2,0, 0,1,0,3}", 13, "{0, 0, 1, 2, 0, 3, 1, 0}"),
    ("Pad(v, pads, fill, axes)", "int64[2] pads = {1, 2}, float fill = {3}, int64[1] axes = {-1}", 18, "{1}"),
    ("Pad<pads = [0,1,2,0, 0,1,0,3], value = 0.5>(v)", "", 10, "pads=[0, 0, 1, 2, 0, 3, 1, 0]"),
    ("ReduceMax<axes = [1, -2]>(v)", "", 13, "axes=[2, 3]"),
    ("ReduceMax(v, axes)", "int64[2] axes = {1, -2}", 18, "{2, 3}"),
    ("ReduceMin<keepdims = 1>(v)", "", 13, "ReduceMin<keepdims=1>(x)"),
    ("TopK<axis = 3>(v, two)", "", 11, "TopK<axis=1>(x, two)"),
    ("TopK(v, two)", "", 11, "TopK<axis=1>(x, two)"),
    ("Tile(v, repeats)", "int64[4] repeats = {1,2,1,3}", 13, "{1, 3, 2, 1}"),
    ("Expand(u, shape)", "int64[4] shape = {2,4,5,3}", 13, "{2, 3, 4, 5}"),
    ("Expand(u, shape)", "int64[2] shape = {1,3}", 13, "{1, 3, 1, 1}"),
    ("Gather<axis = 3>(v, two)", "", 13, "Gather<axis=1>(x, two)"),
    ("Gather<axis = -3>(v, two)", "", 13, "Gather<axis=2>(x, two)"),
    ("Hardmax(v)", "", 13, "Hardmax<axis=1>(x)"),
    (
        'Resize<nearest_mode = "floor", coordinate_transformation_mode = "asymmetric">(v, , scales)',
        "float[4] scales = {1,2,2,1}",
        13,
        "{1.0, 1.0, 2.0, 2.0}",
    ),
    ('Resize<mode = "nearest">(v, none, , sizes)', "int64[4] sizes = {2,8,10,6}", 13, "{2, 6, 8, 10}"),
    ('Resize<mode = "nearest", axes = [1, 2]>(v, , , twice)', "int64[2] twice = {8, 10}", 18, "axes=[2, 3]"),
    ('Resize<mode = "nearest">(v, scales)', "float[4] scales = {1,2,3,1}", 10, "{1.0, 1.0, 2.0, 3.0}"),
    ('Upsample<mode = "nearest">(v, scales)', "float[4] scales = {1,2,3,1}", 9, "{1.0, 1.0, 2.0, 3.0}"),
    ('Upsample<mode = "nearest", scales = [1.0, 2.0, 3.0, 1.0]>(v)', "", 8, "scales=[1.0, 1.0, 2.0, 3.0]"),
]
SHARED = "int64[2] one = {1, 1}, int64[2] three = {2, 3}, int64[1] two = {2}, float[0] none = {}"


@pytest.mark.parametrize(("call", "weights", "opset", "expected"), MOVES)
def test_axes_are_moved(call: str, weights: str, opset: int, expected: str) -> None:
    op = call.split("<", maxsplit=1)[0].split("(", maxsplit=1)[0]
    x, outputs = ("float[2,1,4,5] x", "w") if op == "Expand" else (X, "w, places" if op == "TopK" else "w")
    body = f"u = Identity(v)\n{outputs} = {call}" if op == "Expand" else f"{outputs} = {call}"
    result = sink(between(body, ", ".join(filter(None, [SHARED, weights])), x=x, opset=opset))
    assert "Transpose" not in result.ops, result.text
    assert expected in result.text


ROUNDS = [
    ("Softmax(v)", "", 13, "Softmax<axis=1>(x)"),
    ("LogSoftmax<axis = 2>(v)", "", 13, "LogSoftmax<axis=3>(x)"),
    ("ReduceMean<axes = [1, 2]>(v)", "", 13, "axes=[2, 3]"),
    ("ReduceMean(v, axes)", "int64[2] axes = {1, 2}", 18, "{2, 3}"),
    ("ReduceSum(v, axes)", "int64[1] axes = {-1}", 13, "{1}"),
    ("ReduceL2<axes = [3]>(v)", "", 13, "axes=[1]"),
    ("Pow(v, c)", "float[6] c = {2,1,3,2,1,0}", 13, "Pow(x, c_moved)"),
    (
        'Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(v, , , sizes)',
        "int64[4] sizes = {2,9,7,6}",
        13,
        "{2, 6, 9, 7}",
    ),
]


@pytest.mark.parametrize(("call", "weights", "opset", "expected"), ROUNDS)
def test_kernels_that_may_sum_in_another_order(call: str, weights: str, opset: int, expected: str) -> None:
    result = sink(between(f"w = {call}", weights, opset=opset), bitwise=False)
    assert "Transpose" not in result.ops, result.text
    assert expected in result.text


def test_reduction_to_a_lower_rank_ends_the_transpose() -> None:
    body = f"v = {TO_LAST}(x)\nr = Relu(v)\ny = ReduceMean<axes = [1, 2], keepdims = 0>(r)"
    result = sink(model_of(body, x=X, y="float[2,6] y", opset=13), bitwise=False)
    assert result.ops == ["Relu", "ReduceMean"]
    assert "axes=[2, 3]" in result.text


def test_all_axes_reduced_to_a_scalar() -> None:
    body = f"v = {TO_LAST}(x)\ny = ReduceMax<keepdims = 0>(v)"
    assert sink(model_of(body, x=X, y="float y", opset=13)).ops == ["ReduceMax"]


@pytest.mark.parametrize("axis", [3, -1])
@pytest.mark.parametrize("keep", [0, 1])
def test_arg_max(axis: int, keep: int) -> None:
    """Classes last, as segmentation models end; what keepdims leaves still needs its Transpose."""
    body = f"v = {TO_LAST}(x)\nr = Relu(v)\ny = ArgMax<axis = {axis}, keepdims = {keep}>(r)"
    result = sink(model_of(body, x=X, y="int64[A,B,C] y" if not keep else "int64[A,B,C,D] y", opset=13))
    assert result.changed == (not keep)
    if not keep:
        assert result.ops == ["Relu", "ArgMax"]


@pytest.mark.parametrize(("squeeze", "opset"), [("Squeeze(r, axes)", 13), ("Squeeze<axes = [1, -2]>(r)", 11)])
def test_squeeze_of_the_spatial_ones(squeeze: str, opset: int) -> None:
    body = f"v = {TO_LAST}(x)\nr = Relu(v)\ny = {squeeze}"
    weights = "int64[2] axes = {1, -2}" if opset == 13 else ""
    result = sink(model_of(body, weights, x="float[2,6,1,1] x", y="float[2,6] y", opset=opset))
    assert result.ops == ["Relu", "Squeeze"]


def test_squeeze_that_leaves_a_permutation_and_unsqueeze_behind() -> None:
    body = f"""
        v = {TO_LAST}(x)
        s = Squeeze(v, zero)
        r = Relu(s)
        w = Unsqueeze(r, zero)
        y = {TO_FIRST}(w)"""
    result = sink(model_of(body, "int64[1] zero = {0}", x="float[1,6,4,5] x", y="float[A,B,C,D] y"))
    assert result.ops == ["Squeeze", "Relu", "Unsqueeze"]


def test_gather_of_one_place() -> None:
    body = f"v = {TO_LAST}(x)\ng = Gather<axis = 2>(v, i)\ny = Transpose<perm = [0, 2, 1]>(g)"
    result = sink(model_of(body, "int64 i = {3}", x=X, y="float[A,B,C] y"))
    assert result.ops == ["Gather"]
    assert "Gather<axis=3>(x, i)" in result.text


@pytest.mark.parametrize(("split", "opset"), [("Split<axis = 3>(v, sizes)", 13), ("Split<axis = -1>(v)", 11)])
def test_split_and_concat(split: str, opset: int) -> None:
    body = f"a, b = {split}\nc = Relu(a)\nw = Concat<axis = -1>(b, c)"
    weights = "int64[2] sizes = {2, 4}" if opset == 13 else ""
    result = sink(between(body, weights, opset=opset))
    assert result.ops == ["Split", "Relu", "Concat"]
    assert "Split<axis=1>" in result.text


def test_slice_operands_keep_their_type() -> None:
    result = sink(between("w = Slice(v, s, e)", "int32[2] s = {0, 1}, int32[2] e = {2, 3}"))
    assert "int32[2] y_operand = {0, 2}" in result.text or "{0, 2}" in result.text
    assert result.ops == ["Slice"]


@pytest.mark.parametrize(("attributes", "part"), [("", "{0, 2, 3, 1}"), ("<start = 1, end = 3>", "{2, 3}")])
def test_the_shape_of_what_sank_is_gathered(attributes: str, part: str) -> None:
    """A Shape alone does not hold a Transpose back, nor does it make one worth moving."""
    body = f"""
        v = {TO_LAST}(x)
        r = Relu(v)
        s = Shape{attributes}(r)
        y = {TO_FIRST}(r)"""
    result = sink(model_of(body, x=X, y="float[A,B,C,D] y, int64[S] s"))
    assert sorted(result.ops) == ["Gather", "Relu", "Shape"]
    assert part in result.text
