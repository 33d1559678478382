# SPDX-License-Identifier: Apache-2.0
"""Every s-th pixel with channels of zeros around, as a convolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import Model
from tersor.graph_ir.ops import constant
from tersor.passes.clean.dead_code import EliminateDeadCode
from tersor.passes.fuse.shortcut import FoldShortcut
from tests.support.rewriting import declined, model_of, rewrite

PASS = (FoldShortcut(), EliminateDeadCode())
X = "float[N,4,7,8] x, float[N,9,h,w] o"
ENDS = "int64[2] s = {0,0}, int64[2] e = {9223372036854775807, 8}, int64[2] a = {2,-1}, int64[2] k = {2,2}, "
PADS = "int64[8] p = {0,2,0,0,0,3,0,0}, float v = {0}"
SLICE = "t = Slice(x, s, e, a, k) "
ADD = "y = Add(u, o)"
BLOCK = SLICE + "u = Pad(t, p, v) " + ADD
OTHER = "pads something else than channels with zeros"
NO_SLICE = "pads no slice of every so many pixels"


def made(body: str, constants: str = ENDS + PADS, x: str = X) -> Model:
    model = model_of(body, constants, x=x, y="float[N,c,f,g] y")
    infer_shapes(model)
    return model


def test_text_in_text_out() -> None:
    done = rewrite(PASS, made(BLOCK), N=2, h=4, w=4)
    assert done.ops == ["Conv", "Add"]
    assert "Conv<kernel_shape=[1, 1], strides=[2, 2]>(x, " in done.text
    weight = constant(next(iter(done.model.graph.initializers.values())))
    assert weight is not None
    np.testing.assert_array_equal(weight[:, :, 0, 0], np.eye(9, 4, -2))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_any_steps_and_places(rows: int, columns: int, before: int) -> None:
    constants = ENDS.replace("k = {2,2}", f"k = {{{rows},{columns}}}") + PADS.replace(
        "{0,2,0,0,0,3,0,0}", f"{{0,{before},0,0,0,{5 - before},0,0}}"
    )
    done = rewrite(PASS, made(BLOCK, constants), N=1, h=-(-7 // rows), w=-(-8 // columns))
    assert done.ops == (["Conv", "Add"] if max(rows, columns) > 1 else ["Slice", "Pad", "Add"])


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        (
            "q = Slice(x, i, j, r, l) t = Slice(q, i, j, f, l) u = Pad(t, p) " + ADD,
            PADS + ", int64[1] i = {0}, int64[1] j = {2147483647}, int64[1] r = {2}, int64[1] f = {3}, "
            "int64[1] l = {2}",
        ),
        (SLICE + "u = Pad(t, p, v, f) " + ADD, ENDS + "int64[2] p = {2,3}, float v = {0}, int64[1] f = {-3}"),
    ],
)
def test_other_forms(body: str, constants: str) -> None:
    model = model_of(body, constants, x=X, y="float[N,c,f,g] y", opset=18)
    infer_shapes(model)
    assert rewrite(PASS, model, N=1, h=4, w=4).ops == ["Conv", "Add"]


@pytest.mark.parametrize(
    ("body", "old", "new", "reason"),
    [
        (BLOCK, "float v = {0}", "float v = {1}", OTHER),
        (BLOCK.replace("Pad(", 'Pad<mode = "edge">('), "", "", OTHER),
        (BLOCK, "{0,2,0,0,0,3,0,0}", "{0,2,0,0,0,3,1,0}", OTHER),
        (BLOCK, "{0,2,0,0,0,3,0,0}", "{0,6,0,0,0,-1,0,0}", OTHER),
        (BLOCK, "{0,2,0,0,0,3,0,0}", "{0,0,0,0,0,0,0,0}", OTHER),
        (BLOCK, "s = {0,0}", "s = {1,0}", NO_SLICE),
        (BLOCK, ", 8}", ", 7}", NO_SLICE),
        (BLOCK, "a = {2,-1}", "a = {1,-1}", NO_SLICE),
        (BLOCK, "k = {2,2}", "k = {1,1}", NO_SLICE),
        ("t = Relu(x) u = Pad(t, p, v) " + ADD, "", "", NO_SLICE),
        (BLOCK.replace("Add", "Sub"), "", "", "no Add reads it"),
    ],
)
def test_near_misses(body: str, old: str, new: str, reason: str) -> None:
    constants = (ENDS + PADS).replace(old, new) if old else ENDS + PADS
    assert declined(FoldShortcut(), made(body, constants)) == {reason}


@pytest.mark.parametrize("x", ["float[N,c,7,8] x", "double[N,4,7,8] x", "float[N,300,7,8] x"])
def test_other_types_and_numbers_of_channels(x: str) -> None:
    kind = x.partition("[")[0]
    constants = ENDS + PADS.replace("float v = {0}", f"{kind} v = {{0}}")
    model = model_of(BLOCK, constants, x=f"{x}, {kind}[N,d,h,w] o", y=f"{kind}[N,q,f,g] y")
    infer_shapes(model)
    assert declined(FoldShortcut(), model) == {"not a float tensor of a known and small number of channels"}
