# SPDX-License-Identifier: Apache-2.0
"""What is cut off a convolution is not computed: its padding shrinks, that of a ConvTranspose grows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tersor.graph_ir import to_proto
from tersor.passes.base import Context
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.fuse.crop import FoldCrop
from tersor.pipeline.presets import LOSSLESS
from tests.support.int8 import session
from tests.support.rewriting import declined, model_of, rewrite

STEPS = (InferShapes(), FoldCrop(), EliminateDeadCode())
BOUNDS = (
    "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] end = {99},"
    "int64[1] less1 = {-1}, int64[1] less4 = {-4}, int64[1] axis = {2}, int64[1] last = {-1}"
)
LINE = f"float[4,3,3] w = {{seed}}, float[4] b = {{seed}}, {BOUNDS}"
PICTURE = (
    "float[4,3,3,3] w = {seed}, float[3,4,4,4] v = {seed},"
    "int64[2] both = {1,1}, int64[2] to = {-1,-2}, int64[2] of = {-1,-2}"
)


def attributes(body: str, weights: str, x: str, y: str) -> dict[str, Any]:
    """Those of the one node that is left, held to the numbers before."""
    done = rewrite(STEPS, model_of(body, weights, x=x, y=y))
    (node,) = [n for n in done.model.graph if n.op_type != "Constant"]
    return {name: attr.value for name, attr in node.attributes.items()}


@pytest.mark.parametrize(
    ("how", "cut", "x", "y", "pads"),
    [
        ("pads=[4,4], dilations=[2]", "zero, less4, axis", "2,3,9", "2,4,9", [4, 0]),
        ("pads=[4,2]", "one, less1, axis", "N,3,L", "N,4,M", [3, 1]),
        ("pads=[2,1]", "two, end, last, one", "2,3,9", "2,4,8", [0, 1]),
        ("pads=[4,3], strides=[2]", "one, less1, last", "2,3,9", "2,4,5", [2, 1]),
        ("pads=[1,1]", "one, three, axis", "2,3,3", "2,4,2", [0, 1]),
    ],
)
def test_a_convolution_pads_less(how: str, cut: str, x: str, y: str, pads: list[int]) -> None:
    body = f"t = Conv<{how}>(x, w, b) y = Slice(t, {cut})"
    assert list(attributes(body, LINE, f"float[{x}] x", f"float[{y}] y")["pads"]) == pads


def test_pictures_are_cut_on_all_sides() -> None:
    body = "t = Conv<pads=[1,2,2,1]>(x, w) y = Slice(t, both, to, of)"
    assert attributes(body, PICTURE, "float[2,3,5,6] x", "float[2,4,3,5] y")["pads"] == (0, 1, 0, 0)


@pytest.mark.parametrize("x", ["2,3,5,6"])
def test_a_transposed_convolution_cuts_its_ends_off(x: str) -> None:
    how = "strides=[2,2], pads=[0,1,0,0], output_padding=[1,0]"
    body = f"t = ConvTranspose<{how}>(x, v) y = Slice(t, both, to, of)"
    found = attributes(body, PICTURE, f"float[{x}] x", "float[A,B,C,D] y")
    assert (found["pads"], found["output_padding"]) == ((1, 2, 2, 1), (1, 0))


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_the_shortest_inputs_keep_their_shape(length: int) -> None:
    body = "t = Conv<pads=[4,4]>(x, w, b) y = Slice(t, zero, less1, axis)"
    done = rewrite(STEPS, model_of(body, LINE, x="float[1,3,L] x", y="float[1,4,M] y"))
    assert done.ops == ["Conv"]
    x = np.ones((1, 3, length), np.float32)
    before, after = (session(p, off=True).run(None, {"x": x})[0] for p in (done.before, to_proto(done.model)))
    np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)


def test_it_is_done_by_default() -> None:
    assert "fold-crop" in LOSSLESS


@pytest.mark.parametrize(
    ("how", "cut", "x"),
    [
        ("pads=[1,1]", "two, end, axis", "2,3,9"),  # more than padding
        ("pads=[2,1], strides=[2]", "zero, less1, axis", "2,3,9"),  # less than a stride of it
        ("pads=[1,1]", "one, end, one", "2,3,9"),  # of channels
        ("pads=[1,1]", "one, end, axis, two", "2,3,9"),  # every second
        ("pads=[1,1]", "less4, end, axis", "2,3,L"),  # so many from the back
        ("pads=[1,1]", "zero, three, axis", "2,3,L"),  # so many from the front
        ("pads=[1,1]", "one, less1, axis", "2,3,L"),  # nothing is left of a short one
        ("pads=[4,4], dilations=[2]", "zero, less4, axis", "2,3,L"),  # nor of an empty one
        ('auto_pad="SAME_UPPER"', "one, end, axis", "2,3,9"),
        ("pads=[1,1]", "one, n, axis", "2,3,9"),
    ],
)
def test_near_misses_stay(how: str, cut: str, x: str) -> None:
    body = f"t = Conv<{how}>(x, w, b) y = Slice(t, {cut})"
    model = model_of(body, LINE, x=f"float[{x}] x, int64[1] n", y="float[A,B,C] y")
    InferShapes().run(model, Context())
    assert declined(FoldCrop(), model)


def test_a_whole_that_others_read_stays() -> None:
    body = "t = Conv<pads=[1,1]>(x, w, b) z = Slice(t, one, end, axis) r = Relu(t) y = Concat<axis=2>(z, r)"
    assert declined(FoldCrop(), model_of(body, LINE, x="float[2,3,9] x", y="float[A,B,C] y"))


def test_a_size_that_is_asked_for_stays() -> None:
    body = "t = ConvTranspose<strides=[2,2], output_shape=[12,12]>(x, v) y = Slice(t, both, to, of)"
    assert declined(FoldCrop(), model_of(body, PICTURE, x="float[2,3,5,5] x", y="float[A,B,C,D] y"))
