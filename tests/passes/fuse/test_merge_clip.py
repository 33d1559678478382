# SPDX-License-Identifier: Apache-2.0
"""Chains of Relu, Clip, Min and Max on hostile numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import parse
from tersor.passes.fuse.merge_clip import MergeClips
from tersor.passes.fuse.merge_min_max import MergeMinMaxes
from tests.support.numerics import assert_bitwise, assert_rounding
from tests.support.ports import Ports
from tests.support.rewriting import declined, model_of, rewrite

CLIP, MIN_MAX = MergeClips(), MergeMinMaxes()
PORTS: Ports = {"x": "float[N] x", "y": "float[N] y"}
BOUNDS = (
    "float m1 = {-1}, float zero = {0}, float one = {1}, float two = {2}, float six = {6}, "
    "float seven = {7}, float mzero = {-0.0}"
)
HOSTILE = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 3.4e38, -3.4e38, 0.5, 1, 1.5, 2, 6, 6.5, 7, -1, -0.5]
    * 3,
    np.float32,
)


def bounds(used: str) -> str:
    """The constants the body reads."""
    names = set(used.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return ", ".join(part for part in BOUNDS.split(", ") if part.split()[1] in names)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Relu(x) y = Relu(a)", "y = Relu(x)"),
        ("a = Relu(x) y = Clip(a, zero, six)", "y = Clip(x, zero, six)"),
        ("a = Clip(x, zero, six) y = Relu(a)", "y = Clip(x, zero, six)"),
        ("a = Relu(x) y = Clip(a, m1, six)", "y = Clip(x, y_min, six)"),
        ("a = Clip(x, m1, six) y = Relu(a)", "y = Clip(x, y_min, six)"),
        ("a = Clip(x, , six) y = Relu(a)", "y = Clip(x, y_min, six)"),
        ("a = Clip(x, zero) y = Clip(a, , six)", "y = Clip(x, zero, six)"),
        ("a = Clip(x, zero, six) y = Clip(a, one, seven)", "y = Clip(x, one, six)"),
        ("a = Clip(x, zero, one) y = Clip(a, two, six)", "y = Clip(x, two, two)"),
        ("a = Clip(x, two, six) y = Clip(a, zero, one)", "y = Clip(x, one, one)"),
        ("a = Clip(x, one) y = Relu(a)", "y = Clip(x, one)"),
        ("a = Relu(x) y = Clip(a, one)", "y = Clip(x, one)"),
        ("a = Relu(x) y = Clip(a, m1)", "y = Clip(x, y_min)"),
        ("a = Clip(x) y = Clip(a, , six)", "y = Clip(x, _, six)"),
        ("a = Relu(x) b = Clip(a, zero, six) c = Relu(b) y = Clip(c, one, seven)", "y = Clip(x, one, six)"),
    ],
)
def test_chains_become_one(body: str, left: str) -> None:
    done = rewrite(CLIP, model_of(body, bounds(body), **PORTS))
    assert len(done.ops) == 1
    assert left in done.text
    assert_bitwise(done.before, done.model, {"x": HOSTILE})


def test_attribute_form() -> None:
    body = "a = Relu(x) b = Clip<max = 6.0>(a) y = Clip<min = 1.0, max = 7.0>(b)"
    done = rewrite(CLIP, model_of(body, opset=9, **PORTS))
    assert "y = Clip<max=6.0, min=1.0>(x)" in done.text
    assert_bitwise(done.before, done.model, {"x": HOSTILE})


def test_a_second_clamp_that_changes_nothing_goes_even_when_the_first_is_read_by_others() -> None:
    body = "a = Clip(x, one, six) y = Relu(a) z = Neg(a)"
    done = rewrite(CLIP, model_of(body, bounds(body), x=PORTS["x"], y="float[N] y, float[N] z"))
    assert done.ops == ["Clip", "Neg"]
    body = "a = Relu(x) y = Clip(a, one, six)"
    model = model_of(body, bounds(body), x=PORTS["x"], y="float[N] y, float[N] a")
    assert declined(CLIP, model) == {"the first is read by others"}


def test_relu_after_an_open_clip_is_not_dropped_above() -> None:
    # Clip without a bound stops +inf at the greatest float, Relu does not: the clip must stay a Clip.
    body = "a = Relu(x) y = Clip(a, zero)"
    done = rewrite(CLIP, model_of(body, bounds(body), **PORTS))
    assert done.ops == ["Clip"]
    assert_bitwise(done.before, done.model, {"x": HOSTILE})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Clip(x, six, one) y = Relu(a)", "lower bound above the upper one"),
        ("a = Relu(x) y = Clip(a, mzero, one)", "bound of -0"),
        ("a = Clip(x, one, six) y = Clip(a, m1, zero)", "only the merged clamp would keep -0"),
        ("b = Abs(one) a = Relu(x) y = Clip(a, zero, b)", "bounds are not scalar constants"),
    ],
)
def test_near_misses(body: str, reason: str) -> None:
    assert declined(CLIP, model_of(body, bounds(body), **PORTS)) == {reason}


def test_bounds_the_caller_may_override() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4] x, float six = {6}) => (float[4] y) <float zero = {0}> {
      a = Relu(x) y = Clip(a, zero, six) }"""
    assert declined(CLIP, parse(text)) == {"bounds are not scalar constants"}


