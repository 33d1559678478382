# SPDX-License-Identifier: Apache-2.0
"""Constants of every kind are sliced once; masks that do not fit are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tersor.analysis.coupling.rules import RULES
from tersor.analysis.shapes import infer_shapes
from tersor.graph_ir import (
    ExternalTensor,
    Model,
    VerifyError,
    constant,
    from_proto,
    load,
    parse,
    save,
    to_proto,
    verify,
)
from tersor.graph_ir.ops import subgraphs
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_masks
from tersor.passes.prune.fixes import FIXES, PLAIN
from tests.support.prune_build import build
from tests.support.prune_cuts import assert_equal, cut, masks_of, parameters

PAIR = "a = Conv(x, w1, b1)  r = Relu(a)  y = Conv(r, w2)"
WEIGHTS = "w1 4,3,1,1; b1 4; w2 4,4,1,1"
MASKS = {"w1:0 b1:0 a:1 r:1 w2:1": "1011"}
# Their rules pin all they touch, so no mask ever leads to them.
PINNED = {"EyeLike", "Loop", "Multinomial", "NonZero", "RandomNormal", "RandomUniform", "Range", "Scan"}


def pair() -> Model:
    return build(PAIR, WEIGHTS)


def test_weights_keep_their_names_and_are_copied() -> None:
    model = pair()
    whole = np.asarray(constant(model.graph.initializers["w1"]))
    assert "float[3,3,1,1] w1" in cut(model, MASKS)
    assert sorted(model.graph.initializers) == ["b1", "w1", "w2"]
    sliced = np.asarray(constant(model.graph.initializers["w1"]))
    np.testing.assert_array_equal(sliced, whole[[0, 2, 3]])


def test_shapes_that_the_file_declares_follow() -> None:
    model = build(PAIR, WEIGHTS, constants="float[2,4,8,8] a, float[2,4,8,8] r")
    cut(model, MASKS)
    declared = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in to_proto(model).graph.value_info
    }
    assert declared == {"a": [2, 3, 8, 8], "r": [2, 3, 8, 8]}


def test_a_weight_that_two_read_is_sliced_once() -> None:
    model = build("a = Conv(x, w1, b1)  c = Conv(x, w1, b1)  s = Mul(a, c)  y = Conv(s, w2)", WEIGHTS, seed=3)
    infer_shapes(model)
    ctx = Context()
    assert apply_masks(model, masks_of(model, {"w1:0 b1:0 a:1 c:1 s:1 w2:1": "1011"}), ctx)
    assert ctx.counters["weights sliced"] == 3
    assert sorted(model.graph.initializers) == ["b1", "w1", "w2"]


def test_both_axes_of_a_weight() -> None:
    model = build("a = Conv(x, w1)  b = Conv(a, w2)  y = Conv(b, w3)", "w1 4,3,1,1; w2 5,4,1,1; w3 4,5,1,1")
    text = cut(model, {"w1:0 a:1 w2:1": "1011", "w2:0 b:1 w3:1": "11000"})
    assert "float[2,3,1,1] w2" in text


def test_outputs_of_constant_nodes() -> None:
    model = build(
        """b = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()  c = Constant<value = float[4] {5, 6, 7, 8}>()
        a = Conv(x, w1, b)  k = Reshape(c, form)  s = Mul(a, k)  y = Conv(s, w2)""",
        "w1 4,3,1,1; w2 4,4,1,1",
        constants="int64[3] form = {4, 1, 1}",
    )
    text = cut(model, {"w1:0 b:0 c:0 k:0 a:1 s:1 w2:1": "1011"})
    assert "{1.0, 3.0, 4.0}" in text
    assert "{5.0, 7.0, 8.0}" in text
    assert "{3, 1, 1}" in text


def test_constants_in_functions() -> None:
    model = parse(
        """<ir_version: 10, opset_import: ["" : 17, "local" : 1]>
        g (float[2,3,4,4] x) => (float[2,4,4,4] y) <float[4,3,1,1] w = {seed}> { y = local.f(x, w) }
        <domain: "local", opset_import: ["" : 17]>
        f (x, w) => (y) {
          b = Constant<value = float[4] {1, 2, 3, 4}>()
          a = Abs(b)
          c = Sqrt(a)
          d = ReduceSum(c)
          n = Conv(x, w)
          y = Add(n, d)
        }"""
    )
    infer_shapes(model)
    assert apply_masks(model, masks_of(model, {"b:0 a:0 c:0": "0101"}), Context())
    verify(model)
    (function,) = to_proto(model).functions
    held = next(n for n in function.node if n.op_type == "Constant").attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(held), np.array([2, 4], np.float32))


DTYPES: dict[str, Any] = {
    "float16": np.float16,
    "float64": np.float64,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
    "bfloat16": ml_dtypes.bfloat16,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "float8": ml_dtypes.float8_e4m3fn,
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_data(dtype: str) -> None:
    array: NDArray[Any] = np.arange(15).reshape(3, 5).astype(DTYPES[dtype])
    kind = numpy_helper.from_array(array).data_type
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "f"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, None])],
        [numpy_helper.from_array(array, "w")],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    infer_shapes(model)
    values = {"w": model.graph.initializers["w"], "f": next(iter(model.graph)).outputs[0]}
    mask = np.array([True, False, True, True, False])
    # The output is not pinned here: only what is sliced is looked at.
    (node,) = [n for n in model.graph if n.op_type == "MatMul"]
    with pytest.raises(VerifyError, match="'y' at MatMul"):
        apply_masks(model, {(values["w"], 1): mask, (values["f"], 1): mask}, Context())
    (tensor,) = to_proto(model).graph.initializer
    assert (tensor.data_type, list(tensor.dims)) == (kind, [3, 3])
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), array[:, mask])
    assert node.outputs[0].name == "y"


def test_weights_in_a_file_beside(tmp_path: Path) -> None:
    def wide() -> Model:
        return build(PAIR, "w1 400,3,1,1; b1 400; w2 4,400,1,1")

    masks = {"w1:0 b1:0 a:1 r:1 w2:1": "1011" * 100}
    save(wide(), tmp_path / "m.onnx", external_data=True)
    model = load(tmp_path / "m.onnx")
    assert isinstance(model.graph.initializers["w1"].const_value, ExternalTensor)
    infer_shapes(model)
    assert apply_masks(model, masks_of(model, masks), Context())
    save(model, tmp_path / "cut.onnx", external_data=True)
    assert parameters(load(tmp_path / "cut.onnx")) == parameters(model)
    inlined = wide()
    cut(inlined, masks)
    assert_equal(to_proto(inlined), onnx.load(tmp_path / "cut.onnx"))


def test_masks_that_keep_all_change_nothing() -> None:
    model = pair()
    infer_shapes(model)
    assert not apply_masks(model, masks_of(model, {"w1:0": "1111"}), Context())


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ({"w1:0": "101"}, r"cannot cut axis 0 of 'w1': the mask is for 3 positions"),
        ({"w1:4": "101"}, r"cannot cut axis 4 of 'w1'"),
        ({"w1:0": "0000"}, r"axis 0 of 'w1': nothing would be left"),
        ({"x:1": "101"}, r"axis 1 of 'x': the signature of a graph must stay"),
        ({"y:1": "1011"}, r"axis 1 of 'y': the signature of a graph must stay"),
        (
            {"w1:0 b1:0 w2:1": "1011"},
            r"made 'a' at Conv 'Conv\(a\)' \(2, 3, 8, 8\), where \(2, 4, 8, 8\) was",
        ),
        ({"a:1 r:1 w2:1": "1011"}, r"made 'a' at Conv 'Conv\(a\)' \(2, 4, 8, 8\), where \(2, 3, 8, 8\) was"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: dict[str, str], reason: str) -> None:
    with pytest.raises(VerifyError, match=reason):
        cut(pair(), masks, compare=False)


def test_operators_nothing_is_known_of_are_refused() -> None:
    model = build("a = Conv(x, w1)  y = Det(a)", "w1 4,3,1,1", y="float[2,4] y")
    with pytest.raises(VerifyError, match=r"at Det 'Det\(y\)': nothing is known of this operator"):
        cut(model, {"w1:0 a:1": "1011"}, compare=False)


def test_bodies_that_read_a_cut_value_are_refused() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3,4,4] x, bool c) => (float[2,4,4,4] y) <float[4,3,1,1] w = {seed}, float[4] b = {seed}> {
          n = Conv(x, w, b)
          y = If (c) <then_branch = t () => (float[2,4,4,4] p) { p = Relu(n) },
                      else_branch = e () => (float[2,4,4,4] q) { q = Abs(n) }>
        }"""
    )
    with pytest.raises(VerifyError, match=r"made 'y' at If .*predicted"):
        cut(model, {"w:0 b:0 n:1": "1011"}, compare=False)


def test_outputs_of_bodies_may_be_declared_without_a_shape() -> None:
    """Regression: what was inferred of them was not looked at, and the cut refused as a fault."""
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3,4,4] x, bool c) => (float[2,5,4,4] y)
        <float[4,3,1,1] w = {seed}, float[5,4,1,1] v = {seed}> {
          n = Conv(x, w)
          z = If (c) <then_branch = t () => (float[2,4,4,4] p) { p = Relu(n) },
                      else_branch = e () => (float[2,4,4,4] q) { q = Abs(n) }>
          y = Conv(z, v)
        }"""
    )
    for body in subgraphs(model.graph[1]):
        body.outputs[0].shape = None
    cut(model, {"w:0 n:1 p:1 q:1 z:1 v:1": "1011"})


def test_every_operator_with_a_rule_has_a_fix_or_needs_none() -> None:
    assert {name for domain, name in set(RULES) - set(FIXES) - PLAIN if not domain} <= PINNED
    assert not {name for domain, name in set(RULES) - set(FIXES) - PLAIN if domain}
    assert not set(FIXES) & PLAIN
