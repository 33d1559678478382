# SPDX-License-Identifier: Apache-2.0
"""What becomes 16-bit, what stays float32 and why, and how far the numbers move."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.calibration import choose, collect
from tersor.graph_ir import DataType, Model, UsageError, constant, parse, signature_of, verify
from tersor.passes.base import Context
from tersor.passes.precision.half import ToHalf, values_to_guard
from tests.support.numerics import feeds_for, run_onnxruntime, run_reference, snapshot
from tests.support.rewriting import model_of, with_array

CONV = "float[8,4,3,3] w = {seed}, float[8] b = {seed}, float[8,8,1,1] v = {seed}, float[1] one = {1.0}"
X, Y = "float[2,4,9,9] x", "float[2,8,7,7] y"
Type = Literal["fp16", "bf16"]


def converted(
    body: str,
    weights: str = CONV,
    *,
    x: str = X,
    y: str = Y,
    facts: Any = None,
    **options: Any,
) -> tuple[Model, Context, onnx.ModelProto]:
    """The model after the pass, the context, and the model before."""
    model = model_of(body, weights, x=x, y=y)
    infer_shapes(model)
    before, signature = snapshot(model), signature_of(model)
    ctx = Context(facts=facts or {})
    changed = ToHalf(**options).run(model, ctx)
    verify(model, signature)
    onnx.checker.check_model(snapshot(model), full_check=True)
    if not changed:
        assert snapshot(model) == before
    return model, ctx, before


def ops(model: Model) -> list[str]:
    return [n.op_type for n in model.graph]


def near(before: onnx.ModelProto, model: Model, *, unit: float = 2.0**-10) -> None:
    """Outputs differ by what 16-bit rounding explains, and by more than nothing."""
    feed = feeds_for(before)
    first, second = run_onnxruntime(before, feed), run_onnxruntime(model, feed)
    if first is None or second is None:
        first, second = run_reference(before, feed), run_reference(model, feed)
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        gap = np.abs(a.astype(np.float64) - b).max() / np.abs(a).max()
        assert 0 < gap < 8 * unit


def test_a_chain_is_cast_at_its_ends_only() -> None:
    model, ctx, before = converted("c = Conv(x, w, b) r = Relu(c) y = Conv(r, v)")
    assert ops(model) == ["Cast", "Conv", "Relu", "Conv", "Cast"]
    assert {v.dtype for v in model.graph.initializers.values() if v.uses()} == {DataType.FLOAT16}
    assert ctx.counters["to-half"] == 3
    near(before, model)


def test_bfloat16_where_the_operators_have_it() -> None:
    body, weights = (
        "m = MatMul(x, w) r = Relu(m) y = MatMul(r, v)",
        "float[4,8] w = {seed}, float[8,5] v = {seed}",
    )
    model, _, before = converted(body, weights, x="float[3,4] x", y="float[3,5] y", type="bf16")
    assert ops(model) == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    assert {v.dtype for v in model.graph.initializers.values()} == {DataType.BFLOAT16}
    near(before, model, unit=2.0**-7)
    _, ctx, _ = converted("y = Conv(x, w, b)", type="bf16")
    assert any("Conv of opset 17 has no bfloat16 form" in note for note in ctx.notes)


def test_the_statistics_of_a_norm_stay_float() -> None:
    body = "n, mean = LayerNormalization(x, g) m = MatMul(n, w) y = Add(m, mean)"
    weights = "float[4] g = {seed}, float[4,8] w = {seed}"
    model, _, _ = converted(body, weights, x="float[3,4] x", y="float[3,8] y", type="bf16")
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    assert [value.dtype for value in norm.outputs] == [DataType.BFLOAT16, DataType.FLOAT]


def test_weights_are_rounded_to_nearest_even() -> None:
    model, _, before = converted("y = Conv(x, w, b)")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer}
    half = {name: np.asarray(constant(v)) for name, v in model.graph.initializers.items()}
    np.testing.assert_array_equal(half["w_half"], stored["w"].astype(np.float16))


def test_one_cast_for_all_readers_and_outputs_keep_their_names() -> None:
    body = "c = Conv(x, w, b) k = Conv(x, w, b) r = Add(c, k) y = Conv(r, v) z = Erf(r)"
    model, _, _ = converted(body, y=f"{Y}, float[2,8,7,7] z, float[2,8,7,7] r", exclude=("Erf(z)",))
    assert ops(model).count("Cast") == 3
    assert [o.name for o in model.graph.outputs] == ["y", "z", "r"]


@pytest.mark.parametrize(("peak", "kept"), [(1e2, True), (3e4, False)])
def test_a_range_that_does_not_fit_stays_float(peak: float, kept: bool) -> None:
    body = "c = Conv(x, w, b) h = Mul(c, big) k = Relu(h) s = Mul(k, small) y = Conv(s, v)"
    weights = f"{CONV}, float big = {{{peak}}}, float small = {{0.001}}"
    model = model_of(body, weights, x=X, y=Y)
    infer_shapes(model)
    before = snapshot(model)
    feeds = [feeds_for(before, seed) for seed in range(2)]
    ranges = choose(collect(model, feeds, values_to_guard(model)), "minmax").values
    ctx = Context(facts={"ranges": ranges})
    ToHalf().run(model, ctx)
    verify(model)
    types = {v.name: v.dtype for n in model.graph for v in n.outputs}
    if kept:
        assert ops(model).count("Cast") == 2
    else:
        assert types["h"] == types["k"] == DataType.FLOAT
        assert any("'h' reaches" in note for note in ctx.notes)
    assert ops(model).count("Conv") == 2
    near(before, model)


def test_unsafe_values_stay_float() -> None:
    class Unsafe:
        min, max, unsafe = 0.0, 1.0, "3 infinite values"

    model, _, _ = converted("c = Conv(x, w, b) r = Exp(c) y = Conv(r, v)", facts={"ranges": {"r": Unsafe()}})
    assert ops(model) == ["Cast", "Conv", "Cast", "Exp", "Conv"]


@pytest.mark.parametrize("value", [1e5, np.inf, 1e-9])
def test_constants_that_do_not_fit_keep_their_node_float(value: float) -> None:
    body = "c = Conv(x, w, b) m = Mul(c, k) y = Conv(m, v)"
    model = model_of(body, f"{CONV}, float[1] k = {{2.0}}", x=X, y=Y)
    model = with_array(model, "k", np.array([value], np.float32))
    infer_shapes(model)
    ctx = Context()
    assert ToHalf().run(model, ctx)
    assert ops(model) == ["Cast", "Conv", "Cast", "Mul", "Cast", "Conv", "Cast"]
    assert any("constant 'k'" in note for note in ctx.notes)


def test_weights_that_matter_and_underflow_keep_their_layer_float() -> None:
    model = model_of("y = Conv(x, w, b)", CONV, x=X, y=Y)
    tiny = np.ones((8, 4, 3, 3), np.float32)
    tiny[3] *= 1e-7  # a whole channel
    model = with_array(with_array(model, "w", tiny), "b", np.zeros(8, np.float32))
    infer_shapes(model)
    assert not ToHalf().run(model, Context())
    beside = np.array(tiny)
    beside[3, 0] = 1  # beside a large weight the small ones do not matter
    model = with_array(model, "w", beside)
    infer_shapes(model)
    assert ToHalf().run(model, Context())
    model = with_array(model_of("y = Conv(x, w, b)", CONV, x=X, y=Y), "w", tiny)
    model = with_array(model, "b", np.ones(8, np.float32))  # nor beside a bias
    infer_shapes(model)
    assert ToHalf().run(model, Context())


def test_what_only_looks_at_a_value_needs_no_cast() -> None:
    body = "c = Conv(x, w, b) s = Shape(c) r = Reshape(c, s) y = Conv(r, v)"
    model, _, before = converted(body)
    assert ops(model) == ["Cast", "Conv", "Shape", "Reshape", "Conv", "Cast"]
    near(before, model)


@pytest.mark.parametrize(
    ("op", "call", "reason"),
    [
        ("CumSum", "CumSum(c, axis)", "outgrow"),
        ("RandomNormalLike", "RandomNormalLike(c)", "draws"),
        ("Cast", "Cast<to=1>(c)", "its type is its purpose"),
    ],
)
def test_blocked_operators_stay_float(op: str, call: str, reason: str) -> None:
    body = f"c = Conv(x, w, b) s = {call} y = Conv(s, v)"
    model, ctx, _ = converted(body, f"{CONV}, int64 axis = {{2}}")
    assert ops(model)[1:6] == ["Conv", "Cast", op, "Cast", "Conv"]
    assert any(reason in note for note in ctx.notes)


def test_quantized_parts_and_light_parts_stay_as_they_are() -> None:
    weights = "float[4,4] w = {seed}, float scale = {0.1}, uint8 zero = {3}"
    body = "q = QuantizeLinear(x, scale, zero) d = DequantizeLinear(q, scale, zero) r = Relu(d) y = Neg(r)"
    model, ctx, _ = converted(body, weights, x="float[3,4] x", y="float[3,4] y")
    assert "Cast" not in ops(model)
    assert ("to-half", "nothing near it is worth the Casts") in ctx.misses


def test_moving_nodes_take_the_type_of_what_they_move() -> None:
    body = (
        "t = Transpose<perm=[0,1,3,2]>(x) c = Conv(t, w, b) u = Transpose<perm=[0,1,3,2]>(c) y = Conv(u, v)"
    )
    model, _, before = converted(body)
    assert ops(model) == ["Transpose", "Cast", "Conv", "Transpose", "Conv", "Cast"]
    near(before, model)


def test_an_embedding_table_is_halved() -> None:
    weights = "float[50,8] table = {seed}, float[8,5] w = {seed}"
    body = "e = Gather(table, x) y = MatMul(e, w)"
    model, _, before = converted(body, weights, x="int64[2,3] x", y="float[2,3,5] y")
    assert ops(model) == ["Gather", "MatMul", "Cast"]
    near(before, model)


def test_bodies_stay_float_and_read_float() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float[2,4] x, bool c) => (float[2,4] y) <float[4,4] w = {seed}> {
        h = MatMul(x, w)
        z = If (c) <then_branch = t () => (float[2,4] a) { a = Abs(h) },
                    else_branch = e () => (float[2,4] b) { b = MatMul(h, w) }>
        y = MatMul(z, w)
    }"""
    model = parse(text)
    infer_shapes(model)
    before, signature = snapshot(model), signature_of(model)
    assert ToHalf().run(model, Context())
    verify(model, signature)
    assert ops(model) == ["Cast", "MatMul", "Cast", "If", "Cast", "MatMul", "Cast"]
    near(before, model)


def test_a_norm_whose_statistics_are_float() -> None:
    body = "n, mean, inv = LayerNormalization(x, g, b) y = MatMul(n, w) z = Relu(mean)"
    weights = "float[4] g = {seed}, float[4] b = {seed}, float[4,5] w = {seed}"
    model, _, before = converted(body, weights, x="float[3,4] x", y="float[3,5] y, float[3,1] z")
    norm = next(n for n in model.graph if n.op_type == "LayerNormalization")
    assert [v.dtype for v in norm.outputs[:2]] == [DataType.FLOAT16, DataType.FLOAT]
    near(before, model)


def test_impossible_margins_are_refused() -> None:
    with pytest.raises(UsageError, match="margin"):
        ToHalf(margin=0.5)