@pytest.mark.parametrize("kind", ["int8", "int32", "int64", "double"])
def test_other_dtypes(kind: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g ({kind}[6] x) => ({kind}[6] y) <{kind} lo = {{-3}}, {kind} hi = {{5}}> {{
      a = Clip(x, lo) b = Relu(a) y = Clip(b, , hi) }}"""
    done = rewrite(CLIP, parse(text), numbers=False)
    assert done.ops == ["Clip"]
    x = np.array([-5, -3, 0, 4, 5, 9], "float64" if kind == "double" else kind)
    assert_bitwise(done.before, done.model, {"x": x})


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Max(x, zero) y = Min(a, six)", "y = Clip(x, zero, six)"),
        ("a = Min(six, x) y = Max(zero, a)", "y = Clip(x, zero, six)"),
        ("a = Relu(x) y = Min(a, six)", "y = Clip(x, y_min, six)"),
        ("a = Min(x, six) y = Relu(a)", "y = Clip(x, y_min, six)"),
        ("a = Max(x, one) y = Clip(a, zero, six)", "y = Clip(x, one, six)"),
        ("a = Max(x, m1) y = Relu(a)", "y = Relu(x)"),
    ],
)
def test_min_and_max_become_clip(body: str, left: str) -> None:
    done = rewrite(MIN_MAX, model_of(body, bounds(body), **PORTS), N=20)
    assert len(done.ops) == 1
    assert left in done.text
    finite = HOSTILE[np.abs(np.nan_to_num(HOSTILE, nan=0.0)) < 1e30]
    assert_rounding(done.before, done.model, {"x": finite})


def test_min_and_max_of_old_opsets() -> None:
    body = "a = Max(x, zero) y = Min(a, six)"
    done = rewrite(MIN_MAX, model_of(body, bounds(body), opset=9, **PORTS))
    assert "y = Clip<max=6.0, min=0.0>(x)" in done.text


@pytest.mark.parametrize(("opset", "merges"), [(9, False), (11, False), (12, True)])
def test_doubles_become_a_clip_where_the_runtime_has_one(opset: int, merges: bool) -> None:
    body, weights = "a = Max(x, low) y = Min(a, high)", "double low = {0}, double high = {6}"
    model = model_of(body, weights, x="double[4] x", y="double[4] y", opset=opset)
    assert rewrite(MIN_MAX, model).changed == merges


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("a = Max(x, zero) y = Max(a, one)", ""),  # no upper bound: Clip would stop infinity
        ("a = Min(x, six) y = Min(a, seven)", ""),
        ("a = Max(x, zero, one) y = Min(a, six)", ""),
        ("a = Max(x, wide) y = Min(a, six)", "float[2] wide = {0, 1}"),
        ("a = Max(x, tall) y = Min(a, six)", "float[1,1] tall = {0}"),
        ("a = Max(x, six) y = Min(a, mzero)", ""),
    ],
)
def test_min_max_near_misses(body: str, weights: str) -> None:
    model = model_of(body, ", ".join(filter(None, [bounds(body), weights])), x="float[2] x", y="float[2] y")
    assert declined(MIN_MAX, model)


def test_relu_and_clip_alone_are_not_for_min_max() -> None:
    body = "a = Relu(x) y = Clip(a, zero, six)"
    assert declined(MIN_MAX, model_of(body, bounds(body), **PORTS)) == set()
