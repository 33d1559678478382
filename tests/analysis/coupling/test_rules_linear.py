# SPDX-License-Identifier: Apache-2.0
"""Coupling of convolutions and matrix products: what is summed over, what is made, what must stay."""

from __future__ import annotations

import pytest

from tersor.analysis.coupling import couple
from tests.support.coupled import between, cut, dense, places, reason, sizes
from tests.support.prune_build import P1, build

TURN = "Transpose<perm = [0, 2, 1]>"
ROWS, BACK = "b = Reshape(a, rows)", "r = Reshape(c, back)"


def test_a_convolution_ties_rows_bias_and_columns() -> None:
    model = build(f"a = Conv<{P1}>(x, w1, b1)  y = Conv(a, w2, b2)", "w1 8,3,3,3; b1 8; w2 4,8,1,1; b2 4")
    assert places(model, "a:1") == ["a:1", "b1:0", "w1:0", "w2:1"]
    group = couple(model).group("a:1")
    assert [n.outputs[0].name for n in group.producers] == ["a"]
    assert [n.outputs[0].name for n in group.consumers] == ["y"]


def test_inputs_outputs_and_windows_stay() -> None:
    model = build(f"a = Conv<{P1}>(x, w1)  y = Conv(a, w2)", "w1 8,3,3,3; w2 4,8,1,1")
    coupling = couple(model)
    assert sizes(coupling) == {"a:1": 8}
    assert [(p.value, p.size, p.positions, p.reason) for p in coupling.pinned] == [
        ("y", 4, 4, "it is an output of the model")
    ]


@pytest.mark.parametrize(
    ("conv", "weight", "free"),
    [
        ("Conv<pads = [1, 1]>", "1,1,3", True),
        ("Conv<dilations = [2], pads = [4, 0]>", "1,1,3", True),
        ("Conv<pads = [1, 1], strides = [2]>", "1,1,3", False),
        ("Conv", "1,1,3", False),  # shorter behind it
        ("Conv<pads = [1, 1]>", "2,1,3", False),  # a picture, for all that is known
    ],
)
def test_a_window_slides_over_channels(conv: str, weight: str, free: bool) -> None:
    """Only where the Conv has a single channel of its own and keeps the length."""
    body = f"h = Gemm(x, w1)  u = Unsqueeze(h, one)  c = {conv}(u, k)  f = Flatten(c)  y = Gemm(f, w2)"
    length = {"2,1,3": 16}.get(weight, 8 if free else 4 if "strides" in conv else 6)
    model = build(
        body,
        f"w1 12,8; k {weight}; w2 {length},5",
        x="float[2,12] x",
        y="float[2,5] y",
        constants="int64[1] one = {1}",
    )
    if free:
        assert places(model, "h:1") == ["c:2", "f:1", "h:1", "u:2", "w1:1", "w2:0"]
        assert cut(model) == {"h:1": 8}
    else:
        assert reason(model, "h") == "a window slides over it"


@pytest.mark.parametrize(
    ("body", "weights", "groups"),
    [
        ("r = Conv<group = 8, pads = [1, 1, 1, 1]>(a, d, e)", "d 8,1,3,3; e 8", {"a:1": 8}),
        # Depthwise with two outputs for each input.
        ("b = Conv<group = 8>(a, d)  r = Conv(b, e)", "d 16,1,1,1; e 8,16,1,1", {"a:1": 8, "r:1": 8}),
        # Several inputs, one output for each group.
        ("b = Conv<group = 4>(a, d)  r = Conv(b, e)", "d 4,2,1,1; e 8,4,1,1", {"a:1": 4, "r:1": 8}),
        ("b = Conv<group = 2>(a, d)  r = Conv(b, e)", "d 6,4,1,1; e 8,6,1,1", {"a:1": 2, "r:1": 8}),
        ("r = ConvTranspose(a, d, e)", "d 8,8,1,1; e 8", {"a:1": 8, "r:1": 8}),
        ("r = ConvTranspose<group = 8>(a, d)", "d 8,1,1,1", {"a:1": 8}),
        ("b = ConvTranspose<group = 8>(a, d)  r = Conv(b, e)", "d 8,2,1,1; e 8,16,1,1", {"a:1": 8, "r:1": 8}),
        ("b = ConvTranspose<group = 4>(a, d)  r = Conv(b, e)", "d 8,1,1,1; e 8,4,1,1", {"a:1": 4, "r:1": 8}),
    ],
)
def test_groups_of_convolutions(body: str, weights: str, groups: dict[str, int]) -> None:
    assert cut(between(body, weights)) == groups


