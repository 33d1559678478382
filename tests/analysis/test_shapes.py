# SPDX-License-Identifier: Apache-2.0
"""Shape inference on written models: what is found, what is protected, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tersor.analysis.cost import cost
from tersor.analysis.shapes import infer_node, infer_shapes, refined_shape, symbolic_data
from tersor.graph_ir import INFERRED, Model, Rewriter, Value, from_proto, parse, to_proto
from tersor.graph_ir.ops import dims, walk_graphs
from tests.support.shape_truth import check

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'


def values(model: Model) -> dict[str, Value]:
    found = {o.name or "": o for graph in walk_graphs(model) for node in graph for o in node.outputs}
    return found | {v.name or "": v for graph in walk_graphs(model) for v in graph.inputs}


def inferred(text: str) -> dict[str, Value]:
    model = parse(HEAD + text)
    infer_shapes(model)
    return values(model)


def test_exporter_chain_is_followed_through_symbols() -> None:
    text = """g (float[N,T,384] x) => (float[A,B,C,D] y) {
        s = Shape(x)  i0 = Constant<value_int=0>()  i1 = Constant<value_int=1>()
        n = Gather(s, i0)  t = Gather(s, i1)  ax = Constant<value_ints=[0]>()
        nu = Unsqueeze(n, ax)  tu = Unsqueeze(t, ax)  h = Constant<value_ints=[12]>()
        e = Constant<value_ints=[-1]>()  full = Concat<axis=0>(nu, tu, h, e)
        r = Reshape(x, full)  y = Transpose<perm=[0,2,1,3]>(r)
        flat = Mul(n, t)  fu = Unsqueeze(flat, ax)  two = Concat<axis=0>(fu, e)  z = Reshape(x, two)
    }"""
    found = inferred(text)
    assert symbolic_data(found["full"]) == ("N", "T", 12, -1)
    assert symbolic_data(found["flat"]) == ("N*T",)
    assert dims(found["r"]) == ("N", "T", 12, 32)
    assert refined_shape(found["y"]) == ["N", 12, "T", 32]
    # With T = 0 the first size reads "copy N": only one empty dim away from another result.
    assert dims(found["z"]) == ("?z.0", "?z.1")
    feed = {"x": np.zeros((2, 5, 384), np.float32)}
    check(to_proto(parse(HEAD + text)), feed, {"N": 2, "T": 5})


def test_factors_of_nodes_that_are_else_alike_are_told_apart() -> None:
    text = """g (float[1,4,20,20] x) => (float[A,B,C,D] y)
        <float[0] none = {}, float[4] up = {1, 1, 2, 2}, float[4] down = {1, 1, 0.5, 0.5},
         float zero = {0}, float one = {1}, float half = {0.5}, float four = {4}> {
        a = Resize(x, none, up)  b = Resize(x, none, down)
        r = Range(zero, four, one)  s = Range(zero, four, half)  y = Neg(b)
    }"""
    found = inferred(text)
    assert [dims(found[name]) for name in "abrs"] == [(1, 4, 40, 40), (1, 4, 10, 10), (4,), (8,)]


def test_convolution_and_pooling_over_symbolic_space() -> None:
    text = """g (float[N,3,H,W] x) => (float[A,B,C,D] y)
        <float[8,3,3,3] w = {seed}, float[8,4,2,2] v = {seed}> {
        a = Conv<pads=[1,1,1,1]>(x, w)  b = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w)
        c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)  d = ConvTranspose<strides=[2,2]>(a, v)
        s = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)  y = Concat<axis=3>(a, a)
    }"""
    found = inferred(text)
    assert dims(found["a"]) == ("N", 8, "H", "W")
    assert dims(found["b"]) == ("N", 8, "floor((H + 1)/2)", "floor((W + 1)/2)")
    assert dims(found["c"]) == ("N", 8, "floor((H + 1)/4)", "floor((W + 1)/4)")
    assert dims(found["d"]) == ("N", 4, "2*H", "2*W")
    assert dims(found["s"]) == dims(found["b"])
    assert refined_shape(found["y"]) == ["N", 8, "H", "2*W"]
    for h, w in ((8, 9), (7, 6)):
        feed = {"x": np.zeros((2, 3, h, w), np.float32)}
        check(to_proto(parse(HEAD + text)), feed, {"N": 2, "H": h, "W": w})


def test_pads_computed_the_exporters_way() -> None:
    text = """g (float[N,4,H,W] x) => (float[A,B,C,D] y) {
        p = Constant<value_ints=[0,0,1,1]>()  four = Constant<value_ints=[4]>()
        z = ConstantOfShape<value: tensor = int64[1] {0}>(four)  all = Concat<axis=0>(p, z)
        sh = Constant<value_ints=[-1,2]>()  m = Reshape(all, sh)
        s0 = Constant<value_ints=[-1]>()  e0 = Constant<value_ints=[-9223372036854775807]>()
        a0 = Constant<value_ints=[0]>()  r = Slice(m, s0, e0, a0, s0)  t = Transpose<perm=[1,0]>(r)
        pads = Reshape(t, s0)  y = Pad(x, pads)
    }"""
    found = inferred(text)
    assert symbolic_data(found["pads"]) == (0, 0, 1, 0, 0, 0, 1, 0)
    assert refined_shape(found["y"]) == ["N", 4, "H + 2", "W"]
    check(to_proto(parse(HEAD + text)), {"x": np.zeros((1, 4, 5, 6), np.float32)}, {"N": 1, "H": 5, "W": 6})


def test_stale_types_in_the_file_are_not_believed() -> None:
    proto = to_proto(
        parse(HEAD + "g (float[N,4] x) => (float[N,4] y) { a = Relu(x)  b = Cast<to=7>(a)  y = Abs(x) }")
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT16, [9, 9, 9]))
    proto.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.INT64, ["N", 4]))
    model = from_proto(proto)
    report = infer_shapes(model)
    found = values(model)
    assert report.contradicted == ("a",)
    assert (str(found["a"].dtype), dims(found["a"])) == ("FLOAT", ("N", 4))
    assert INFERRED not in found["b"].meta  # right as it stood, so it stays the file's own
    assert [v.name for v in to_proto(model).graph.value_info] == ["b"]


def test_signature_is_kept_and_refined_beside() -> None:
    model = parse(HEAD + "g (float[?,4] x) => (float[K,K] y) { y = Relu(x) }")
    before = to_proto(model).SerializeToString(deterministic=True)
    infer_shapes(model)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert refined_shape(model.graph.outputs[0]) == ["?x.0", 4]
    assert dims(model.graph.outputs[0]) == ("K", "K")


def test_open_dims_are_named_so_that_copies_are_known_equal() -> None:
    found = inferred("""g (float[K] x) => (int64[1,Z] y) {
        i = NonZero(x)  j = Neg(i)  s = Shape(i)  k = Reshape(j, s)  y = Abs(k)  }""")
    assert dims(found["i"]) == (1, "?i.1")
    assert dims(found["k"]) == (1, "?i.1")


def test_second_run_changes_nothing() -> None:
    model = parse(
        HEAD + "g (float[N,6] x) => (float[A] y) { a = Flatten<axis=0>(x)  b = NonZero(a)  y = ReduceSum(a) }"
    )
    first = infer_shapes(model)
    shapes = {name: dims(value) for name, value in values(model).items()}
    assert infer_shapes(model) == first
    assert {name: dims(value) for name, value in values(model).items()} == shapes


def test_declared_type_of_an_unknown_operator_is_all_there_is() -> None:
    proto = to_proto(
        parse("""<ir_version: 9, opset_import: ["" : 17, "x.y" : 1]>
        g (float[N,4] x) => (float[N,5] y) { a = x.y.Magic(x)  y = Relu(a) }""")
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", None]))
    model = from_proto(proto)
    report = infer_shapes(model)
    assert report.notes == (("Magic(a)", "no schema for x.y.Magic at opset 1"),)
    assert refined_shape(model.graph.outputs[0]) == ["N", "?a.1"]
    assert dims(values(model)["a"]) == ("N", None)
    assert INFERRED not in values(model)["a"].meta


def test_declared_name_that_looks_like_a_sum_is_another_size() -> None:
    text = "g (float[N] x, float[M] z) => (float[A] y) { y = Concat<axis=0>(x, x)  w = Relu(y) }"
    proto = to_proto(parse(HEAD + text))
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "2*N"
    model = from_proto(proto)
    infer_shapes(model)
    assert dims(values(model)["w"]) != ("2*N",)


def test_type_error_leaves_the_rest_known() -> None:
    model = parse(
        HEAD + "g (float[2,3] x, float[7,5] z) => (float[A] y) { a = MatMul(x, z)  b = Relu(a)  y = Abs(x) }"
    )
    report = infer_shapes(model)
    assert [name for name, _ in report.notes] == ["MatMul(a)"]
    assert report.unranked == ("a", "b")
    assert (report.values, report.typed, report.ranked) == (3, 3, 1)


@pytest.mark.parametrize(("h", "wanted"), [("H", None), (6, (3, 12))])
def test_one_new_node_is_typed_from_its_inputs(h: str | int, wanted: tuple[int, ...] | None) -> None:
    model = parse(HEAD + f"g (float[{h},6] x) => (float[A,B] y) {{ a = Relu(x)  y = Abs(a) }}")
    infer_shapes(model)
    rewriter = Rewriter(model)
    last = model.graph[1]
    target = rewriter.constant(np.array([3, -1], np.int64), "target", last)
    node = rewriter.node("Reshape", [values(model)["a"], target], before=last)
    assert infer_node(node)
    if wanted is None:
        assert dims(node.outputs[0]) == (3, "2*H")
    else:
        assert dims(node.outputs[0]) == wanted
    onnx.checker.check_model(to_proto(model))


def test_inferred_type_is_not_saved_on_a_value_that_takes_over() -> None:
    model = parse(HEAD + "g (float[K] x) => (int64[1,Z] y) { i = NonZero(x)  y = Abs(i) }")
    infer_shapes(model)
    rewriter = Rewriter(model)
    old = model.graph[0]
    new = rewriter.node("NonZero", [model.graph.inputs[0]], before=old)
    rewriter.replace(old.outputs[0], new.outputs[0])
    assert dims(new.outputs[0]) == (1, "?i.1")
    assert not to_proto(model).graph.value_info


@pytest.mark.parametrize("operator", ["MatMul", "Equal"])
def test_strings_and_other_odd_inputs_do_not_raise(operator: str) -> None:
    model = parse(HEAD + f"g (string[N] x, string[N] z) => (bool[N] y) {{ y = {operator}(x, z) }}")
    assert infer_shapes(model).values == 1
    assert cost(model).nodes[0].bytes_moved is None


@pytest.mark.parametrize(
    ("rows", "size", "wanted"), [("T", 5, "T"), ("1", 1, "min(T, 64)"), ("U", 5, "?a.1"), ("T2", 5, "?a.1")]
)
def test_positions_cut_to_the_length_of_the_input(rows: str, size: int, wanted: str) -> None:
    """`table[:T] + x` has T rows in every run that succeeds where x has; of other sizes nothing is known."""
    text = f"""g (int64[B,T] like, float[B,{rows},4] x) => (float[P,Q,R] y)
    <float[1,64,4] table = {{seed}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}> {{
        s = Shape(like)  n = Slice(s, one, two)
        p = Slice(table, zero, n, one)  a = Add(x, p)  y = Relu(a) }}"""
    found = inferred(text)
    assert dims(found["p"]) == (1, "min(T, 64)", 4)
    assert dims(found["a"]) == ("B", wanted, 4)
    feed = {"like": np.zeros((2, 5), np.int64), "x": np.zeros((2, size, 4), np.float32)}
    check(to_proto(parse(HEAD + text)), feed, {"B": 2, "T": 5, "U": 5, "T2": 5})


@pytest.mark.parametrize(
    ("opset", "weights", "node"),
    [(21, "<int64[0] a = {}>", "y = Squeeze(x, a)"), (11, "", "y = Squeeze<axes: ints = []>(x)")],
)
def test_squeeze_of_an_empty_list_of_axes_is_not_guessed(opset: int, weights: str, node: str) -> None:
    # onnx leaves the shape, onnxruntime drops every axis of size 1.
    model = parse(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[1,2,1] x) => (y) {weights} {{{node}}}'
    )
    infer_shapes(model)
    assert refined_shape(values(model)["y"]) is None


@pytest.mark.parametrize(
    "node",
    ["c = ConvTranspose<pads = [0, 9]>(x, w)", "c = Conv(x, w)", "c = MaxPool<kernel_shape = [5]>(x)"],
)
def test_a_window_beyond_its_input_makes_no_size_below_0(node: str) -> None:
    bounds = "s = Constant<value_ints=[-5]>() e = Constant<value_ints=[9]>() a = Constant<value_ints=[2]>()"
    found = inferred(
        f"g (float[1,4,1] x, float[4,4,5] w) => (y) {{ {bounds}\n{node} y = Slice(c, s, e, a) }}"
    )
    for sizes in (dims(found["c"]), dims(found["y"]) or ()):
        assert sizes is not None
        assert all(not isinstance(size, int) or size >= 0 for size in sizes)
