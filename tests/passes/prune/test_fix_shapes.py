# SPDX-License-Identifier: Apache-2.0
"""Operands that say sizes follow a cut; what computes sizes goes on computing the old ones."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, VerifyError, to_text
from tests.support.prune_build import build
from tests.support.prune_cuts import cut
from tests.support.runtime import RESIZES_NEGATIVE_AXES

HALF = "10110010"
FLAT = "".join(d * 4 for d in HALF)
X = "float[2,3,2,2] x"
FREE = "float[N,3,2,2] x"


def gemm(target: str, *, x: str = X, given: str = "", allowzero: int = 0) -> Model:
    """Conv, Reshape to `[N, 32]`, Gemm."""
    return build(
        f"a = Conv(x, w1)  {given}  f = Reshape<allowzero = {allowzero}>(a, t)  y = Gemm(f, w2)",
        "w1 8,3,1,1; w2 32,5",
        x=x,
        y="float[N,5] y" if "N" in x else "float[2,5] y",
        constants=target,
    )


MASKS = {"w1:0 a:1": HALF, "f:1 w2:0": FLAT}


@pytest.mark.parametrize(
    ("target", "expected"),
    [("{2, 32}", "{2, 16}"), ("{-1, 32}", "{-1, 16}"), ("{0, -1}", "{0, -1}"), ("{0, 32}", "{0, 16}")],
)
def test_a_constant_target_of_reshape(target: str, expected: str) -> None:
    text = cut(gemm(f"int64[2] t = {target}"), MASKS)
    assert f"= {expected}" in text
    assert text.count("int64[2]") == 1, "the old target is gone"


def test_zero_is_written_out_where_it_copied_what_is_now_another_size() -> None:
    model = build(
        "h = MatMul(x, w1)  f = Reshape(h, t)  s = ReduceSum(f, axes)  y = Mul(s, s)",
        "w1 6,4",
        x="float[3,4,6] x",
        y="float[3,4,2] y",
        constants="int64[4] t = {0, 0, 2, 2}, int64[1] axes = {3}",
    )
    assert "{0, 0, 2, 1}" in cut(model, {"w1:1 h:2": "1010", "f:3": "10"})
    model = build(
        "h = MatMul(w1, x)  f = Reshape(h, t)  s = ReduceSum(f, axes)  y = Mul(s, s)",
        "w1 4,6",
        x="float[6,4] x",
        y="float[1,1,4] y",
        constants="int64[3] t = {0, 1, 4}, int64[1] axes = {0}",
    )
    assert "{0, 1, 4}" in cut(model, {"w1:0 h:0 f:0": "1011"}), "it copies what is cut alike"


def test_allowzero_makes_zero_a_size() -> None:
    text = cut(gemm("int64[2] t = {2, 32}", allowzero=1), MASKS)
    assert "{2, 16}" in text


def test_a_target_that_two_read_is_shared_only_where_it_changes_alike() -> None:
    def twice() -> Model:
        return build(
            """a = Conv(x, w1)  f = Reshape(a, t)  y = Gemm(f, w2)  b = Conv(x, w3)  g = Reshape(b, t)
            z = Gemm(g, w4)""",
            "w1 8,3,1,1; w3 8,3,1,1; w2 32,5; w4 32,5",
            x=X,
            y="float[2,5] y, float[2,5] z",
            constants="int64[2] t = {2, 32}",
        )

    text = cut(twice(), {"w1:0 a:1 w3:0 b:1": HALF, "f:1 g:1 w2:0 w4:0": FLAT})
    assert text.count("{2, 16}") == 1
    assert "{2, 32}" not in text
    text = cut(twice(), {"w1:0 a:1": HALF, "f:1 w2:0": FLAT})
    assert "{2, 16}" in text
    assert "{2, 32}" in text


def test_a_computed_target_keeps_what_is_not_known() -> None:
    given = "d = Shape(x)  n = Gather(d, first)  t = Concat<axis = 0>(n, flat)"
    text = cut(gemm("int64[1] first = {0}, int64[1] flat = {32}", x=FREE, given=given), MASKS, compare=True)
    assert "t_cut = Gather<axis=0>(t, t_cut_at)" in text
    assert "Concat<axis=0>(t_cut, t_cut_1)" in text or "Concat<axis=0>" in text
    assert "{16}" in text


def test_a_computed_target_that_is_all_known_becomes_constant() -> None:
    given = "d = Shape(x)  n = Gather(d, first)  t = Concat<axis = 0>(n, flat)"
    text = cut(gemm("int64[1] first = {0}, int64[1] flat = {32}", given=given), MASKS)
    assert "{2, 16}" in text
    assert "Shape" not in text, "what computed the target is gone"


def test_shape_of_a_cut_tensor_says_what_it_said() -> None:
    model = build(
        """a = Conv(x, w1)  d = Shape(a)  c = Gather(d, one)  f = Cast<to = 1>(c)  r = Sqrt(f)  s = Div(a, r)
        y = Conv(s, w2)""",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=FREE,
        y="float[N,4,2,2] y",
        constants="int64 one = {1}",
    )
    text = cut(model, {"w1:0 a:1 s:1 w2:1": HALF})
    assert "{8, 2, 2}" in text
    assert "Shape(a)" in text, "the batch is still read"


def test_shape_with_bounds_and_size() -> None:
    model = build(
        """a = Conv(x, w1)  d = Shape<start = 1, end = 2>(a)  n = Size(a)  m = Add(n, d)  f = Cast<to = 1>(m)
        s = Div(a, f)  y = Conv(s, w2)""",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=X,
        y="float[2,4,2,2] y",
    )
    text = cut(model, {"w1:0 a:1 s:1 w2:1": HALF})
    assert "Shape" not in text
    assert "{8}" in text
    assert "{64}" in text


def test_size_where_the_batch_is_not_known() -> None:
    model = build(
        "a = Conv(x, w1)  n = Size(a)  f = Cast<to = 1>(n)  s = Div(a, f)  y = Conv(s, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=FREE,
        y="float[N,4,2,2] y",
    )
    text = cut(model, {"w1:0 a:1 s:1 w2:1": HALF})
    assert "n_2 = Size(a)" in text
    assert "n = Div(n_3, n_5)" in text


def test_shape_of_what_is_not_cut_is_left_alone() -> None:
    model = build(
        "a = Conv(x, w1)  d = Shape<start = 2>(a)  f = Cast<to = 1>(d)  s = Mul(a, f)  y = Conv(s, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=X,
        y="float[2,4,2,2] y",
    )
    assert "d = Shape<start=2>(a)" in cut(model, {"w1:0 a:1 s:1 w2:1": HALF})


def test_expand_and_constant_of_shape() -> None:
    model = build(
        """a = Conv(x, w1)  e = Expand(half, wide)  f = Expand(row, low)  z = ConstantOfShape(filled)
        s = Add(a, e)  t = Add(s, f)  u = Add(t, z)  y = Conv(u, w2)""",
        "w1 8,3,1,1; w2 4,8,1,1; row 8,1,1",
        x=X,
        y="float[2,4,2,2] y",
        constants="float half = {0.5}, int64[4] wide = {2, 8, 2, 1}, int64[2] low = {1, 2},"
        " int64[4] filled = {1, 8, 1, 2}",
    )
    text = cut(model, {"w1:0 a:1 e:1 row:0 f:0 z:1 s:1 t:1 u:1 w2:1": HALF})
    assert "{2, 4, 2, 1}" in text
    assert "int64[2] low = {1, 2}" in text
    assert "{1, 4, 1, 2}" in text


def test_expand_by_a_computed_shape() -> None:
    model = build(
        """a = Conv(x, w1)  p = GlobalAveragePool(a)  d = Shape(a)  e = Expand(p, d)  s = Mul(a, e)
        y = Conv(s, w2)""",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=FREE,
        y="float[N,4,2,2] y",
    )
    text = cut(model, {"w1:0 a:1 p:1 e:1 s:1 w2:1": HALF})
    assert "= Expand(p, d_cut" in text


def test_sizes_of_resize() -> None:
    def model(axes: str, sizes: str, opset: int) -> Model:
        return build(
            f'a = Conv(x, w1)  u = Resize<mode = "nearest"{axes}>(a, , , sizes)  y = Conv(u, w2)',
            "w1 8,3,1,1; w2 4,8,1,1",
            x=X,
            y="float[2,4,4,4] y",
            constants=f"int64[{sizes.count(',') + 1}] sizes = {{{sizes}}}",
            opset=opset,
        )

    masks = {"w1:0 a:1 u:1 w2:1": HALF}
    assert "{2, 4, 4, 4}" in cut(model("", "2, 8, 4, 4", 17), masks)
    assert "sizes = {4, 4}" in cut(model(", axes = [2, 3]", "4, 4", 18), masks)
    assert "{4, 4, 4}" in cut(
        model(", axes = [-1, 1, 2]", "4, 8, 4", 18), masks, compare=RESIZES_NEGATIVE_AXES
    )


def tiled(repeats: str) -> Model:
    return build(
        "a = Conv(x, w1)  t = Tile(a, r)  p = GlobalAveragePool(x)  m = ReduceSum(p, one)  n = Tile(m, q)"
        "  s = Add(t, n)  y = Conv(s, w2)",
        "w1 8,3,1,1; w2 4,16,1,1",
        x=X,
        y="float[2,4,2,2] y",
        constants=f"int64[4] r = {{{repeats}}}, int64[4] q = {{1, 16, 1, 1}}, int64[1] one = {{1}}",
    )


def test_tile() -> None:
    twice = {"w1:0 a:1": HALF, "t:1 n:1 s:1 w2:1": HALF * 2}
    text = cut(tiled("1, 2, 1, 1"), twice)
    assert "int64[4] r = {1, 2, 1, 1}" in text
    assert "{1, 8, 1, 1}" in text
    uneven = {"w1:0 a:1": HALF, "t:1 n:1 s:1 w2:1": HALF + "11110000"}
    with pytest.raises(VerifyError, match="copies are not cut alike"):
        cut(tiled("1, 2, 1, 1"), uneven, compare=False)
    with pytest.raises(VerifyError, match="copies are not cut alike"):
        cut(tiled("1, 2, 1, 1"), {"t:1 n:1 s:1 w2:1": HALF * 2}, compare=False)


def test_reshape_whose_target_was_an_attribute() -> None:
    model = build(
        "a = Conv(x, w1)  f = Reshape<shape = [-1, 32]>(a)  y = Gemm<broadcast = 1>(f, w2, b)",
        "w1 8,3,1,1; w2 32,5; b 5",
        x=X,
        y="float[2,5] y",
        opset=1,
    )
    assert "Reshape<shape=[-1, 16]>" in cut(model, MASKS, compare=False)
    assert "Reshape" in to_text(model)
