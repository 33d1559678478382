# SPDX-License-Identifier: Apache-2.0
"""Weights in 4 and 8 bits: what onnxruntime computes with them, and what a file gives back."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tersor.analysis.evaluate import Evaluator
from tersor.calibration.moments import second_moments
from tersor.graph_ir import Model, UsageError, constant, load, parse, save, signature_of, verify
from tersor.graph_ir.ops import float_attr, int_attr
from tersor.passes.base import Context
from tersor.passes.quantize.gptq import Gptq
from tersor.passes.quantize.patches import patches_to_observe
from tersor.passes.quantize.row_grid import block_grid
from tersor.passes.quantize.weight_only import WeightOnly
from tests.support.int8 import feeds_of, graph, run, session
from tests.support.numerics import snapshot
from tests.support.runtime import FUSES_NARROW_WEIGHTS

FORMS = list(product(("matmulnbits", "dq"), (4, 8), (True, False)))
LAYERS = [
    ("y = MatMul(x, w)", "float[96,24] w = {seed}", "2,5,96"),
    ("y = MatMul(x, w)", "float[40,24] w = {seed}", "3,40"),  # the last group is not full
    ("y = Gemm<transB=1>(x, w, b)", "float[24,96] w = {seed}, float[24] b = {seed}", "3,96"),
    ("y = Gemm<alpha=0.5, beta=2.0>(x, w, b)", "float[96,24] w = {seed}, float[24] b = {seed}", "3,96"),
]


def narrowed(options: Any, body: str, weights: str, x: str) -> tuple[Model, Context]:
    model = graph(body, weights, x=x, opset=21)
    signature, ctx = signature_of(model), Context()
    assert options.run(model, ctx)
    verify(model, signature)
    return model, ctx


def rounded_weights(options: Any, model: Model) -> NDArray[np.float64]:
    """The [inputs, outputs] weights the options give, by the plain arithmetic of the grid."""
    node = model.graph.node(0)
    w = constant(node.inputs[1])
    assert w is not None
    rows = w if node.op_type == "Gemm" and int_attr(node, "transB", 0) else np.transpose(w)
    rows = np.asarray(rows * np.float32(float_attr(node, "alpha", 1.0)))
    grid = block_grid(rows, options.bits, options.group, symmetric=options.symmetric)
    return np.transpose(grid.dequantize(grid.quantize(rows)).astype(np.float64))


@pytest.mark.parametrize(("form", "bits", "symmetric"), FORMS)
@pytest.mark.parametrize(("body", "weights", "x"), LAYERS)
def test_the_runtime_computes_with_the_rounded_weights(
    form: Any, bits: int, symmetric: bool, body: str, weights: str, x: str
) -> None:
    options = WeightOnly(bits=bits, form=form, symmetric=symmetric, accuracy_level=1)
    before = graph(body, weights, x=x, opset=21)
    model, ctx = narrowed(options, body, weights, x)
    assert ctx.counters["weight-only"] == 1
    feed = feeds_of(model)[0]
    bias = constant(before.graph.initializers.get("b"))
    want = feed["x"].astype(np.float64) @ rounded_weights(options, before)
    if bias is not None:
        want = want + bias * (2.0 if "beta" in body else 1.0)
    # A default session makes MatMulNBits of the other form, too, but lets it round activations.
    for off in (True, False) if form == "matmulnbits" else (True,):
        np.testing.assert_allclose(run(snapshot(model), feed, off=off)[0], want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("form", "bits", "symmetric"), FORMS)
def test_a_file_gives_the_same_codes_back(form: Any, bits: int, symmetric: bool, tmp_path: Path) -> None:
    model, _ = narrowed(WeightOnly(bits=bits, form=form, symmetric=symmetric), *LAYERS[0])
    save(model, tmp_path / "narrow.onnx", external_data=bits == 4)
    again = load(tmp_path / "narrow.onnx")
    verify(again)
    for name, value in model.graph.initializers.items():
        kept = again.graph.initializers[name]
        assert kept.dtype == value.dtype
        np.testing.assert_array_equal(np.asarray(constant(kept)), np.asarray(constant(value)))
    feed = feeds_of(model)[0]
    first, second = Evaluator(model).run(feed), Evaluator(tmp_path / "narrow.onnx").run(feed)
    assert first["y"].tobytes() == second["y"].tobytes()


@pytest.mark.parametrize("signed", [True, False])
def test_four_bit_tensors_are_packed_as_onnx_says(signed: bool) -> None:
    model, _ = narrowed(WeightOnly(bits=4, form="dq", symmetric=signed), *LAYERS[0])
    proto = snapshot(model)
    kind = onnx.TensorProto.INT4 if signed else onnx.TensorProto.UINT4
    (codes,) = (t for t in proto.graph.initializer if t.name == "w_quantized")
    assert codes.data_type == kind
    assert list(codes.dims) == [96, 24]
    assert len(codes.raw_data) == 96 * 24 // 2
    low, high = (-7, 7) if signed else (0, 15)
    values = numpy_helper.to_array(codes).astype(np.int32)
    assert (values.min(), values.max()) == (low, high)


@pytest.mark.parametrize(("form", "bits"), list(product(("matmulnbits", "dq"), (4, 8))))
@pytest.mark.parametrize(("body", "weights", "x"), LAYERS)
def test_the_runtime_runs_its_narrow_kernel(
    form: Any, bits: int, body: str, weights: str, x: str, tmp_path: Path
) -> None:
    model, _ = narrowed(WeightOnly(form=form, bits=bits), body, weights, x)
    session(snapshot(model), optimised=tmp_path / "made.onnx")
    made = {n.op_type for n in onnx.load(tmp_path / "made.onnx").graph.node}
    if form == "dq" and not FUSES_NARROW_WEIGHTS and (bits == 8 or "Gemm" in body):
        assert "DequantizeLinear" in made
    else:
        assert made <= {"MatMulNBits", "Add"}


@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_chosen_by_data_are_kept(symmetric: bool) -> None:
    model = graph(*LAYERS[0][:2], x=LAYERS[0][2], opset=21)
    feeds = feeds_of(model, 8)
    facts = {"second-moments": second_moments(model, feeds, patches_to_observe(model))}
    assert Gptq(bits=4, group=32, symmetric=symmetric).run(model, Context(facts=facts))
    learned = snapshot(model)
    assert WeightOnly(bits=4, symmetric=symmetric, accuracy_level=1).run(model, Context())
    got, want = run(snapshot(model), feeds[0], off=True)[0], run(learned, feeds[0], off=True)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_shared_weights_are_stored_once() -> None:
    body = "z = Relu(x) a = MatMul(x, w) b = MatMul(z, w) y = Add(a, b)"
    model, ctx = narrowed(WeightOnly(), body, "float[96,24] w = {seed}", "3,96")
    assert ctx.counters["weight-only"] == 2
    assert sorted(model.graph.initializers) == ["w_quantized", "w_scale"]


@pytest.mark.parametrize("form", ["matmulnbits", "dq"])
def test_bodies_run_in_a_default_session(form: Any) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 21]>
    g (bool c, float[3,32] x) => (float[3,8] y) <float[32,8] w = {seed}> {
      y = If (c) <then_branch = a () => (float[3,8] p) { p = MatMul(x, w) },
                  else_branch = b () => (float[3,8] q) { k = MatMul(x, w) q = Neg(k) }>
    }""")
    signature, ctx = signature_of(model), Context()
    assert WeightOnly(bits=8, form=form).run(model, ctx)
    verify(model, signature)
    assert ctx.counters["weight-only"] == 2
    w = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    taken, other = (
        run(snapshot(model), {"c": np.array(c), "x": w})[0]  # pyright: ignore[reportArgumentType]
        for c in (True, False)
    )
    np.testing.assert_array_equal(taken, -other)


def test_what_has_no_constant_matrix_is_left_alone() -> None:
    for body, weights in (
        ("t = Transpose<perm=[1,0]>(x) y = MatMul(x, t)", ""),
        ("y = MatMul(x, w)", "float[2,96,24] w = {seed}"),
        ("y = MatMul(w, x)", "float[24,3] w = {seed}"),
    ):
        model = graph(body, weights, x="3,96", opset=21)
        assert not WeightOnly().run(model, Context())
    model = graph("y = MatMul(x, w)", "float[96,24] w = {seed}", x="3,96", opset=21)
    assert not WeightOnly(exclude=("MatMul(y)",)).run(model, Context())


def test_an_old_opset_and_impossible_options_are_refused() -> None:
    model = graph("y = MatMul(x, w)", "float[96,24] w = {seed}", x="3,96", opset=17)
    with pytest.raises(UsageError, match="raise-opset"):
        WeightOnly(form="dq").run(model, Context())
    impossible: list[dict[str, Any]] = [{"bits": 3}, {"group": 20}, {"accuracy_level": 5}]
    for options in impossible:
        with pytest.raises(UsageError):
            WeightOnly(**options)
