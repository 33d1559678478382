# SPDX-License-Identifier: Apache-2.0
"""Coupling through Reshape, Flatten, DepthToSpace, SpaceToDepth, Shape and Size."""

from __future__ import annotations

import pytest

from tersor.analysis.coupling import couple
from tests.support.coupled import between, cut, dense, places, reason, sizes
from tests.support.prune_build import build
from tests.support.prune_cuts import halve


def reshaped(first: str, second: str) -> dict[str, int]:
    """Groups where `a` [2, 8, 8, 8] takes a shape and comes back."""
    count = len(first.split(","))
    constants = f"int64[{count}] there = {{{first}}}, int64[4] back = {{{second}}}"
    return cut(between("b = Reshape(a, there)  c = Relu(b)  r = Reshape(c, back)", constants=constants))


@pytest.mark.parametrize(
    ("there", "atoms"),
    [
        ("2, 8, 64", 8),
        ("0, 0, -1", 8),
        ("2, 512", 8),
        ("16, 8, 8", 8),
        ("2, 8, 1, 8, 1, 8", 8),
        ("2, 2, 4, 64", 4),  # halves: position i of both goes
        ("2, 4, 2, 8, 8", 4),
        ("2, 4, 128", 4),
        ("-1", 8),
    ],
)
def test_channels_that_are_reshaped_and_come_back(there: str, atoms: int) -> None:
    assert reshaped(there, "2, 8, 8, 8") == {"a:1": atoms}


@pytest.mark.parametrize("there", ["2, 512, 1", "2, 1, 512"])
def test_flattened_channels_go_in_blocks(there: str) -> None:
    model = between(
        "b = Reshape(a, there)  r = Squeeze(b)",
        constants=f"int64[3] there = {{{there}}}",
        tail="y = Gemm(r, w2)",
        w2="512,4",
        y="float[2,4] y",
    )
    assert cut(model) == {"a:1": 8}
    merged = 1 if there.endswith("1") else 2
    assert places(model, "a:1") == ["a:1", f"b:{merged}*64", "r:1*64", "w1:0", "w2:0*64"]


def test_sizes_that_share_no_factor_are_pinned() -> None:
    """9 channels of 4 rows as 6 of 6: neither size divides the other."""
    model = build(
        "a = Conv(x, w1)  b = Reshape(a, there)  y = Conv(b, w2)",
        "w1 9,3,1,1; w2 4,6,1,1",
        x="float[2,3,4,4] x",
        y="float[2,4,6,4] y",
        constants="int64[4] there = {2, 6, 6, 4}",
    )
    assert "no axis apart" in reason(model, "a")


def test_flatten_with_a_leading_batch_of_unknown_size() -> None:
    body = "a = Conv(x, w1)  f = Flatten(a)  y = Gemm(f, w2)"
    model = build(body, "w1 8,3,1,1; w2 512,4", x="float[N,3,8,8] x", y="float[N,4] y")
    assert sizes(couple(model)) == {"a:1": 8}


def test_a_channel_of_unknown_size_is_not_cut_out_of_a_merged_axis() -> None:
    model = build(
        "a = Conv(x, w1)  f = Flatten(a)  m = Softplus(f)  y = ReduceSum(m, last)",
        "w1 8,3,1,1",
        x="float[2,3,H,W] x",
        y="float[2,1] y",
        constants="int64[1] last = {1}",
    )
    assert "unknown size" in reason(model, "a")
    rows = build(
        "a = Conv(x, w1)  f = Flatten<axis = 2>(a)  y = MatMul(w2, f)",
        "w1 8,3,1,1; w2 4,16",
        x="float[2,3,H,W] x",
        y="float[4,S] y",
    )
    assert sizes(couple(rows)) == {"a:1": 8}


def test_named_sizes_cancel() -> None:
    """[B, S, 12] as [B * S, 12], then as [B, S, 4, 3]; the sizes are computed from the input's."""
    model = build(
        """s = Shape(x)  n = Gather(s, i0)  m = Gather(s, i1)  a = MatMul(x, w1)  b = Reshape(a, rows)
        c = Gemm(b, w2)  t = Concat<axis = 0>(n, m, heads)  d = Reshape(c, t)  e = ReduceMax<axes = [-1]>(d)
        f = Squeeze(e, last)  y = MatMul(f, w3)""",
        "w1 7,12; w2 12,12; w3 4,6",
        x="float[B,S,7] x",
        y="float[B,S,6] y",
        constants="int64[2] rows = {-1, 12}, int64[2] heads = {4, 3}, int64[1] i0 = {0}, int64[1] i1 = {1},"
        " int64[1] last = {-1}",
    )
    assert cut(model) == {"a:2": 12, "c:1": 4}


