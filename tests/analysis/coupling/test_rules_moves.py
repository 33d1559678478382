# SPDX-License-Identifier: Apache-2.0
"""Coupling of operators that join, cut, pad, turn, repeat and look up."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, Shape, tensor
from tests.support.coupled import between, cut, dense, places, reason, sizes
from tests.support.prune_build import build

NUMBERS = (
    "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i3 = {3}, int64[1] i8 = {8}, int64[1] two = {2},"
    " int64[1] last = {9223372036854775807}, int64[1] less = {-3}, int64[2] uneven = {3, 5}"
)


def test_parts_of_a_concat_are_groups_of_their_own() -> None:
    model = between("b = Conv(x, w3)  r = Concat<axis = -3>(b, a, x)", "w3 5,3,1,1", w2="4,16,1,1")
    assert cut(model) == {"a:1": 8, "b:1": 5}
    group = {axis.value.name: axis for axis in couple(model).group("a:1").axes}
    assert group["r"].atom_of.tolist() == [-1] * 5 + list(range(8)) + [-1] * 3


def test_concat_along_another_axis_ties_the_channels() -> None:
    model = between("b = Conv(x, w3)  r = Concat<axis = 2>(b, a)", "w3 8,3,1,1", y="float[2,4,16,8] y")
    assert cut(model) == {"a:1": 8}


@pytest.mark.parametrize(
    ("split", "opset"),
    [
        ("Split<axis = 1>(a, uneven)", 17),
        ("Split<axis = 1, split = [3, 5]>(a)", 11),
    ],
)
def test_splits_with_sizes(split: str, opset: int) -> None:
    model = between(
        f"b, c = {split}  d = Conv(b, w3)  r = Mul(c, d)",
        "w3 5,3,1,1",
        constants=NUMBERS,
        w2="4,5,1,1",
        opset=opset,
    )
    # The group of 5 carries c as well, whose 5 are the last of a.
    assert cut(model) == {"a:1": 3, "a:1#2": 5}


def test_splits_without_sizes() -> None:
    assert cut(between("b, c = Split<axis = 1>(a)  r = Mul(b, c)", w2="4,4,1,1")) == {"a:1": 4}
    shares = between(
        "b, c, r = Split<axis = 1, num_outputs = 3>(a)  d = Add(b, c)  e = ReduceSum(d)  z = Mul(e, e)",
        w2="4,2,1,1",
        opset=18,
    )
    assert sizes(couple(shares)) == {"a:1": 3, "a:1#2": 2}


def test_a_split_along_another_axis_ties_the_channels() -> None:
    model = between("b, c = Split<axis = 3>(a)  r = Mul(b, c)", y="float[2,4,8,4] y")
    assert cut(model) == {"a:1": 8}


@pytest.mark.parametrize(
    ("body", "width"),
    [
        ("b = Slice(a, i3, last, i1)  c = Slice(a, i0, i3, i1)  d = Conv(c, w3)  r = Mul(b, d)", 5),
        ("b = Slice(a, less, i8, i1)  c = Slice(a, i0, less, i1)  d = Conv(c, w3)  r = Mul(b, d)", 3),
    ],
)
def test_slices_are_parts(body: str, width: int) -> None:
    model = between(body, f"w3 {width},{8 - width},1,1", constants=NUMBERS, w2=f"4,{width},1,1")
    assert sorted(cut(model).values()) == [3, 5]


@pytest.mark.parametrize(
    "bounds",
    [
        "{0}, int64[1] till = {9223372036854775807}, int64[1] by = {2}",
        "{6}, int64[1] till = {-9}, int64[1] by = {-2}",
    ],
)
def test_slices_with_steps_take_positions_apart(bounds: str) -> None:
    model = between(
        "b = Slice(a, of, till, i1, by)  r = Relu(b)",
        constants=f"int64[1] i1 = {{1}}, int64[1] of = {bounds}",
        w2="4,4,1,1",
    )
    assert cut(model) == {"a:1": 4, "a:1#2": 4}


def test_waves_in_alternation_are_cut_in_pairs() -> None:
    """Sines and cosines of places, as in a DETR: pairs of channels go, from what is added to them, too."""
    model = dense(
        """f = Mul(x, speed)  e = Slice(f, i0, last, two, two)  o = Slice(f, i1, last, two, two)
        s = Sin(e)  c = Cos(o)  u = Unsqueeze(s, i3)  v = Unsqueeze(c, i3)  p = Concat<axis = 3>(u, v)
        q = Reshape(p, flat)  r = Add(a, q)""",
        constants=f"{NUMBERS}, int64[3] flat = {{2, 5, 12}}, float[12] speed = {{seed}}",
    )
    model.graph.inputs[0].shape = Shape([2, 5, 1])
    model.graph.initializers["w1"].const_value = tensor(np.ones((1, 12), np.float32))
    assert cut(model) == {"a:2": 6}


def test_slices_by_inputs_pin_their_axis_only() -> None:
    strided = between("r = Slice(a, i0, last, two, two)", constants=NUMBERS, y="float[2,4,4,8] y")
    assert cut(strided) == {"a:1": 8}
    computed = build(
        "a = Conv(x, w1)  r = Slice(a, n, last, i1)  p = GlobalMaxPool(r)  y = Mul(p, p)",
        "w1 8,3,1,1",
        x="float[2,3,8,8] x, int64[1] n",
        y="float[2,C,1,1] y",
        constants=NUMBERS,
    )
    assert "sliced" in reason(computed, "a")


def test_slices_before_opset_10() -> None:
    model = between(
        """b = Slice<axes = [1], starts = [0], ends = [4]>(a)
        c = Slice<axes = [1], starts = [4], ends = [99]>(a)  r = Mul(b, c)""",
        w2="4,4,1,1",
        opset=9,
    )
    assert cut(model) == {"a:1": 4}
    assert places(model, "a:1") == ["a:1*2", "b:1", "c:1", "r:1", "w1:0*2", "w2:1"]


@pytest.mark.parametrize(
    ("body", "w2", "out"),
    [
        ("r = Pad(a, pads)", "4,13,1,1", "8,8"),
        ('r = Pad<mode = "reflect">(a, edges)', "4,8,1,1", "10,8"),
        ("r = Pad(a, crop)", "4,5,1,1", "8,8"),
    ],
)
def test_padding(body: str, w2: str, out: str) -> None:
    model = between(
        body,
        constants="int64[8] pads = {0, 2, 0, 0, 0, 3, 0, 0}, int64[8] edges = {0, 0, 1, 0, 0, 0, 1, 0},"
        " int64[8] crop = {0, -2, 0, 0, 0, -1, 0, 0}",
        w2=w2,
        y=f"float[2,4,{out}] y",
    )
    groups = cut(model)
    assert sum(groups.values()) == 8
    # What is cropped away has no reader: a group of its own.
    assert len(groups) == (2 if "crop" in body else 1)


def test_padding_of_channels_with_copies_or_both_ways_pins() -> None:
    edges = "int64[8] pads = {0, 2, 0, 0, 0, 0, 0, 0}"
    assert "padded with copies" in reason(
        between('r = Pad<mode = "edge">(a, pads)', constants=edges, w2="4,10,1,1"), "a"
    )
    mixed = "int64[8] pads = {0, 2, 0, 0, 0, -2, 0, 0}"
    assert "padded" in reason(between("r = Pad(a, pads)", constants=mixed), "a")


def test_padding_of_named_axes() -> None:
    constants = "int64[2] pads = {1, 1}, int64[1] axes = {-3}"
    model = between("r = Pad(a, pads, , axes)", constants=constants, w2="4,10,1,1", opset=18)
    assert cut(model) == {"a:1": 8}


def test_turning_squeezing_and_unsqueezing() -> None:
    model = between(
        """b = Transpose<perm = [2, 1, 0, 3]>(a)  c = Unsqueeze(b, i0)  d = Transpose(c)  e = Transpose(d)
        f = Squeeze(e)  r = Transpose<perm = [2, 1, 0, 3]>(f)""",
        constants=NUMBERS,
    )
    assert cut(model) == {"a:1": 8}


def test_repeats_hold_every_channel_as_often() -> None:
    model = between(
        "r = Tile(a, repeats)",
        constants="int64[4] repeats = {1, 3, 1, 2}",
        w2="4,24,1,1",
        y="float[2,4,8,16] y",
    )
    assert cut(model) == {"a:1": 8}
    assert places(model, "a:1") == ["a:1", "r:1*3", "w1:0", "w2:1*3"]


@pytest.mark.parametrize("longer", ["Expand(m, shape)", "Tile(m, shape)"])
def test_axes_that_expand_or_tile_make_longer_are_free(longer: str) -> None:
    model = between(
        f"b = Conv(x, w3)  m = ReduceProd<axes = [1]>(b)  e = {longer}  r = Mul(a, e)",
        "w3 4,3,1,1",
        constants="int64[4] shape = {1, 8, 1, 1}",
    )
    assert cut(model) == {"a:1": 8}


def test_constant_indices_pick_channels() -> None:
    model = between("r = Gather<axis = 1>(a, order)", constants="int64[8] order = {7, 6, 5, 4, -5, 2, 1, 0}")
    assert cut(model) == {"a:1": 8}
    assert couple(model).group("a:1").axes[-1].atom_of.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]


def test_channels_nobody_looks_up_are_a_group_of_their_own() -> None:
    model = between("r = Gather<axis = 1>(a, order)", constants="int64[4] order = {0, 2, 2, 4}", w2="4,4,1,1")
    assert cut(model) == {"a:1": 5, "a:1#2": 2}  # channel 2 stands twice, by itself: it stays


@pytest.mark.parametrize("shape", ["int64 i = {3}", "int64[1,2] i = {3, 4}"])
def test_indices_that_are_no_vector_pin(shape: str) -> None:
    model = between(
        "b = Gather<axis = 1>(a, i)  c = ReduceMax<keepdims = 0>(b)  r = Mul(a, c)", constants=shape
    )
    assert "is read" in reason(model, "a") or "looked up" in reason(model, "a")


def test_computed_indices_pin_the_axis_looked_up_only() -> None:
    def model(axis: int) -> Model:
        return build(
            f"a = Conv(x, w1)  r = Gather<axis = {axis}>(a, i)  p = GlobalMaxPool(r)  y = Conv(p, w2)",
            "w1 8,3,1,1; w2 4,8,1,1",
            x="float[2,3,8,8] x, int64[8] i",
            y="float[2,4,1,1] y",
        )

    assert "looked up" in reason(model(1), "a")
    assert sizes(couple(model(2))) == {"a:1": 8}


def test_an_embedding_makes_the_last_axis() -> None:
    model = build(
        "e = Gather(table, x)  n = Mul(e, s)  y = MatMul(n, w)",
        "table 20,8; s 8; w 8,4",
        x="int64[2,5] x",
        y="float[2,5,4] y",
    )
    assert cut(model) == {"e:2": 8}
    (group,) = couple(model).groups
    assert [n.op_type for n in group.producers] == ["Gather"]
    assert places(model, "e:2") == ["e:2", "n:2", "s:0", "table:1", "w:0"]


def test_looking_up_and_placing_single_elements() -> None:
    """Along the width, the channels go together."""
    zeros = "s = Shape(a)  z = ConstantOfShape<value = int64[1] {0}>(s)"
    model = between(f"{zeros}  b = GatherElements<axis = 3>(a, z)  r = ScatterElements<axis = 3>(a, z, b)")
    assert cut(model) == {"a:1": 8}
    assert "looked up" in reason(between(f"{zeros}  r = GatherElements<axis = 1>(a, z)"), "a")


def test_looking_up_and_placing_slices() -> None:
    constants = "int64[3,1] where = {0, 4, 2}"
    model = dense(
        "t = Transpose<perm = [1, 0, 2]>(a)  b = GatherND(t, where)  c = ScatterND(t, where, b)"
        "  r = Transpose<perm = [1, 0, 2]>(c)",
        constants=constants,
    )
    assert cut(model) == {"a:2": 12}
    first = dense(
        "t = Transpose(a)  b = GatherND(t, where)  c = ReduceMax<keepdims = 0>(b)  r = Mul(a, c)",
        constants=constants,
    )
    assert "looked up" in reason(first, "a")


def test_one_hot_classes_stay() -> None:
    model = dense(
        "b = ArgMax<axis = 1, keepdims = 0>(a)  c = OneHot<axis = 1>(b, depth, values)  r = Mul(a, c)",
        constants="int64 depth = {5}, float[2] values = {0, 1}",
    )
    assert cut(model) == {"a:2": 12}
