# SPDX-License-Identifier: Apache-2.0
"""Raising the opset: each redefinition, refusals, bodies and functions, real models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.graph_ir import Rewriter, load, parse, signature_of, to_proto, to_text, verify
from tersor.passes.base import Context
from tersor.passes.clean.raise_opset import RaiseOpset
from tersor.passes.opset import opset_blockers, raise_opset
from tests.support.numerics import assert_bitwise, feeds_for, run_onnxruntime
from tests.support.opset_cases import IMAGE, REDEFINITIONS, Case
from tests.support.rewriting import model_of, rewrite

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo" / "models"


@pytest.mark.parametrize("case", REDEFINITIONS)
def test_each_redefinition(case: Case) -> None:
    old, new, body, x, y, weights, made = case
    # The float64 judge reads old nodes as new ones; onnxruntime knows both. None of these adds a rounding.
    done = rewrite(
        RaiseOpset(to=new), model_of(body, weights, x=x, y=f"float{y} y", opset=old), numbers=False
    )
    assert done.changed
    assert_bitwise(done.before, done.model, [feeds_for(done.before, seed=s) for s in range(2)])
    assert f"opset ai.onnx {new}\n" in done.text
    assert made in done.text
    onnx.checker.check_model(to_proto(done.model), full_check=True)


def test_old_clip_of_infinity_keeps_its_bounds() -> None:
    model = model_of("y = Clip<min = 0.0>(x)", x="float[4] x", y="float[4] y", opset=7)
    done = rewrite(RaiseOpset(to=13), model, numbers=False)
    hostile = np.array([np.inf, -np.inf, np.nan, -0.0], np.float32)
    assert_bitwise(done.before, done.model, {"x": hostile})


@pytest.mark.parametrize(
    ("old", "new", "body", "weights", "reason"),
    [
        (9, 13, "y = Upsample(x, s)", "float[4] s = {1,1,0.5,2}", "it shrinks"),
        (10, 11, "s = Relu(t) y = Resize(x, s)", "float[4] t = {1,1,2,2}", "not constant"),
        (9, 13, "y, m = Dropout(x) z = Relu(m)", "", "its mask became bool"),
        (
            13,
            14,
            "y, a, b, c, d = BatchNormalization(x, k, k, k, k)",
            "float[3] k = {1,2,3}",
            "outputs beyond the first",
        ),
        (
            11,
            13,
            'y = Resize<coordinate_transformation_mode = "tf_half_pixel_for_nn">(x, r, s)',
            "float[0] r = {}, float[4] s = {1,1,2,2}",
            "removed",
        ),
        (
            9,
            11,
            "y = OneHot(i, d, v)",
            "int64[2] i = {0,1}, int64[1] d = {3}, float[2] v = {0,1}",
            "was redefined in opset 11",
        ),
        (
            18,
            21,
            "y = GroupNormalization<num_groups = 1>(x, k, k)",
            "float[1] k = {1}",
            "was redefined in opset 21",
        ),
        (
            10,
            11,
            'y = ConvTranspose<auto_pad = "SAME_UPPER">(x, w)',
            "float[3,3,3,3] w = {seed}",
            "odd padding",
        ),
        (11, 13, "y = NoSuchOp(x)", "", "not an operator of opset 11"),
        (6, 13, "y = Relu(x)", "", "older than 7"),
        (13, 99, "y = Relu(x)", "", "newer than"),
    ],
)
def test_refusals_change_nothing(old: int, new: int, body: str, weights: str, reason: str) -> None:
    model = model_of(body, weights, x=IMAGE, y="float[A,B,C,D] y", opset=old)
    before = to_text(model)
    context = Context()
    assert not RaiseOpset(to=new).run(model, context)
    assert reason in context.notes[0]
    assert to_text(model) == before


@pytest.mark.parametrize(
    "body", ["y = Softmax<axis = 2>(x)", "y = LogSoftmax(x)", "y = Hardmax<axis = 0>(x)"]
)
def test_a_flattened_softmax_of_nothing(body: str) -> None:
    model = model_of(body, x="float[A,B,C,D] x", y="float[A,B,C,D] y", opset=11)
    done = rewrite(RaiseOpset(to=14), model, numbers=False)
    shapes = [(2, 0, 3, 4), (2, 3, 4, 0), (0, 3, 4, 5), (0, 2, 0, 1), (2, 3, 4, 5)]
    assert_bitwise(done.before, done.model, [{"x": np.ones(shape, np.float32)} for shape in shapes])


def test_a_flattened_softmax_that_may_be_empty_stays_below_opset_14() -> None:
    for axis, empty in (
        (0, (0, 2, 3)), (0, (2, 0, 3)), (0, (2, 3, 0)), (1, (0, 2, 3)), (1, (2, 0, 3)), (1, (2, 3, 0))
    ):  # fmt: skip
        sizes = ",".join(str(d or "N") for d in empty)
        text = model_of(
            f"y = Softmax<axis = {axis}>(x)", x=f"float[{sizes}] x", y=f"float[{sizes}] y", opset=11
        )
        if axis == 1 - empty.index(0) or (axis, empty.index(0)) == (1, 1):
            done = rewrite(RaiseOpset(to=13), text, numbers=False)
            assert_bitwise(done.before, done.model, {"x": np.ones(empty, np.float32)})
        else:
            assert "may be empty" in opset_blockers(text, 13)[0]


def test_types_that_onnxruntime_runs_only_below_an_opset_stay_there() -> None:
    body, types = "y = PRelu(x, x)", {"x": "double[2] x", "y": "double[2] y"}
    assert "no more from opset 19" in opset_blockers(model_of(body, **types, opset=18), 21)[0]
    assert not opset_blockers(model_of(body, **types, opset=16), 18)
    assert not opset_blockers(model_of(body, x="float[2] x", y="float[2] y", opset=18), 21)


def test_bodies_and_functions_are_raised_and_custom_domains_are_not_read() -> None:
    text = """<ir_version: 8, opset_import: ["" : 11, "local" : 1, "other" : 3]>
    g (float[2,3] x, bool c) => (float[2,3] y, float[3] z) {
      y = If (c) <
        then_branch = t () => (float[2,3] a) { a0 = Unsqueeze<axes = [0]>(x) a = Squeeze<axes = [0]>(a0) },
        else_branch = e () => (float[2,3] b) { b = Softmax<axis = 0>(x) }
      >
      z = local.total (x)
    }
    <domain: "local", opset_import: ["" : 11]> total (x) => (z) {
      z = ReduceSum<axes = [0], keepdims = 0>(x) }"""
    done = rewrite(RaiseOpset(to=13), parse(text), numbers=False)
    bodies = ["Unsqueeze", "Squeeze", "Flatten", "Softmax", "Shape", "Reshape"]
    assert done.ops == ["If", "total", *bodies, "ReduceSum"]
    assert [f.opset_imports[""] for f in done.model.functions.values()] == [13]
    assert done.model.opset_imports["other"] == 3
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert_bitwise(done.before, done.model, [{"x": x, "c": np.array(c)} for c in (True, False)])


def test_attributes_only_callers_know_are_refused_where_form_changed() -> None:
    text = """<ir_version: 8, opset_import: ["" : 11, "local" : 1]>
    g (float[2,3] x) => (float[3] y) { y = local.f <k = [0]> (x) }
    <domain: "local", opset_import: ["" : 11]> f <k> (x) => (z) {
      z = ReduceSum<axes: ints = @k, keepdims = 0>(x) }"""
    assert "the caller's" in opset_blockers(parse(text), 13)[0]


def test_ir_version_rises_no_higher_than_needed() -> None:
    text = '<ir_version: {}, opset_import: ["" : 11]> g (float[2] x) => (float[2] y) {{ y = Relu(x) }}'
    for given, target, wanted in ((6, 12, 7), (6, 13, 7), (10, 13, 10), (6, 19, 9), (6, 21, 10)):
        model = parse(text.format(given))
        assert raise_opset(model, Rewriter(model), target)
        assert model.ir_version == wanted
    assert not raise_opset(model, Rewriter(model), 13)


@pytest.mark.parametrize("target", [13, 17, 20])
@pytest.mark.parametrize("name", ["rfb_face_320", "fastestdet_352", "ppocr_v2_cls"])
def test_real_models_compute_the_same(name: str, target: int) -> None:
    path = ZOO / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    model, before = load(path), onnx.load(path)
    signature = signature_of(model)
    if model.opset_imports[""] >= target:
        pytest.skip(f"{name} is at opset {model.opset_imports['']}")
    context = Context()
    assert RaiseOpset(to=target).run(model, context), context.notes
    verify(model, signature)
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    free = {d.dim_param: 1 for i in before.graph.input for d in i.type.tensor_type.shape.dim}
    feed = feeds_for(before, dims=free)
    for a, b in zip(run_onnxruntime(before, feed) or [], run_onnxruntime(after, feed) or [], strict=True):
        # The pooling kernel of opset 19 adds in another order; through a whole net that is a few units.
        np.testing.assert_allclose(b, a, rtol=0, atol=2e-6 * max(1.0, float(np.abs(a).max())))