def test_computed_targets_follow_the_inferred_shape() -> None:
    model = build(
        """a = Conv(x, w1)  s = Shape(a)  n = Gather(s, i0)  c = Gather(s, i1)
        t = Concat<axis = 0>(n, c, rest)
        b = Reshape(a, t)  m = ReduceMax<axes = [2], keepdims = 0>(b)  y = Gemm(m, w2)""",
        "w1 8,3,1,1; w2 8,4",
        x="float[N,3,H,W] x",
        y="float[N,4] y",
        constants="int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] rest = {-1}",
    )
    assert sizes(couple(model)) == {"a:1": 8}


@pytest.mark.parametrize(("groups", "atoms"), [(8, 8), (4, 32)])
def test_a_group_norm_in_pieces_loses_whole_groups_where_there_are_plenty(groups: int, atoms: int) -> None:
    """So that layers of several widths with as many groups each can be joined."""
    model = build(
        """a = Conv(x, w1)  g = Reshape(a, parts)  n = InstanceNormalization(g, ones, zeros)
        r = Reshape(n, back)  y = Conv(r, w2)""",
        "w1 128,3,1,1; w2 4,128,1,1",
        constants=f"int64[3] parts = {{0, {groups}, -1}}, int64[4] back = {{2, 128, 8, 8}},"
        f" float[{groups}] ones = {{{', '.join(['1'] * groups)}}},"
        f" float[{groups}] zeros = {{{', '.join(['0'] * groups)}}}",
    )
    assert cut(model) == {"a:1": atoms}


def test_heads_merged_with_the_batch_and_parted_again_are_the_same_heads() -> None:
    """nn.MultiheadAttention: products are batched over one axis of batch and heads."""
    model = dense(
        """q = Reshape(a, merged)  t = Transpose<perm = [1, 0, 2]>(q)  p = Reshape(t, parted)
        k = Transpose<perm = [0, 1, 3, 2]>(p)  s = MatMul(p, k)  m = Softmax(s)  v = MatMul(m, p)
        c = Transpose<perm = [2, 0, 1, 3]>(v)  r = Reshape(c, back)""",
        constants="int64[3] merged = {2, 20, 3}, int64[4] parted = {5, 4, 2, 3}, int64[3] back = {2, 5, 12}",
    )
    assert cut(model) == {"a:2": 4}


def test_heads_are_chosen_before_their_width() -> None:
    """Both factors of 12 are free; the one that batches a product is cut, though it is shorter."""
    split = "int64[4] split = {2, 5, 3, 4}, int64[3] join = {2, 5, 12}"
    model = dense(
        """h = Reshape(a, split)  q = Transpose<perm = [0, 2, 1, 3]>(h)  k = Transpose<perm = [0, 2, 3, 1]>(h)
        s = MatMul(q, k)  p = Softmax(s)  o = MatMul(p, q)  m = Transpose<perm = [0, 2, 1, 3]>(o)
        r = Reshape(m, join)""",
        constants=split,
    )
    assert cut(model) == {"a:2": 3}
    assert cut(dense("h = Reshape(a, split)  b = Relu(h)  r = Reshape(b, join)", constants=split)) == {
        "a:2": 4
    }


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_channels_become_pixels(mode: str) -> None:
    model = between(
        f'r = DepthToSpace<blocksize = 2, mode = "{mode}">(a)', w2="4,2,1,1", y="float[2,4,16,16] y"
    )
    assert cut(model) == {"a:1": 2}
    assert places(model, "a:1") == ["a:1*4", "r:1", "w1:0*4", "w2:1"]
    atoms = couple(model).group("a:1").axes[0].atom_of.tolist()
    assert atoms == ([0, 1] * 4 if mode == "DCR" else [0] * 4 + [1] * 4)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_places_of_a_block_stay_though_nothing_behind_needs_rows_and_columns(mode: str) -> None:
    model = build(
        f"""a = Conv(x, w1)  r = DepthToSpace<blocksize = 2, mode = "{mode}">(a)  f = Flatten(r)
        y = Gemm(f, w2)""",
        "w1 8,3,1,1; w2 32,5",
        x="float[2,3,2,2] x",
        y="float[2,5] y",
    )
    assert cut(model) == {"a:1": 2}
    assert "r:1" in places(model, "a:1")
    halve(model)
    assert not couple(model).groups, "a single channel loses neither rows nor columns of its blocks"


