# SPDX-License-Identifier: Apache-2.0
"""What becomes float32, what stays as it is and why, and how far the numbers move."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import DataType, Model, UsageError, constant, parse, signature_of, verify
from tersor.passes.base import Context
from tersor.passes.precision.single import ToFloat
from tests.support.numerics import feeds_for, run_reference, snapshot
from tests.support.rewriting import model_of, with_array

WEIGHTS = "float16[4,8] w = {seed}, float16[8] b = {seed}, float16[8,5] v = {seed}"
WIDE = "float16[4,4] w = {seed}, float16[4] s = {seed}"
X, Y = "float16[3,4] x", "float16[3,5] y"


def converted(
    body: str, weights: str = WEIGHTS, *, x: str = X, y: str = Y, opset: int = 17, **options: Any
) -> tuple[Model, Context, onnx.ModelProto]:
    """The model after the pass, the context, and the model before."""
    return given(model_of(body, weights, x=x, y=y, opset=opset), **options)


def given(model: Model, **options: Any) -> tuple[Model, Context, onnx.ModelProto]:
    infer_shapes(model)
    before, signature, ctx = snapshot(model), signature_of(model), Context()
    changed = ToFloat(**options).run(model, ctx)
    verify(model, signature)
    if not changed:
        assert snapshot(model) == before
    return model, ctx, before


def ops(model: Model) -> list[str]:
    return [n.op_type for n in model.graph]


def near(before: onnx.ModelProto, model: Model, unit: float = 2.0**-10) -> None:
    """Outputs keep their types and differ by no more than the rounding of the types before."""
    feed = feeds_for(before)
    for a, b in zip(run_reference(before, feed), run_reference(model, feed), strict=True):
        assert a.dtype == b.dtype
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
        assert gap <= 8 * unit * np.abs(a.astype(np.float64)).max()


def test_half_is_cast_at_the_ends_only() -> None:
    model, ctx, before = converted("c = MatMul(x, w) d = Add(c, b) r = Relu(d) y = MatMul(r, v)")
    assert ops(model) == ["Cast", "MatMul", "Add", "Relu", "MatMul", "Cast"]
    assert {v.dtype for v in model.graph.initializers.values()} == {DataType.FLOAT}
    assert ctx.counters["to-float"] == 4
    near(before, model)


def test_weights_of_half_are_the_same_numbers() -> None:
    model, _, before = converted("c = MatMul(x, w) y = MatMul(c, v)")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer}
    single = {name: np.asarray(constant(v)) for name, v in model.graph.initializers.items()}
    np.testing.assert_array_equal(single["w_float"], stored["w"].astype(np.float32))


def test_casts_between_types_go() -> None:
    body = "h = Cast<to=10>(x) c = MatMul(h, w) d = Cast<to=1>(c) s = Softmax(d) e = Cast<to=10>(s) "
    body += "f = MatMul(e, v) y = Cast<to=1>(f)"
    model, _, before = converted(body, x="float[3,4] x", y="float[3,5] y")
    computing = [op for op in ops(model) if op not in ("Cast", "Identity")]
    assert computing == ["MatMul", "Softmax", "MatMul"]
    assert "Cast" not in ops(model)
    near(before, model)


def test_a_value_that_overflowed_in_half_no_longer_does() -> None:
    body = "c = MatMul(x, w) d = Mul(c, big) e = Mul(d, small) y = MatMul(e, v)"
    model = model_of(body, f"{WEIGHTS}, float16[1] big = {{seed}}, float16[1] small = {{seed}}", x=X, y=Y)
    model = with_array(
        with_array(model, "big", np.full(1, 6e4, np.float16)), "small", np.full(1, 1e-4, np.float16)
    )
    model, _, before = given(model)
    feed = {"x": np.full((3, 4), 50, np.float16)}
    with np.errstate(over="ignore", invalid="ignore"):
        assert not np.isfinite(run_reference(before, feed)[0]).all()
        assert np.isfinite(run_reference(model, feed)[0]).all()


def test_bfloat16_becomes_float() -> None:
    weights = "float[4,8] w = {seed}, float[8,5] v = {seed}"
    body = "h = Cast<to=16>(x) k = Cast<to=16>(w) l = Cast<to=16>(v) c = MatMul(h, k) d = MatMul(c, l)"
    body += " y = Cast<to=1>(d)"
    model, _, _ = converted(body, weights, x="float[3,4] x", y="float[3,5] y")
    assert [op for op in ops(model) if op != "Identity"] == ["MatMul", "MatMul"]
    kept, _, _ = converted(body, weights, x="float[3,4] x", y="float[3,5] y", types=("fp64",))
    assert ops(kept).count("Cast") == 4


def test_double_is_rounded_to_single() -> None:
    weights = WEIGHTS.replace("float16", "double")
    model, _, before = converted(
        "c = MatMul(x, w) d = Add(c, b) y = MatMul(d, v)", weights, x="double[3,4] x", y="double[3,5] y"
    )
    assert ops(model) == ["Cast", "MatMul", "Add", "MatMul", "Cast"]
    near(before, model, unit=2.0**-23)


@pytest.mark.parametrize("value", [1e300, 1e-60])
def test_a_double_that_single_cannot_hold_keeps_its_node(value: float) -> None:
    weights = f"{WEIGHTS.replace('float16', 'double')}, double[1] k = {{2.0}}"
    body = "c = MatMul(x, w) m = Mul(c, k) y = MatMul(m, v)"
    model = with_array(
        model_of(body, weights, x="double[3,4] x", y="double[3,5] y"), "k", np.array([value], np.float64)
    )
    made, ctx, _ = given(model)
    assert ops(made) == ["Cast", "MatMul", "Cast", "Mul", "Cast", "MatMul", "Cast"]
    assert any("the constant 'k' does not fit" in note for note in ctx.notes)


def test_sizes_computed_in_double_stay_exact() -> None:
    weights = "double[4,8] w = {seed}, double[4] scale = {1.0, 1.0, 1.7, 1.7}"
    body = "c = MatMul(x, w) s = Shape(c) f = Cast<to=11>(s) g = Mul(f, scale) t = Floor(g) n = Cast<to=7>(t)"
    body += " y = Expand(c, n)"
    model, ctx, _ = converted(body, weights, x="double[1,1,1,4] x", y="double[A,B,C,D] y")
    types = {v.name: v.dtype for n in model.graph for v in n.outputs}
    assert types["g"] == types["t"] == DataType.DOUBLE
    assert any("sizes and indices" in note for note in ctx.notes)


IDS = 16777217.0 + np.arange(12).reshape(3, 4)  # float32 holds every second one


@pytest.mark.parametrize(
    ("end", "made"), [("Cast<to=7>(r)", "Cast"), ("CastLike(r, k)", "CastLike"), ("Cast<to=8>(r)", "Cast")]
)
def test_integers_that_are_moved_in_double_stay_exact(end: str, made: str) -> None:
    """However many they are; what is computed of them beside becomes float32."""
    y = "string[3,4] y, double[3,8] z" if "8" in end else "int64[3,4] y, double[3,8] z"
    weights = "double[4,8] w = {seed}, int64[1] k = {1}"
    body = f"t = Transpose<perm=[1,0]>(x) r = Transpose<perm=[1,0]>(t) y = {end} z = MatMul(r, w)"
    model, _, before = converted(body, weights, x="double[3,4] x", y=y)
    assert ops(model) == ["Transpose", "Transpose", made, "Cast", "MatMul", "Cast"]
    want, got = run_reference(before, {"x": IDS}), run_reference(model, {"x": IDS})
    np.testing.assert_array_equal(want[0], got[0])


def test_a_range_in_double_keeps_its_length() -> None:
    model, _, before = converted(
        "r = Range(zero, l, d) s = Sin(r) y = Mul(s, s)",
        "double zero = {0.0}",
        x="double l, double d",
        y="double[n] y",
    )
    assert ops(model) == ["Range", "Cast", "Sin", "Mul", "Cast"]
    feed = {"l": np.array(16777217.0), "d": np.array(16777216.0)}
    (want,), (got,) = run_reference(before, feed), run_reference(model, feed)
    assert want.shape == got.shape == (2,)


def test_a_cast_keeps_its_other_attributes() -> None:
    body = "c = MatMul(x, w) f = Cast<to=17, saturate=0>(c) y = Cast<to=1>(f)"
    model, _, _ = converted(body, y="float[3,8] y", opset=19)
    (kept,) = [n for n in model.graph if "saturate" in n.attributes]
    assert kept.outputs[0].dtype == DataType.FLOAT8E4M3FN


@pytest.mark.parametrize(
    ("body", "y", "opset", "kept"),
    [
        ("o = Optional(r) g = OptionalGetElement(o) y = Abs(g)", "float16[3,4] y", 18, "OptionalGetElement"),
        ("b = BitCast<to=4>(r) y = Cast<to=10>(b)", "float16[3,4] y", 26, "BitCast"),
        ("y, m = LayerNormalization<stash_type=10>(r, s)", "float16[3,4] y", 17, "LayerNormalization"),
    ],
)
def test_what_tells_types_apart_reads_what_it_did(body: str, y: str, opset: int, kept: str) -> None:
    model, _, _ = converted(f"a = MatMul(x, w) r = Relu(a) {body}", WIDE, y=y, opset=opset)
    (node,) = [n for n in model.graph if n.op_type == kept]
    assert node.inputs[0] is not None
    assert node.inputs[0].dtype == DataType.FLOAT16


def test_a_table_that_is_only_looked_up_stays_half() -> None:
    model, _, before = converted(
        "e = Gather(table, x) y = MatMul(e, w)",
        "float16[50,8] table = {seed}, float16[8,5] w = {seed}",
        x="int64[2,3] x",
        y="float16[2,3,5] y",
    )
    assert ops(model) == ["Gather", "Cast", "MatMul", "Cast"]
    assert model.graph.initializers["table"].dtype == DataType.FLOAT16
    near(before, model)


def test_moves_alone_stay_and_unknown_operators_read_what_they_did() -> None:
    moved, _, _ = converted("y = Transpose<perm=[1,0]>(x)", "", x="float16[3,5] x", y="float16[5,3] y")
    assert ops(moved) == ["Transpose"]
    text = """<ir_version: 8, opset_import: ["" : 17, "strange" : 1]>
    m (float16[3,4] x) => (float16[3,8] y) <float16[4,4] w = {seed}, float16[4,8] v = {seed}> {
        h = MatMul(x, w)
        z = strange.Op(h)
        y = MatMul(h, v)
    }"""
    model, ctx, _ = given(parse(text))
    assert ops(model) == ["Cast", "MatMul", "Cast", "Op", "MatMul", "Cast"]
    assert any("strange.Op is not known" in note for note in ctx.notes)


def test_operators_of_the_runtime_become_float_too() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    m (float16[3,4] x) => (float16[3,4] y) <float16[4,4] w = {seed}, float16[4] g = {seed}> {
        h = com.microsoft.FusedMatMul <alpha = 0.5> (x, w)
        y = com.microsoft.SkipLayerNormalization(h, x, g)
    }"""
    model, _, _ = given(parse(text))
    assert ops(model) == ["Cast", "FusedMatMul", "SkipLayerNormalization", "Cast"]


def test_attributes_that_name_a_type_are_left() -> None:
    model, ctx, _ = converted(
        "e = EyeLike<dtype=10>(x) c = Add(e, x) y = MatMul(c, v)",
        "float16[4,5] v = {seed}",
        x="float16[4,4] x",
        y="float16[4,5] y",
    )
    assert ops(model) == ["EyeLike", "Cast", "Cast", "Add", "MatMul", "Cast"]
    assert any("an attribute names a type" in note for note in ctx.notes)


def test_bodies_read_what_they_did() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    m (float16[2,4] x, bool c) => (float16[2,4] y) <float16[4,4] w = {seed}> {
        h = MatMul(x, w)
        z = If (c) <then_branch = t () => (float16[2,4] a) { a = Abs(h) },
                    else_branch = e () => (float16[2,4] b) { b = Neg(h) }>
        y = MatMul(z, w)
    }"""
    model, _, before = given(parse(text))
    assert ops(model) == ["Cast", "MatMul", "Cast", "If", "Cast", "MatMul", "Cast"]
    near(before, model)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(UsageError, match="fp8"):
        ToFloat(types=("fp8",))
    with pytest.raises(UsageError, match="at least one"):
        ToFloat(types=())
