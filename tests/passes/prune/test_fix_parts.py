# SPDX-License-Identifier: Apache-2.0
"""Split, Slice, Gather and Pad count positions anew after a cut."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, VerifyError
from tests.support.prune_build import build
from tests.support.prune_cuts import cut

X = "float[2,3,2,2] x"
Y = "float[2,4,2,2] y"


def split(call: str, second: int = 4, constants: str = "", opset: int = 17) -> Model:
    return build(
        f"a = Conv(x, w1)  l, m = Split{call}  p = Conv(l, w2)  q = Conv(m, w3)  y = Add(p, q)",
        f"w1 {4 + second},3,1,1; w2 4,4,1,1; w3 4,{second},1,1",
        x=X,
        y=Y,
        constants=constants,
        opset=opset,
    )


def parts(left: str, right: str) -> dict[str, str]:
    return {"w1:0 a:1": left + right, "l:1 w2:1": left, "m:1 w3:1": right}


def test_sizes_of_split() -> None:
    two = parts("1010", "1110")
    assert "{2, 3}" in cut(split("<axis = 1>(a, s)", constants="int64[2] s = {4, 4}"), two)
    assert "Split<axis=1, split=[2, 3]>(a)" in cut(split("<axis = 1, split = [4, 4]>(a)", opset=11), two)
    assert "Split<axis=1, split=[2, 3]>(a)" in cut(split("<axis = 1>(a)", opset=11), two)
    text = cut(split("<axis = -3>(a)", opset=13), two)
    assert "{2, 3}" in text
    assert "Split<axis=-3>(a, l_cut)" in text
    text = cut(split("<axis = 1, num_outputs = 2>(a)", opset=18), two)
    assert "Split<axis=1>(a, l_cut)" in text


def test_equal_shares_stay_implied() -> None:
    even = parts("1010", "0110")
    assert "Split<axis=1>(a)\n" in cut(split("<axis = 1>(a)", opset=13), even)
    assert "Split<axis=1, num_outputs=2>(a)\n" in cut(split("<axis = 1, num_outputs = 2>(a)", opset=18), even)


def test_the_last_share_may_be_smaller() -> None:
    model = split("<axis = 1, num_outputs = 2>(a)", second=3, opset=18)
    assert "{3, 2}" in cut(model, parts("1110", "101"))


def test_a_split_of_another_axis_is_left_alone() -> None:
    model = build(
        "a = Conv(x, w1)  l, m = Split<axis = 2>(a)  s = Add(l, m)  y = Conv(s, w2)",
        "w1 8,3,1,1; w2 4,8,1,1",
        x=X,
        y="float[2,4,1,2] y",
        opset=13,
    )
    assert "Split<axis=2>(a)\n" in cut(model, {"w1:0 a:1 l:1 m:1 s:1 w2:1": "11001100"})


def test_split_refuses_parts_that_do_not_fit() -> None:
    with pytest.raises(VerifyError, match="'m' is not cut as its source is"):
        cut(split("<axis = 1>(a)"), parts("1010", "1110") | {"m:1 w3:1": "0111"}, compare=False)


def sliced(call: str, constants: str = "", opset: int = 17, given: str = "") -> Model:
    """Conv of 8, a slice of its channels 2 to 6."""
    return build(
        f"a = Conv(x, w1)  {given}  s = Slice{call}  y = Conv(s, w2)",
        "w1 8,3,1,1; w2 4,4,1,1",
        x=X,
        y=Y,
        constants=constants,
        opset=opset,
    )


SLICED = {"w1:0 a:1": "10110101", "s:1 w2:1": "1101"}
BOUNDS = "int64[1] b = {2}, int64[1] e = {6}, int64[1] i = {1}"


def test_bounds_of_slice() -> None:
    text = cut(sliced("(a, b, e, i)", BOUNDS), SLICED)
    assert "s = Slice(a, b_cut, e_cut, i)" in text
    assert "b_cut = {1}" in text
    assert "e_cut = {4}" in text
    text = cut(sliced("<axes = [1], starts = [2], ends = [-2]>(a)", opset=9), SLICED)
    assert "Slice<axes=[1], ends=[4], starts=[1]>" in text
    constants = "int64[2] b = {0, -6}, int64[2] e = {9223372036854775807, 6}"
    text = cut(sliced("(a, b, e)", constants), SLICED)
    assert "{0, 1}" in text
    assert "{9223372036854775807, 4}" in text


def test_bounds_that_are_computed() -> None:
    given = "d = Shape(a)  c = Gather(d, i)  e = Sub(c, b)"
    text = cut(sliced("(a, b, e, i)", "int64[1] b = {2}, int64[1] i = {1}", given=given), SLICED)
    assert "e_cut = {4}" in text
    assert "Sub" not in text


STRIDES = "int64[1] b = {}, int64[1] e = {}, int64[1] i = {{1}}, int64[1] t = {}"


@pytest.mark.parametrize(
    ("bounds", "before", "after", "expected"),
    [
        (
            ("{0}", "{8}", "{2}"),
            "11001111",
            "1011",
            ("{0}", "{6}", "{2}"),
        ),  # pairs go: every second one still
        (("{0}", "{8}", "{2}"), "10101010", "1111", ("{0}", "{4}", "{1}")),  # only they stay
        (("{7}", "{-9}", "{-2}"), "11110011", "1011", ("{5}", "{-7}", "{-2}")),
    ],
)
def test_slices_in_strides(
    bounds: tuple[str, ...], before: str, after: str, expected: tuple[str, ...]
) -> None:
    model = sliced("(a, b, e, i, t)", STRIDES.format(*bounds))
    text = cut(model, {"w1:0 a:1": before, "s:1 w2:1": after})
    for name, value in zip("bet", expected, strict=True):
        assert f"{name}_cut = {value}" in text or f" {name} = {value}" in text
    assert "Gather" not in text


def test_a_slice_at_irregular_distances_becomes_a_list() -> None:
    text = cut(
        sliced("(a, b, e, i, t)", STRIDES.format("{0}", "{8}", "{2}")),
        {"w1:0 a:1": "11111011", "s:1 w2:1": "1111"},
    )
    assert "{0, 2, 4, 5}" in text
    assert "Gather<axis=1>(a," in text


def test_slice_refuses_results_that_do_not_fit() -> None:
    with pytest.raises(VerifyError, match="not cut as its source is"):
        cut(sliced("(a, b, e, i)", BOUNDS), SLICED | {"s:1 w2:1": "1011"}, compare=False)
    with pytest.raises(VerifyError, match="only its result is cut"):
        cut(sliced("(a, b, e, i)", BOUNDS), {"s:1 w2:1": "1011"}, compare=False)


def gathered(indices: str, body: str = "y = Conv(g, w2)", width: int = 5) -> Model:
    return build(
        f"a = Conv(x, w1)  g = Gather<axis = 1>(a, at)  {body}",
        f"w1 6,3,1,1; w2 4,{width},1,1",
        x=X,
        y=Y,
        constants=indices,
    )


def test_positions_of_gather() -> None:
    text = cut(gathered("int32[5] at = {5, -6, 3, 3, 1}"), {"w1:0 a:1": "110001", "g:1 w2:1": "11001"})
    assert "int32[3] at_cut = {2, 0, 1}" in text


def test_a_single_position_of_gather() -> None:
    model = gathered("int64 at = {-2}, int64[1] one = {1}", "u = Unsqueeze(g, one)  y = Conv(u, w2)", width=1)
    assert "at_cut = {1}" in cut(model, {"w1:0 a:1": "100011"})


def test_gather_refuses_what_is_removed() -> None:
    with pytest.raises(VerifyError, match="takes a position that is removed"):
        cut(gathered("int64[5] at = {5, 0, 3, 3, 1}"), {"w1:0 a:1": "110001"}, compare=False)


def padded(call: str, constants: str, opset: int = 18, before: int = 6, after: int = 8) -> Model:
    return build(
        f"a = Conv(x, w1)  p = Pad{call}  y = Conv(p, w2)",
        f"w1 {before},3,1,1; w2 4,{after},1,1",
        x=X,
        y="float[2,4,H,W] y",
        constants=constants,
        opset=opset,
    )


def test_how_much_pad_makes() -> None:
    grown = {"w1:0 a:1": "101010", "p:1 w2:1": "01" + "101010"}
    text = cut(padded("(a, n)", "int64[8] n = {0, 2, 1, 1, 0, 0, 1, 1}"), grown)
    assert "{0, 1, 1, 1, 0, 0, 1, 1}" in text
    text = cut(padded("<pads = [0, 2, 0, 0, 0, 0, 0, 0]>(a)", "", opset=10), grown)
    assert "pads=[0, 1, 0, 0, 0, 0, 0, 0]" in text
    both = {"w1:0 a:1": "101010", "p:1 w2:1": "0" + "101010" + "1"}
    text = cut(padded("(a, n, , at)", "int64[2] n = {1, 1}, int64[1] at = {-3}"), both)
    assert "{0, 1}" in text


def test_a_pad_that_crops() -> None:
    shorter = {"w1:0 a:1": "01101011", "p:1 w2:1": "1010"}
    text = cut(padded("(a, n, , at)", "int64[2] n = {-2, -2}, int64[1] at = {1}", before=8, after=4), shorter)
    assert "{-1, -2}" in text


def test_pad_refuses_copies_of_channels() -> None:
    model = padded('<mode = "edge">(a, n)', "int64[8] n = {0, 2, 0, 0, 0, 0, 0, 0}")
    with pytest.raises(VerifyError, match="depends on the channels"):
        cut(model, {"w1:0 a:1": "101010", "p:1 w2:1": "11101010"}, compare=False)
    model = padded('<mode = "edge">(a, n)', "int64[8] n = {0, 0, 1, 1, 0, 0, 0, 0}", before=8)
    cut(model, {"w1:0 a:1 p:1 w2:1": "10101001"})