def test_pixels_become_channels() -> None:
    model = between("r = SpaceToDepth<blocksize = 2>(a)", w2="4,32,1,1", y="float[2,4,4,4] y")
    assert cut(model) == {"a:1": 8}
    assert places(model, "a:1") == ["a:1", "r:1*4", "w1:0", "w2:1*4"]


@pytest.mark.parametrize(
    "body",
    [
        # The size is a number in a computation: it stays that of before.
        "s = Shape(a)  c = Gather(s, one)  f = Cast<to = 1>(c)  q = Sqrt(f)  r = Div(a, q)",
        "n = Size(a)  f = Cast<to = 1>(n)  q = Log(f)  r = Mul(a, q)",
        # It is asked for another tensor, which stays as wide as it is.
        "b = Conv(x, w3)  g = GlobalMaxPool(b)  s = Shape(a)  e = Expand(g, s)  r = Mul(a, e)",
        "s = Shape<start = 1, end = 2>(a)  z = ConstantOfShape(s)  r = Add(a, z)",
    ],
)
def test_reading_a_size_pins_nothing(body: str) -> None:
    groups = cut(between(body, "w3 1,3,1,1", constants="int64 one = {1}"))
    assert groups.pop("a:1") == 8
    assert not groups


def test_the_number_of_elements_of_a_batch_of_unknown_size() -> None:
    model = build(
        "a = Conv(x, w1)  n = Size(a)  f = Cast<to = 1>(n)  r = Div(a, f)  y = Conv(r, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x="float[N,3,8,8] x",
        y="float[N,4,8,8] y",
    )
    assert cut(model) == {"a:1": 8}


def test_factors_that_another_reshape_parts_further_are_told_what_they_are_made_of() -> None:
    """Patches taken out of a picture, then read by head: 8 channels x 64 places are 2 x 4 x 64."""
    model = between(
        """f = Reshape(a, flat)  h = Reshape(f, parts)  s = Sigmoid(h)  g = Reshape(s, flat)
        r = Reshape(g, back)""",
        constants="int64[2] flat = {2, 512}, int64[4] parts = {2, 2, 4, 64}, int64[4] back = {2, 8, 8, 8}",
    )
    assert cut(model) == {"a:1": 4}


def test_channels_go_before_the_steps_that_are_laid_beside_them() -> None:
    """As Keras unrolls TimeDistributed: more steps than channels, and no layer makes a step."""
    steps = "  ".join(
        f"x{t} = Gather<axis = 1>(x, i{t})  a{t} = MatMul(x{t}, w1)  u{t} = Unsqueeze(a{t}, one)"
        for t in range(5)
    )
    model = build(
        f"{steps}  c = Concat<axis = 1>(u0, u1, u2, u3, u4)  r = Reshape(c, flat)  y = MatMul(r, w2)",
        "w1 6,3; w2 15,4",
        x="float[2,5,6] x",
        y="float[2,4] y",
        constants="int64[1] one = {1}, int64[2] flat = {0, 15}, "
        + ", ".join(f"int64 i{t} = {{{t}}}" for t in range(5)),
    )
    assert sizes(halve(model)) == {"a0:1": 3}


def test_heads_go_before_the_windows_they_are_batched_with() -> None:
    """Attention in windows of a padded image: more windows than heads."""
    parts = "  ".join(
        f"{n}1 = MatMul(w, w{n})  {n}2 = Reshape({n}1, apart)"
        f"  {n}3 = Transpose<perm = [0, 2, 1, 3]>({n}2)  {n} = Reshape({n}3, batched)"
        for n in "qkv"
    )
    model = build(
        f"""z = Pad(x, pads)  w = Reshape(z, windows)  {parts}
        t = Transpose<perm = [0, 2, 1]>(k)  s = MatMul(q, t)  p = Softmax(s)  c = MatMul(p, v)
        c1 = Reshape(c, unbatched)  c2 = Transpose<perm = [0, 2, 1, 3]>(c1)  c3 = Reshape(c2, merged)
        y = MatMul(c3, wo)""",
        "wq 6,8; wk 6,8; wv 6,8; wo 8,5",
        x="float[1,22,6] x",
        y="float[6,4,5] y",
        constants="int64[6] pads = {0, 0, 0, 0, 2, 0}, int64[3] windows = {6, 4, 6},"
        " int64[4] apart = {6, 4, 4, 2}, int64[3] batched = {24, 4, 2},"
        " int64[4] unbatched = {6, 4, 4, 2}, int64[3] merged = {6, 4, 8}",
    )
    assert sizes(halve(model)) == {"q1:2": 4}
