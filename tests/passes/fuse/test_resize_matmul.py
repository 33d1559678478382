# SPDX-License-Identifier: Apache-2.0
"""Linear Resize as matrix products: in every coordinate mode, and where it stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.shapes import infer_shapes
from tersor.passes.fuse.resize_matmul import ResizeToMatMul
from tests.support.rewriting import declined, model_of, rewrite

PASS = ResizeToMatMul()
MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


axis = st.tuples(st.integers(1, 9), st.integers(1, 12))


@given(axis, axis, st.sampled_from(MODES))
def test_any_sizes(rows: tuple[int, int], columns: tuple[int, int], mode: str) -> None:
    (h, new_h), (w, new_w) = rows, columns
    model = model_of(
        f'y = Resize<mode = "linear", coordinate_transformation_mode = "{mode}">(x, , , sizes)',
        f"int64[4] sizes = {{1, 2, {new_h}, {new_w}}}",
        x=f"float[1,2,{h},{w}] x", y=f"float[1,2,{new_h},{new_w}] y",
    )  # fmt: skip
    assert rewrite(PASS, model).ops == ["MatMul", "MatMul"]


def resize(attributes: str, sizes: str = "{0, 0, 9, 14}") -> str:
    return f'y = Resize<mode = "linear"{attributes}>(x, , , sizes)'


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("x", "new"), [("2,3,4,5", "9, 14"), ("2,3,4,5", "2, 3"), ("1,3,1,1", "4, 6")])
def test_by_sizes(mode: str, x: str, new: str) -> None:
    n, c = x.split(",")[:2]
    model = model_of(
        resize(f', coordinate_transformation_mode = "{mode}"'),
        f"int64[4] sizes = {{{n}, {c}, {new}}}", x=f"float[{x}] x", y=f"float[{n},{c},{new}] y",
    )  # fmt: skip
    assert rewrite(PASS, model).ops == ["MatMul", "MatMul"]


@pytest.mark.parametrize("mode", MODES)
def test_coordinates_go_by_the_scales_that_are_given(mode: str) -> None:
    """2.4 times 5 is 12, but 2.5 times 5 is 12, too."""
    model = model_of(
        f'y = Resize<mode = "linear", coordinate_transformation_mode = "{mode}">(x, , scales)',
        "float[4] scales = {1.0, 1.0, 2.5, 1.5}", x="float[N,3,5,7] x", y="float[N,3,12,10] y",
    )  # fmt: skip
    if mode == "align_corners":
        assert "where the corners lie is not agreed on for such scales" in declined(PASS, model)
        return
    assert rewrite(PASS, model).ops == ["MatMul", "MatMul"]


def test_a_body_is_rewritten_too() -> None:
    model = model_of(
        """y = If(c) <
            then_branch = t () => (float[1,2,6,6] a) { a = Resize<mode = "linear">(x, , , sizes) },
            else_branch = e () => (float[1,2,6,6] b) { b = Resize<mode = "linear">(x, , , sizes) }>""",
        "int64[4] sizes = {1, 2, 6, 6}", x="float[1,2,3,3] x, bool c", y="float[1,2,6,6] y",
    )  # fmt: skip
    assert rewrite(PASS, model).ops.count("MatMul") == 4


SIZES = "int64[4] sizes = {1, 2, 6, 6}"


@pytest.mark.parametrize(
    ("body", "weights", "x", "reason"),
    [
        ('y = Resize<mode = "nearest">(x, , , sizes)', SIZES, "1,2,3,3",
         "not linear interpolation of float"),
        ('y = Resize<mode = "cubic">(x, , , sizes)', SIZES, "1,2,3,3",
         "not linear interpolation of float"),
        (
            'y = Resize<mode="linear", coordinate_transformation_mode="half_pixel_symmetric">(x, , , sizes)',
            SIZES, "1,2,3,3", "coordinates by half_pixel_symmetric",
        ),
        (
            'y = Resize<mode = "linear", antialias = 1>(x, , , sizes)',
            SIZES, "1,2,3,3", "it smooths, or keeps the aspect ratio",
        ),
        ('y = Resize<mode = "linear">(x, , , sizes)', SIZES, "1,2,H,3",
         "other axes than the last two change, or sizes are not known"),
        ('y = Resize<mode = "linear">(x, , , sizes)', "int64[4] sizes = {1, 4, 6, 6}", "1,2,3,3",
         "other axes than the last two change, or sizes are not known"),
        ('y = Resize<mode = "linear">(x, , , sizes)', "int64[4] sizes = {1, 2, 300, 300}", "1,2,150,150",
         "Resize is as fast as the products"),
        ('r = Resize<mode = "linear">(x, , , sizes) y = Relu(r)', SIZES, "1,2,3,3",
         "the runtime has a faster kernel in this place"),
        ('r = Resize<mode = "linear">(x, , , sizes) q = QuantizeLinear(r, s) y = DequantizeLinear(q, s)',
         SIZES + ", float s = {0.1}", "1,2,3,3", "it is computed on codes"),
    ],
)  # fmt: skip
def test_what_stays(body: str, weights: str, x: str, reason: str) -> None:
    shape = weights[weights.index("{") + 1 : weights.index("}")]
    model = model_of(body, weights, x=f"float[{x}] x", y=f"float[{shape}] y", opset=19)
    infer_shapes(model)
    assert reason in declined(PASS, model)


def test_scales_of_the_feed_stay() -> None:
    model = model_of(
        'y = Resize<mode = "linear">(x, , scales)',
        x="float[1,2,3,3] x, float[4] scales",
        y="float[1,2,6,6] y",
    )
    assert "scales are not constant" in declined(PASS, model)
