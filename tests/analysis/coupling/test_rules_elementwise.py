# SPDX-License-Identifier: Apache-2.0
"""Coupling of elementwise operators, normalisations, poolings, reductions and softmax."""

from __future__ import annotations

import pytest

from tersor.analysis.coupling import couple
from tests.support.coupled import between, cut, dense, places, reason, sizes
from tests.support.prune_build import build


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("r = Sigmoid(a)", ""),
        ("b = Cast<to = 11>(a)  r = CastLike(b, a)", ""),
        ("r = Clip(a, lo, hi)", ""),
        ("r = Mul(a, e)", "e 8,1,1"),
        ("r = Add(e, a)", "e 1,8,1,8"),
        ("r = Sub(a, e)", "e 1,1,8"),  # the width, not the channels
        ("b = Greater(a, e)  r = Where(b, a, f)", "e 8,1,1; f 1"),
        ("r = Max(a, e, f)", "e 8,1,1; f 2,1,1,1"),
        ("b, m = Dropout(a, half, no)  r = Neg(b)", ""),
        ("b, m = Dropout(a)  c = Cast<to = 1>(m)  r = Mul(b, c)", ""),
        ("r = PRelu(a, e)", "e 8,1,1"),
        ("b = ReduceMean<axes = [2, 3]>(a)  c = Softplus(b)  r = Mul(a, c)", ""),
        ("r = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)", ""),
        ("r = LpPool<kernel_shape = [1, 1]>(a)", ""),
        ("b = GlobalMaxPool(a)  r = Mul(a, b)", ""),
        ("r = Softmax<axis = 2>(a)", ""),
        ("r = CumSum(a, two)", ""),
        ("b, i = TopK<axis = 3>(a, all)  r = Neg(b)", ""),
        ("b = ArgMax<axis = 2>(a)  c = Cast<to = 1>(b)  r = Mul(a, c)", ""),
        ("r = Trilu(a)", ""),
        ("r = BatchNormalization(a, gain, e, f, var)", "gain 8; e 8; f 8; var 8"),
        ("r = InstanceNormalization(a, gain, e)", "gain 8; e 8"),
    ],
)
def test_channels_are_carried(body: str, weights: str) -> None:
    constants = "float lo = {-1}, float hi = {1}, int64 two = {2}, int64[1] all = {8},"
    constants += " float half = {0.5}, bool no = {0}"
    assert cut(between(body, weights, constants=constants)) == {"a:1": 8}


def test_vectors_go_with_the_channels() -> None:
    model = between(
        "b = BatchNormalization(a, g, e, f, var)  r = PRelu(b, s)", "g 8; e 8; f 8; var 8; s 8,1,1"
    )
    assert places(model, "a:1") == ["a:1", "b:1", "e:0", "f:0", "g:0", "r:1", "s:0", "var:0", "w1:0", "w2:1"]


def test_broadcasting_ties_what_is_aligned_from_the_end() -> None:
    """The 8 of e is the last axis of a, which is its width."""
    model = between("r = Mul(a, e)", "e 8")
    assert places(model, "a:1") == ["a:1", "r:1", "w1:0", "w2:1"]


def test_before_opset_7_broadcasting_says_where() -> None:
    model = build(
        "a = Conv(x, w1)  r = Add<broadcast = 1, axis = 1>(a, e)  y = Conv(r, w2)",
        "w1 8,3,1,1; e 8; w2 4,8,1,1",
        opset=6,
    )
    assert places(model, "a:1") == ["a:1", "e:0", "r:1", "w1:0", "w2:1"]


def test_a_product_of_two_branches_is_one_group() -> None:
    model = between("b = Conv(x, w3)  r = Mul(a, b)", "w3 8,3,1,1")
    assert cut(model) == {"a:1": 8}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("r = Softmax<axis = 1>(a)", "Softmax is taken over it, where a channel of zeros still counts"),
        ("r = Hardmax<axis = -3>(a)", "Hardmax is taken over it, where a channel of zeros still counts"),
        ("r = CumSum(a, one)", "CumSum runs along it"),
        ("b, i = TopK<axis = 1>(a, all)  r = Neg(b)", "TopK sorts along it"),
        ("b = ArgMin<axis = 1>(a)  c = Cast<to = 1>(b)  r = Mul(a, c)", "ArgMin tells its positions apart"),
        ("b = ReduceProd<axes = [1]>(a)  r = Mul(a, b)", "ReduceProd takes all of it together"),
        ("r = LRN<size = 3>(a)", "LRN divides each channel by its neighbours"),
        ("b, i = MaxPool<kernel_shape = [1, 1]>(a)  c = Cast<to = 1>(i)  r = Mul(b, c)", "count through all"),
        ("r, m, v = BatchNormalization<training_mode = 1>(a, e, e, e, e)", "statistics of the batch"),
        ("b = RandomNormalLike<seed = 1.0>(a)  r = Add(a, b)", "by number"),
        ("b, m = Dropout(a, half, yes)  r = Neg(b)", "draws at random"),
        ("b = Shape(a)  n = NonZero(a)  c = Cast<to = 1>(n)  s = ReduceSum(c)  r = Mul(a, s)", "by number"),
    ],
)
def test_channels_that_are_told_apart_stay(body: str, why: str) -> None:
    model = between(
        body, "e 8", constants="int64 one = {1}, int64[1] all = {8}, float half = {0.5}, bool yes = {1}"
    )
    assert why in reason(model, "a")


