# SPDX-License-Identifier: Apache-2.0
"""Sizes of slices, forwards and backwards, with bounds at and past every edge: onnxruntime is the judge."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor.analysis.shapes import dims_of, infer_shapes, symbolic_data
from tersor.graph_ir import Model, from_proto
from tests.support.shape_truth import check

MOST, LEAST = 2**63 - 1, -(2**63)
BOUNDS = st.one_of(st.integers(-7, 7), st.sampled_from([LEAST, LEAST + 1, -(2**31), 2**31 - 1, MOST]))
STEPS = st.sampled_from([LEAST, -(2**31), -7, -3, -2, -1, 1, 2, 3, 7, MOST])


def sliced(size: object, start: int, end: int, step: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[{size}] x) => (float[1] y) {{
        s = Constant<value_ints=[{start}]>()  e = Constant<value_ints=[{end}]>()
        a = Constant<value_ints=[0]>()  t = Constant<value_ints=[{step}]>()
        z = Slice(x, s, e, a, t)  y = ReduceSum<keepdims=1>(z, a) }}""")


def size_of(proto: onnx.ModelProto) -> str:
    """The inferred size of the slice."""
    model = from_proto(proto)
    infer_shapes(model)
    (found,) = dims_of(next(node for node in model.graph if node.op_type == "Slice").outputs[0]) or (None,)
    return str(found)


@settings(max_examples=80)
@given(st.integers(0, 6), BOUNDS, BOUNDS, STEPS, st.sampled_from(["{}", "N"]))
def test_sizes_are_those_of_the_run(size: int, start: int, end: int, step: int, given: str) -> None:
    proto = sliced(given.format(size), start, end, step)
    if given != "N" and not (step < 0 and end in (2**31 - 1, MOST)):
        assert size_of(proto).isdecimal()
    check(proto, {"x": np.ones(size, np.float32)}, {"N": size})


@pytest.mark.parametrize(
    ("start", "end", "step", "wanted"),
    [
        (-1, LEAST, -1, "N"),
        (-1, -(2**31) + 1, -2, "floor((N + 1)/2)"),
        (MOST, LEAST, -1, "N"),
        (2, LEAST, -1, "min(N, 3)"),
        (-1, 0, -1, "N - min(N, 1)"),
        (-2, LEAST, -1, "?z.0"),
        (-1, MOST, -1, "?z.0"),
    ],
)
def test_backwards_through_an_axis_of_any_size(start: int, end: int, step: int, wanted: str) -> None:
    assert size_of(sliced("N", start, end, step)) == wanted


def test_backwards_to_the_largest_number_is_read_in_two_ways() -> None:
    """onnxruntime takes it for past the first element, the standard for the last: nothing is said of it."""
    proto = sliced("4", -1, MOST, -1)
    assert size_of(proto) == "?z.0"
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (int64[M] z) {
        i = Shape(x)  s = Constant<value_ints=[-1]>()  e = Constant<value_ints=[9223372036854775807]>()
        a = Constant<value_ints=[0]>()  z = Slice(i, s, e, a, s) }""")
    model: Model = from_proto(proto)
    infer_shapes(model)
    assert symbolic_data(model.graph.outputs[0]) is None