def test_relative_positions_go_where_whole_groups_cannot() -> None:
    """The first convolution reads the model's input, so none of its groups can go: outputs go in each."""
    model = build("a = Conv<group = 3>(x, w1)  y = Conv(a, w2)", "w1 12,1,1,1; w2 4,12,1,1")
    assert cut(model) == {"a:1": 4}
    assert places(
        build("a = ConvTranspose<group = 3>(x, w1)  y = Conv(a, w2)", "w1 3,4,1,1; w2 4,12,1,1"), "a:1"
    ) == [
        "a:1*3",
        "w1:1",
        "w2:1*3",
    ]


def test_consumers_of_grouped_convolutions_are_those_of_their_input() -> None:
    model = build(
        "a = Conv(x, w1)  b = ConvTranspose<group = 3>(a, w2)  y = Conv(b, w3)",
        "w1 6,3,1,1; w2 6,2,1,1; w3 4,6,1,1",
    )
    (group,) = couple(model).groups
    assert [n.outputs[0].name for n in group.consumers] == ["b", "y"]
    assert [n.outputs[0].name for n in group.producers] == ["a", "b"]


def test_a_convolution_of_equal_weights_in_two_roles_ties_both() -> None:
    """w is read as [out, in] and, transposed, as [in, out]."""
    model = build(
        "a = Conv(x, w1)  b = Conv(a, w)  c = ConvTranspose(b, w)  y = Conv(c, w2)",
        "w1 8,3,1,1; w 6,8,1,1; w2 4,8,1,1",
    )
    assert cut(model) == {"a:1": 8, "b:1": 6}
    assert places(model, "a:1") == ["a:1", "c:1", "w1:0", "w2:1", "w:1"]


def test_unequal_channels_are_pinned() -> None:
    """Not a valid model (3 groups of 8 channels), and not one to cut."""
    model = build(
        "a = Conv(x, w1)  b = Conv<group = 3>(a, w2)  y = Conv(b, w3)", "w1 8,3,1,1; w2 6,2,1,1; w3 4,6,1,1"
    )
    assert "do not divide" in reason(model, "a")


@pytest.mark.parametrize(
    ("body", "weights", "groups"),
    [
        ("r = MatMul(a, m)", "m 12,12", {"a:2": 12, "r:2": 12}),
        (f"b = {TURN}(a)  c = MatMul(m, b)  r = {TURN}(c)", "m 12,12", {"a:2": 12, "c:1": 12}),
        # A vector on either side.
        ("b = MatMul(a, m)  c = Unsqueeze(b, two)  r = Mul(c, n)", "m 12; n 12", {"a:2": 12}),
        (f"{ROWS} c = Gemm<transB = 1>(b, m, n) {BACK}", "m 12,12; n 12", {"a:2": 12, "c:1": 12}),
        (f"{ROWS} c = Gemm<alpha = 2.0>(b, m, n) {BACK}", "m 12,12; n 1,12", {"a:2": 12, "c:1": 12}),
        (f"{ROWS} t = Transpose(b)  c = Gemm<transA = 1>(t, m) {BACK}", "m 12,12", {"a:2": 12, "c:1": 12}),
    ],
)
def test_matrix_products(body: str, weights: str, groups: dict[str, int]) -> None:
    constants = "int64[1] one = {1}, int64[1] two = {2}, int64[2] rows = {10, 12}, int64[3] back = {2, 5, 12}"
    assert cut(dense(body, weights, constants=constants)) == groups


def test_a_vector_on_the_left() -> None:
    model = dense(
        "b = Transpose<perm = [0, 2, 1]>(a)  c = MatMul(m, b)  r = MatMul(c, n)",
        "m 12; n 5,12",
        y="float[2,6] y",
    )
    assert cut(model) == {"a:2": 12, "r:1": 12}


