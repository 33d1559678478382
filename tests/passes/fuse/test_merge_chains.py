# SPDX-License-Identifier: Apache-2.0
"""Random chains: whatever is merged, the bits stay, and the merged chain is no longer than the old one."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tersor.graph_ir import from_proto, to_proto, verify
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context
from tersor.passes.fuse.merge_clip import MergeClips
from tersor.passes.fuse.merge_reshape import MergeReshapes
from tersor.passes.fuse.merge_transpose import MergeTransposes
from tests.support.numerics import assert_bitwise

SHAPES = ((2, 3, 4), (1, 6, 1, 2), (4, 1), (1, 1), (5,), (2, 0, 3))
HOSTILE = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, -1e-42, 3.4e38, 0.5, 1, 2, -1, 6.5], np.float32
)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A chain of shape operators on a tensor of which some dimensions are symbols, and its real shape."""
    shape = list(draw(st.sampled_from(SHAPES)))
    start = tuple(shape)
    named = [f"D{i}" if draw(st.booleans()) else d for i, d in enumerate(shape)]
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for i in range(draw(st.integers(2, 5))):
        before, after = f"t{i}", f"t{i + 1}"
        kind = draw(st.sampled_from(["Reshape", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"]))
        operand: list[int] | None = None
        if kind == "Reshape":
            operand, shape = _target(draw, shape)
        elif kind == "Flatten":
            axis = draw(st.integers(-len(shape), len(shape)))
            nodes.append(helper.make_node(kind, [before], [after], axis=axis))
            place = axis + len(shape) if axis < 0 else axis
            shape = [prod(shape[:place]), prod(shape[place:])]
            continue
        elif kind == "Transpose":
            perm = draw(st.permutations(range(len(shape))))
            # onnx cannot tell the type of an empty list
            attributes: dict[str, Any] = {"perm": perm} if perm else {}
            nodes.append(helper.make_node(kind, [before], [after], **attributes))
            shape = [shape[p] for p in perm]
            continue
        elif kind == "Squeeze" and 1 in shape:
            ones = [j for j, d in enumerate(shape) if d == 1]
            operand = draw(st.lists(st.sampled_from(ones), min_size=1, unique=True))
            shape = [d for j, d in enumerate(shape) if j not in operand]
        else:
            kind = "Unsqueeze"
            place = draw(st.integers(0, len(shape)))
            operand = [place - len(shape) - 1 if draw(st.booleans()) else place]
            shape = [*shape[:place], 1, *shape[place:]]
        weights.append(numpy_helper.from_array(np.array(operand, np.int64), f"o{i}"))
        nodes.append(helper.make_node(kind, [before, f"o{i}"], [after]))
    x = helper.make_tensor_value_info("t0", TensorProto.FLOAT, named)
    free = [f"R{i}" for i in range(len(shape))]
    y = helper.make_tensor_value_info(f"t{len(nodes)}", TensorProto.FLOAT, free)
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), start


def _target(draw: st.DrawFn, shape: list[int]) -> tuple[list[int], list[int]]:
    """A Reshape operand with 0 and -1 where they are allowed, and the shape it gives."""
    after = list(draw(st.permutations(shape)))
    if len(after) > 1 and draw(st.booleans()):
        after = [after[0] * after[1], *after[2:]]
    if draw(st.booleans()):
        after.insert(draw(st.integers(0, len(after))), 1)
    copies = [i for i, d in enumerate(after) if i < len(shape) and shape[i] == d]
    operand = list(after)
    for i in copies:
        if after[i] == 0 or draw(st.booleans()):
            operand[i] = 0
    if 0 in after:
        if any(d == 0 and i not in copies for i, d in enumerate(after)):
            return [0] * len(shape), list(shape)  # a 0 elsewhere cannot be written without allowzero
    elif after and draw(st.booleans()):
        operand[draw(st.integers(0, len(after) - 1))] = -1
    return operand, after


@settings(max_examples=150, deadline=None, derandomize=True)
@given(reshapes())
def test_chains_of_shape_operators(case: tuple[onnx.ModelProto, tuple[int, ...]]) -> None:
    before, shape = case
    model = from_proto(before)
    for _ in range(2):
        MergeTransposes().run(model, Context())
        verify(model)
        MergeReshapes().run(model, Context())
        verify(model)
    assert len(list(walk_nodes(model))) <= len(before.graph.node)
    x = np.arange(prod(shape), dtype=np.float32).reshape(shape)
    assert_bitwise(before, to_proto(model), {"t0": x})


BOUND = st.sampled_from([None, -2.0, -1.0, 0.0, 0.5, 1.0, 6.0])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.just("Relu"), st.tuples(BOUND, BOUND)), min_size=2, max_size=5))
def test_chains_of_clamps(chain: list[str | tuple[float | None, float | None]]) -> None:
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for i, link in enumerate(chain):
        inputs = [f"t{i}"]
        for name, bound in zip("lh", () if isinstance(link, str) else link, strict=False):
            inputs.append("" if bound is None else f"{name}{i}")
            if bound is not None:
                weights.append(numpy_helper.from_array(np.array(bound, np.float32), f"{name}{i}"))
        nodes.append(helper.make_node("Relu" if link == "Relu" else "Clip", inputs, [f"t{i + 1}"]))
    ports = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, ["N"]) for i in (0, len(chain))]
    graph = helper.make_graph(nodes, "chain", [ports[0]], [ports[1]], weights)
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = from_proto(before)
    MergeClips().run(model, Context())
    verify(model)
    ends = [c for c in chain if not isinstance(c, str)]
    hard = any(not isinstance(c, str) and None not in c and (c[0] or 0) > (c[1] or 0) for c in chain)
    hard = hard or any((low or 0) > 0 or (high or 0) < 0 for low, high in ends)  # -0 may be in the way
    assert hard or len(list(walk_nodes(model))) == 1
    assert_bitwise(before, to_proto(model), [{"t0": HOSTILE}, {"t0": np.resize(HOSTILE, 64)}])
