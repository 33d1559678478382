# SPDX-License-Identifier: Apache-2.0
"""Folding of Pad into windows: what it does, and where it must not."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import Model, parse
from tersor.passes.fuse.pad import FoldPad
from tests.support.rewriting import declined, model_of, rewrite, with_array

FOLD = FoldPad()
W = "float[6,4,3,3] w = {seed}"
AROUND = "{0, 0, 1, 2, 0, 0, 1, 0}"


def made(
    body: str, pads: str = AROUND, weights: str = W, opset: int = 17, y: str = "float[1,6,P,Q] y"
) -> Model:
    declared = ", ".join(part for part in (weights, f"int64[{pads.count(',') + 1}] pads = {pads}") if part)
    return model_of(body, declared, x="float[1,4,6,6] x", y=y, opset=opset)


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize(
    "conv", ["Conv(p, w)", "Conv<pads = [1,0,2,1], strides = [2,1]>(p, w)", 'Conv<auto_pad = "VALID">(p, w)']
)
def test_into_a_conv(conv: str, opset: int) -> None:
    done = rewrite(FOLD, made(f"p = Pad(x, pads) y = {conv}", opset=opset))
    assert done.ops == ["Conv"]
    assert "auto_pad" not in done.text
    assert list(done.model.graph.initializers) == ["w"]
    expected = "[2, 2, 3, 1]" if "[1,0" in conv else "[1, 2, 1, 0]"
    assert f"pads={expected}" in done.text


@pytest.mark.parametrize("opset", [9, 10])
def test_attribute_form(opset: int) -> None:
    model = model_of(
        "p = Pad<pads = [0,0,1,2,0,0,1,0]>(x) y = Conv(p, w)",
        W,
        x="float[1,4,6,6] x",
        y="float[1,6,6,6] y",
        opset=opset,
    )
    assert rewrite(FOLD, model).ops == ["Conv"]


@pytest.mark.parametrize("axes", ["{2, 3}", "{-2, -1}", "{3, 2}"])
def test_axes_form(axes: str) -> None:
    model = made(
        "p = Pad(x, pads, , axes) y = Conv(p, w)", "{1, 2, 3, 0}", f"{W}, int64[2] axes = {axes}", opset=18
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["Conv"]
    assert f"pads={'[2, 1, 0, 3]' if axes == '{3, 2}' else '[1, 2, 3, 0]'}" in done.text


def test_constant_zero_is_given() -> None:
    model = made(
        'p = Pad<mode = "constant">(x, pads, zero) y = Conv(p, w)', weights=f"{W}, float zero = {{0.0}}"
    )
    assert rewrite(FOLD, model).ops == ["Conv"]


@pytest.mark.parametrize(
    ("body", "pads", "weights", "reason"),
    [
        (
            'p = Pad<mode = "reflect">(x, pads) y = Conv(p, w)',
            AROUND,
            W,
            "pads with something else than a constant",
        ),
        (
            'p = Pad<mode = "edge">(x, pads) y = Conv(p, w)',
            AROUND,
            W,
            "pads with something else than a constant",
        ),
        (
            "p = Pad(x, pads, one) y = Conv(p, w)",
            AROUND,
            f"{W}, float one = {{1.0}}",
            "pads with another value than 0",
        ),
        ("p = Pad(x, pads) y = Conv(p, w)", "{0, 0, -1, 0, 0, 0, 0, 0}", W, "negative pads crop"),
        (
            "p = Pad(x, pads) y = Conv(p, w)",
            "{0, 1, 0, 0, 0, 0, 0, 0}",
            "float[6,5,3,3] w = {seed}",
            "pads batch or channels",
        ),
        ("p = Pad(x, pads) y = Conv(p, w)", "{1, 0, 0, 0, 0, 0, 0, 0}", W, "pads batch or channels"),
        ('p = Pad(x, pads) y = Conv<auto_pad = "SAME_UPPER">(p, w)', AROUND, W, "automatic padding"),
    ],
)
def test_near_misses_of_conv(body: str, pads: str, weights: str, reason: str) -> None:
    y = "float[N,6,P,Q] y"
    assert declined(FOLD, made(body, pads, weights, y=y)) == {reason}


def test_conv_transpose_crops() -> None:
    declined(FOLD, made("p = Pad(x, pads) y = ConvTranspose(p, w)", weights="float[4,6,3,3] w = {seed}"))


def test_pads_from_outside() -> None:
    body = "p = Pad(x, pads) y = Conv(p, w)"
    x, y = "float[1,4,6,6] x, int64[8] pads", "float[1,6,P,Q] y"
    assert declined(FOLD, model_of(body, W, x=x, y=y)) == {"pads are not constant"}
    overridable = model_of(body, f"{W}, int64[8] pads = {AROUND}", x=x, y=y)
    assert declined(FOLD, overridable) == {"pads are not constant"}


def test_padded_tensor_is_an_output_or_read_twice() -> None:
    declined(FOLD, made("p = Pad(x, pads) y = Conv(p, w)", y="float[1,6,P,Q] y, float[1,4,A,B] p"))
    declined(FOLD, made("p = Pad(x, pads) q = Conv(p, w) r = Conv(p, w) y = Add(q, r)"))


POOL = "kernel_shape = [3,3]"


@pytest.mark.parametrize(
    "attributes",
    [
        POOL,
        f"{POOL}, strides = [2,2]",
        f"{POOL}, pads = [1,0,0,1], count_include_pad = 1",
        f"{POOL}, count_include_pad = 1",
    ],
)
@pytest.mark.parametrize("opset", [13, 20])
def test_into_an_average_pool(attributes: str, opset: int) -> None:
    model = made(
        f"p = Pad(x, pads) y = AveragePool<{attributes}>(p)", weights="", opset=opset, y="float[1,4,P,Q] y"
    )
    done = rewrite(FOLD, model)
    assert done.ops == ["AveragePool"]
    assert "count_include_pad=1" in done.text


@pytest.mark.parametrize(
    ("attributes", "pads", "reason"),
    [
        (f"{POOL}, pads = [1,1,1,1]", AROUND, "its own padding is not counted"),
        (f"{POOL}, ceil_mode = 1", AROUND, "ceil_mode: a window may start in the padding"),
        (POOL, "{0, 0, 3, 0, 0, 0, 0, 0}", "padding as wide as the window"),
        (f"{POOL}, dilations = [2,1]", AROUND, "dilations: a window may see padding alone"),
        (f'{POOL}, auto_pad = "SAME_LOWER"', AROUND, "automatic padding"),
    ],
)
def test_near_misses_of_average_pool(attributes: str, pads: str, reason: str) -> None:
    model = made(f"p = Pad(x, pads) y = AveragePool<{attributes}>(p)", pads, "", 20, "float[1,4,P,Q] y")
    assert declined(FOLD, model) == {reason}


@pytest.mark.parametrize(
    ("before", "value"),
    [
        ("", "-inf"),
        ("r = Relu(x)", "0.0"),
        ("r = Relu(x)", "-1.0"),
        ("s = Sigmoid(x) r = MaxPool<kernel_shape = [1,1]>(s)", "0.0"),
        ("r = Clip(x, low, high)", "0.5"),
    ],
)
def test_into_a_max_pool(before: str, value: str) -> None:
    done = rewrite(FOLD, max_pool(before, value))
    assert "Pad" not in done.ops
    assert "pads=[1, 2, 1, 0]" in done.text


def test_a_clip_of_crossed_bounds_gives_the_upper_one() -> None:
    nodes = """r = Clip<min = 0.0, max = -1.0>(x) p = Pad<pads = [0,0,1,1,0,0,1,1], value = -0.5>(r)
        y = MaxPool<kernel_shape = [2,2]>(p)"""
    model = parse(f"""<ir_version: 8, opset_import: ["" : 10]>
        g (float[1,4,6,6] x) => (float[1,4,P,Q] y) {{ {nodes} }}""")
    assert declined(FOLD, model) == {"the value padded with may win"}


def max_pool(
    before: str, value: str, attributes: str = POOL, pads: str = AROUND, outputs: str = "y"
) -> Model:
    source = "r" if before else "x"
    model = made(
        f"{before} p = Pad({source}, pads, fill) {outputs} = MaxPool<{attributes}>(p)",
        pads,
        "float fill = {7.0}, float low = {0.5}, float high = {6.0}",
        y=", ".join(f"{'int64' if o == 'i' else 'float'}[1,4,P,Q] {o}" for o in outputs.split(", ")),
    )
    return with_array(model, "fill", np.array(float(value), np.float32))


@pytest.mark.parametrize(
    ("before", "value", "attributes", "pads", "outputs", "reason"),
    [
        ("", "0.0", POOL, AROUND, "y", "the value padded with may win"),
        ("", "-1e30", POOL, AROUND, "y", "the value padded with may win"),
        ("r = Relu(x)", "0.1", POOL, AROUND, "y", "the value padded with may win"),
        ("r = Clip(x, low, high)", "0.6", POOL, AROUND, "y", "the value padded with may win"),
        ("s = Relu(x) r = Neg(s)", "0.0", POOL, AROUND, "y", "the value padded with may win"),
        ("r = Relu(x)", "nan", POOL, AROUND, "y", "the value padded with may win"),
        ("", "-inf", POOL, AROUND, "y, i", "indices count the padding"),
        ("", "-inf", f"{POOL}, ceil_mode = 1", AROUND, "y", "ceil_mode: a window may start in the padding"),
        ("", "-inf", POOL, "{0, 0, 0, 0, 0, 0, 3, 0}", "y", "padding as wide as the window"),
        ("", "-inf", f"{POOL}, pads = [2,0,0,0]", AROUND, "y", "padding as wide as the window"),
        ("", "-inf", f"{POOL}, dilations = [2,2]", AROUND, "y", "dilations: a window may see padding alone"),
    ],
)
def test_near_misses_of_max_pool(
    before: str, value: str, attributes: str, pads: str, outputs: str, reason: str
) -> None:
    assert declined(FOLD, max_pool(before, value, attributes, pads, outputs)) == {reason}


def test_in_a_body_and_in_a_function() -> None:
    steps = "p{0} = Pad(x, pads) y{0} = Conv(p{0}, w)"
    model = model_of(
        "y = If (flag) <then_branch = yes () => (float[1,6,P,Q] y1) { " + steps.format(1) + " }, "
        "else_branch = no () => (float[1,6,P,Q] y2) { " + steps.format(2) + " }>",
        f"{W}, int64[8] pads = {AROUND}",
        x="float[1,4,6,6] x, bool flag",
        y="float[1,6,P,Q] y",
    )
    assert rewrite(FOLD, model).ops == ["If", "Conv", "Conv"]
    function = """<domain: "local", opset_import: ["" : 17]>
    block (a, w) => (r) {
      pads = Constant<value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}>()
      p = Pad(a, pads)
      r = Conv(p, w)
    }"""
    model = model_of(
        "y = local.block(x, w)", W, x="float[1,4,6,6] x", y="float[1,6,6,6] y", functions=function
    )
    assert rewrite(FOLD, model).ops == ["block", "Conv"]
