# SPDX-License-Identifier: Apache-2.0
"""A Transpose to channels-last goes in front of an enlarging Resize."""

from __future__ import annotations

import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.passes.layout.resize import ResizeChannelsLast
from tests.support.rewriting import declined, model_of, rewrite

PASS = ResizeChannelsLast()
X, Y = "float[N,3,4,5] x", "float[N,8,10,3] y"
LAST = " y = Transpose<perm = [0,2,3,1]>(r)"
LINEAR = 'mode = "linear"'
SIZES = "int64[4] sizes = {2,3,8,10}, float[4] scales = {1,1,2,2}, int64[2] two = {8,10}, float[0] none = {}"
BY_SIZES = f"r = Resize<{LINEAR}>(x, , , sizes)" + LAST


def made(body: str, x: str = X, y: str = Y, opset: int = 18) -> Model:
    model = model_of(body, SIZES, x=x, y=y, opset=opset)
    infer_shapes(model)
    return model


@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"])
def test_sizes(mode: str) -> None:
    body = BY_SIZES.replace(LINEAR, f'{LINEAR}, coordinate_transformation_mode = "{mode}"')
    done = rewrite(PASS, made(body, X.replace("N", "2"), Y.replace("N", "2")))
    assert done.ops == ["Transpose", "Resize"]
    assert "{2, 8, 10, 3}" in done.text


@pytest.mark.parametrize("roi", ["", "none"])
def test_scales(roi: str) -> None:
    done = rewrite(PASS, made(f"r = Resize<{LINEAR}>(x, {roi}, scales)" + LAST), N=2)
    assert done.ops == ["Transpose", "Resize"]
    assert "{1.0, 2.0, 2.0, 1.0}" in done.text


def test_axes() -> None:
    done = rewrite(PASS, made(f"r = Resize<{LINEAR}, axes = [2, 3]>(x, , , two)" + LAST), N=2)
    assert done.ops == ["Transpose", "Resize"]
    assert "axes=[1, 2]" in done.text


def test_axes_in_another_order() -> None:
    body = f"r = Resize<{LINEAR}, axes = [3, 2]>(x, , , two)" + LAST
    done = rewrite(PASS, made(body, y="float[N,10,8,3] y"), N=2)
    assert "axes=[2, 1]" in done.text


def test_sizes_that_are_computed() -> None:
    body = (
        "s = Shape<end = 2>(x) t = Concat<axis = 0>(s, two) "
        f'r = Resize<{LINEAR}, coordinate_transformation_mode = "align_corners">(x, , , t)'
    )
    done = rewrite(PASS, made(body + LAST), N=2)
    assert done.ops == ["Shape", "Concat", "Gather", "Transpose", "Resize"]


def test_in_a_body() -> None:
    model = made(
        "y = If (b) <then_branch = yes () => (float[N,8,10,3] u) { "
        f"r = Resize<{LINEAR}>(x, , scales) u = Transpose<perm = [0,2,3,1]>(r) }},"
        " else_branch = no () => (float[N,8,10,3] w) { w = Relu(z) }>",
        f"{X}, float[N,8,10,3] z, bool b",
    )
    done = rewrite(PASS, model, N=2)
    assert done.ops.index("Transpose") < done.ops.index("Resize")


CROPS = f'{LINEAR}, coordinate_transformation_mode = "tf_crop_and_resize"'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BY_SIZES.replace("0,2,3,1", "0,3,2,1"), "not a transpose to channels-last"),
        (BY_SIZES.replace("linear", "cubic"), "not linear interpolation of float"),
        (BY_SIZES.replace(LINEAR, 'mode = "nearest"'), "not linear interpolation of float"),
        (BY_SIZES.replace(LINEAR, f"{LINEAR}, antialias = 1"), "it smooths, or keeps the aspect ratio"),
        (f"r = Resize<{CROPS}>(x, box, scales)" + LAST, "it crops"),
        (f"r = Resize<{LINEAR}>(x, , q)" + LAST, "batch or channels are not known to stay"),
        (f"r = Resize<{LINEAR}>(x, , small)" + LAST, "it does not enlarge"),
    ],
)
def test_near_misses(body: str, reason: str) -> None:
    weights = (
        f"{SIZES}, float[8] box = {{0,0,0,0,1,1,1,1}}, float[4] q = {{1,1.1,2,2}}, "
        "float[4] small = {1,1,0.5,0.5}"
    )
    y = "float[a,b,c,d] y"
    model = model_of(body, weights, x=X.replace("N", "2"), y=y, opset=18)
    infer_shapes(model)
    assert declined(PASS, model) == {reason}


def test_a_result_that_others_read_stays() -> None:
    assert declined(PASS, made(BY_SIZES + " z = Relu(r)", X, f"{Y}, float[N,3,8,10] z")) == set()


def test_doubles_stay() -> None:
    model = made(BY_SIZES, X.replace("float", "double"), Y.replace("float", "double"))
    assert declined(PASS, model) == {"not linear interpolation of float"}