def test_an_operator_without_a_rule_pins() -> None:
    assert "no rule is known for Det" in reason(
        between("d = Det(a)  c = ReduceSum(d, one)  r = Mul(a, c)", constants="int64[1] one = {1}"), "a"
    )


def test_softmax_before_opset_13_is_over_all_axes_from_its_axis_on() -> None:
    assert "Softmax" in reason(between("r = Softmax<axis = 1>(a)", opset=11), "a")
    assert sizes(couple(between("r = Softmax<axis = 2>(a)", opset=11))) == {"a:1": 8}
    assert "Softmax" in reason(between("r = Softmax(a)", opset=11), "a")


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_sums_over_channels_are_exact(op: str) -> None:
    axes = "b = ReduceSum(a, one)" if op == "ReduceSum" else f"b = {op}<axes = [1]>(a)"
    model = between(f"{axes}  r = Mul(a, b)", constants="int64[1] one = {1}")
    assert cut(model) == {"a:1": 8}
    assert [n.op_type for n in couple(model).group("a:1").consumers] == [op, "Conv"]


def test_means_and_norms_are_of_what_is_left() -> None:
    model = between("b = ReduceMean<axes = [-3]>(a)  c = Sub(a, b)  r = LpNormalization<axis = 1>(c)")
    assert sizes(couple(model)) == {"a:1": 8}
    assert [n.op_type for n in couple(model).group("a:1").normalised] == ["ReduceMean", "LpNormalization"]
    assert not couple(between("b = ReduceMean<axes = [2]>(a)  r = Sub(a, b)")).group("a:1").normalised


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_pooling_over_channels_that_stand_last_is_a_reduction(op: str) -> None:
    model = dense(f"b = {op}(a)  r = Sub(a, b)")
    assert cut(model) == {"a:2": 12}
    group = couple(model).group("a:2")
    takers = group.consumers if op == "GlobalLpPool" else group.normalised
    assert op in [n.op_type for n in takers]


def test_reductions_with_computed_axes_pin() -> None:
    model = build(
        "a = Conv(x, w1)  b = ReduceSum(a, axes)  r = Mul(a, b)  y = Conv(r, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x="float[2,3,8,8] x, int64[1] axes",
    )
    assert "the rank of 'b'" in reason(model, "a")


def test_layer_norms_carry_scale_and_bias() -> None:
    model = dense("r = LayerNormalization(a, gain, e)", "gain 12; e 12")
    assert cut(model) == {"a:2": 12}
    assert places(model, "a:2") == ["a:2", "e:0", "gain:0", "r:2", "w1:1", "w2:0"]
    assert [n.op_type for n in couple(model).group("a:2").normalised] == ["LayerNormalization"]


def test_a_norm_of_a_sum_ties_both_summands() -> None:
    model = dense(
        "b = MatMul(x, m)  r = com.microsoft.SkipLayerNormalization(a, b, gain, e)",
        "m 7,12; gain 12; e 12",
        constants="float[2,5,12] r",
    )
    assert places(model, "a:2") == ["a:2", "b:2", "e:0", "gain:0", "m:1", "r:2", "w1:1", "w2:0"]


def test_channels_that_a_pool_leaves_alone_are_free() -> None:
    """Pooling over the tokens of [batch, 1, tokens, channels]."""
    pooled = "b = Unsqueeze(a, one)  {}  r = Squeeze(c, one)"
    steps = "int64[1] one = {1}"
    for op in ("AveragePool", "MaxPool", "LpPool"):
        body = pooled.format(f"c = {op}<kernel_shape = [3, 1], pads = [1, 0, 1, 0]>(b)")
        assert cut(dense(body, constants=steps)) == {"a:2": 12}
    for wide in ("kernel_shape = [1, 3], pads = [0, 1, 0, 1]", "kernel_shape = [1, 1], strides = [1, 2]"):
        body = pooled.format(f"c = MaxPool<{wide}>(b)")
        model = dense(body, constants=steps, w2="6,6" if "strides" in wide else "12,6")
        assert "a window slides over it" in reason(model, "a")


def test_group_norm_loses_whole_groups() -> None:
    for opset, width in ((18, 4), (21, 8)):
        model = between(
            "r = GroupNormalization<num_groups = 4>(a, gain, e)", f"gain {width}; e {width}", opset=opset
        )
        assert sizes(couple(model)) == {"a:1": 4}
    model = between("r = GroupNormalization<num_groups = 3>(a, gain, e)", "gain 8; e 8", opset=21)
    assert "do not divide" in reason(model, "a")


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ('r = Resize<mode = "linear">(a, , scales)', "float[4] scales = {1, 1, 2, 2}"),
        ("r = Resize(a, , , sizes)", "int64[4] sizes = {2, 8, 16, 16}"),
    ],
)
def test_resizing_keeps_channels(body: str, constants: str) -> None:
    model = between(body, constants=constants, y="float[2,4,16,16] y")
    assert cut(model) == {"a:1": 8}


def test_resizing_of_channels_or_by_unknown_scales_pins() -> None:
    model = between("r = Resize(a, , scales)", constants="float[4] scales = {1, 2, 1, 1}", w2="4,16,1,1")
    assert "resized" in reason(model, "a")
    model = build(
        "a = Conv(x, w1)  r = Resize(a, , scales)  p = GlobalMaxPool(r)  y = Conv(p, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x="float[2,3,8,8] x, float[4] scales",
        y="float[2,4,1,1] y",
    )
    assert "resized" in reason(model, "a") or "size" in reason(model, "a")
