# SPDX-License-Identifier: Apache-2.0
"""Shape inference against the shapes onnxruntime really makes, on drawn models and on the zoo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tersor.analysis.shapes import dims_of
from tersor.graph_ir import load
from tests.support.shape_truth import check
from tests.support.zoo import zoo_feed, zoo_models

# Each block reads {x} (rank 4) and gives {y} (rank 4); lines are ONNX text with {k} for fresh names.
BLOCKS = {
    "relu": "{y} = Relu({x})",
    "transpose": "{y} = Transpose<perm=[0,1,3,2]>({x})",
    "twice": "{y} = Concat<axis=3>({x}, {x})",
    "window": "{y} = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>({x})",
    "pool": "{y} = MaxPool<kernel_shape=[2,2], pads=[0,0,1,1]>({x})",
    "focus": """{k}s = Constant<value_ints=[0]>()  {k}e = Constant<value_ints=[2147483647]>()
        {k}a = Constant<value_ints=[2]>()  {y} = Slice({x}, {k}s, {k}e, {k}a, {k}a)""",
    "itself": "{k}s = Shape({x})  {y} = Reshape({x}, {k}s)",
    "shuffle": """{k}s = Shape<start=0, end=1>({x})  {k}h = Shape<start=2>({x})
        {k}c = Constant<value_ints=[2,2]>()  {k}f = Concat<axis=0>({k}s, {k}c, {k}h)
        {k}d = Constant<value_ints=[4]>()  {k}b = Concat<axis=0>({k}s, {k}d, {k}h)
        {k}v = Reshape({x}, {k}f)  {k}u = Transpose<perm=[0,2,1,3,4]>({k}v)  {y} = Reshape({k}u, {k}b)""",
    "upsample": """{k}s = Constant<value_floats=[1.0,1.0,2.0,2.0]>()
        {y} = Resize<mode="nearest">({x}, , {k}s)""",
    "to_size": """{k}s = Shape({x})  {k}m = Constant<value_ints=[1,1,2,3]>()  {k}z = Mul({k}s, {k}m)
        {y} = Resize<mode="nearest">({x}, , , {k}z)""",
    "halve": """{k}s = Shape<start=3>({x})  {k}t = Constant<value_ints=[2]>()  {k}h = Div({k}s, {k}t)
        {k}z = Constant<value_ints=[0]>()  {k}a = Constant<value_ints=[3]>()
        {y} = Slice({x}, {k}z, {k}h, {k}a)""",
    "expand": "{k}s = Shape({x})  {k}o = ReduceMean<axes=[0], keepdims=1>({x})  {y} = Expand({k}o, {k}s)",
    "flat": """{k}f = Flatten<axis=2>({x})  {k}s = Shape({x})  {y} = Reshape({k}f, {k}s)""",
    "pad": "{k}p = Constant<value_ints=[0,0,1,0,0,0,0,2]>()  {y} = Pad({x}, {k}p)",
    "tile": "{k}p = Constant<value_ints=[1,1,1,2]>()  {y} = Tile({x}, {k}p)",
    "where": """{k}s = Shape({x})  {k}m = Constant<value_ints=[-1]>()  {k}q = Equal({k}s, {k}m)
        {k}t = Where({k}q, {k}m, {k}s)  {y} = Expand({x}, {k}t)""",
}


def model_of(names: list[str], dims: str) -> onnx.ModelProto:
    lines: list[str] = []
    current = "x"
    for index, name in enumerate(names):
        lines.append(BLOCKS[name].format(x=current, y=f"v{index}", k=f"k{index}"))
        current = f"v{index}"
    body = "\n".join([*lines, f"y = Abs({current})"])
    head = '<ir_version: 9, opset_import: ["" : 17]>\n'
    return onnx.parser.parse_model(f"{head}g (float{dims} x) => (float[A,B,C,D] y) {{ {body} }}")


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=7),
    st.sampled_from(["[N,4,H,W]", "[N,4,?,?]", "[2,4,H,H]", "[1,4,6,9]"]),
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
)
def test_every_dim_is_what_the_run_gives(names: list[str], dims: str, n: int, h: int, w: int) -> None:
    assume(sum(names.count(name) for name in ("halve", "focus", "window")) <= 2)  # no axis shrinks to nothing
    shape = {"[N,4,H,W]": (n, 4, h, w), "[N,4,?,?]": (n, 4, h, w), "[2,4,H,H]": (2, 4, h, h)}.get(
        dims, (1, 4, 6, 9)
    )
    sizes = {"N": n, "H": h, "W": w} | ({"?x.2": h, "?x.3": w} if "?" in dims else {})
    proto = model_of(names, dims)
    stale = helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1, 2, 3])
    proto.graph.value_info.append(stale)
    model = check(proto, {"x": np.zeros(shape, np.float32)}, sizes)
    assert all(dims_of(v) is not None for node in model.graph for v in node.outputs)
    if "?" not in dims and "halve" not in names:  # that W//4 <= W//2 takes a proof we do not have
        found = [d for node in model.graph for v in node.outputs for d in dims_of(v) or ()]
        assert not [d for d in found if str(d).startswith("?")]


@pytest.mark.parametrize("path", zoo_models())
def test_real_models_have_every_shape(path: Path) -> None:
    feed = zoo_feed(path)
    sizes: dict[str, int] = {}
    for value in load(path).graph.inputs:
        array = feed.get(value.name or "")
        for dim, size in zip(dims_of(value) or (), () if array is None else array.shape, strict=False):
            sizes.setdefault(str(dim), size)
    model = check(onnx.load(path), feed, sizes)
    for node in model.graph:
        for value in node.outputs:
            found = dims_of(value)
            assert found is not None
            assert not [d for d in found if d is None or str(d).startswith("?")]