def test_a_product_that_transposes_its_operands() -> None:
    """onnx cannot infer FusedMatMul: the shape of r is declared."""
    body = "b = com.microsoft.FusedMatMul<transB = {}>(a, m)  r = Add(b, c)"
    declared = "float[2,5,20] b"
    model = dense(body.format(1), "m 20,12; c 20", constants=declared, w2="20,6")
    assert sizes(couple(model)) == {"a:2": 12, "b:2": 20}
    assert places(model, "b:2") == ["b:2", "c:0", "m:0", "r:2", "w2:0"]
    model = dense(body.format("1, transBatchA = 1"), "m 20,12; c 20", constants=declared, w2="20,6")
    assert "batch axes are transposed" in reason(model, "a")


def test_rows_of_a_weight_on_the_left_make_channels() -> None:
    model = build(
        "a = MatMul(w1, x)  r = Relu(a)  y = MatMul(w2, r)",
        "w1 8,3; w2 4,8",
        x="float[3,5] x",
        y="float[4,5] y",
    )
    assert cut(model) == {"a:0": 8}
    assert places(model, "a:0") == ["a:0", "r:0", "w1:0", "w2:1"]


def test_weights_behind_a_cast_or_a_transpose_make_channels() -> None:
    model = build(
        "t = Transpose(w1)  c = Cast<to = 1>(t)  a = MatMul(x, c)  y = MatMul(a, w2)",
        "w1 8,3; w2 8,4",
        x="float[5,3] x",
        y="float[5,4] y",
    )
    assert cut(model) == {"a:1": 8}
    model = build(
        "t = Transpose(w1)  a = MatMul(x, t)  y = MatMul(a, w2)",
        "w1 8,3; w2 8,4",
        x="float[5,3] x",
        y="float[5,4] y",
    )
    assert [n.op_type for n in couple(model).group("a:1").producers] == ["MatMul"]


def test_einsum_with_letters_of_two_activations_counts_heads() -> None:
    model = dense(
        """h = Reshape(a, split)  s = Einsum<equation = "bqhd,bkhd->bhqk">(h, h)  p = Softmax(s)
        o = Einsum<equation = "bhqk,bkhd->bqhd">(p, h)  r = Reshape(o, join)""",
        constants="int64[4] split = {2, 5, 4, 3}, int64[3] join = {2, 5, 12}",
    )
    assert cut(model) == {"a:2": 4}


def test_einsum_with_diagonals_or_an_ellipsis_is_pinned() -> None:
    for equation, shape in (("bii->bi", "3,5,4"), ("...i->...i", "3,4")):
        body = f'a = MatMul(x, w1)  r = Einsum<equation = "{equation}">(a)  y = MatMul(r, w2)'
        model = build(body, "w1 4,5; w2 5,6", x=f"float[{shape}] x", y="float[3,6] y")
        assert "ellipsis" in reason(model, "a")


def test_einsum_without_an_arrow() -> None:
    """The result has the letters that occur once, in order."""
    model = build(
        'a = Einsum<equation = "ij,jk">(x, w1)  y = MatMul(a, w2)',
        "w1 3,8; w2 8,4",
        x="float[5,3] x",
        y="float[5,4] y",
    )
    assert sizes(couple(model)) == {"a:1": 8}


def test_an_output_without_a_declared_shape_hides_nothing() -> None:
    model = build("a = Conv(x, w1)  y = Conv(a, w2)", "w1 8,3,1,1; w2 4,8,1,1", y="float y")
    assert sizes(couple(model)) == {"a:1": 8}


def test_a_convolution_of_width_one_mixes_channels_of_each_place_alone() -> None:
    """The spatial gate of gMLP: the Conv mixes places, and along the channels it sees one at a time."""
    model = build(
        "a = MatMul(x, w1)  g = Conv(a, t)  r = Relu(g)  k = Conv(r, u)  y = MatMul(k, w2)",
        "w1 6,12; t 10,5,1; u 5,10,1; w2 12,4",
        x="float[2,5,6] x",
        y="float[2,5,4] y",
    )
    assert cut(model) == {"a:2": 12, "g:1": 10}
    padded = build(
        "a = MatMul(x, w1)  g = Conv<pads = [1, 1]>(a, t)  y = MatMul(g, w2)",
        "w1 6,12; t 10,5,1; w2 14,4",
        x="float[2,5,6] x",
        y="float[2,10,4] y",
    )
    assert couple(padded).groups == ()
