# SPDX-License-Identifier: Apache-2.0
"""Random channel-last graphs: the bits stay, and there are never more Transposes than before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tersor.graph_ir import from_proto, signature_of, to_proto, verify
from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout.sink_transpose import SinkTransposes
from tests.support.layouts import transposes
from tests.support.numerics import assert_bitwise

PERMS = [[0, 2, 3, 1], [0, 3, 1, 2], [0, 2, 3, 1], [0, 3, 1, 2], [3, 1, 0, 2], [0, 1, 3, 2]]
START = (2, 3, 4, 5)


@dataclass
class Graph:
    """A graph under construction: every value with its shape."""

    draw: st.DrawFn
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"x": START, "z": START})
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    weights: list[onnx.TensorProto] = field(default_factory=list[onnx.TensorProto])
    other: list[str] = field(default_factory=list[str])

    def weight(self, array: Any, dtype: Any = np.int64) -> str:
        name = f"w{len(self.weights)}"
        data: NDArray[Any] = np.asarray(array, dtype)
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def make(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.shapes[name] = shape
        return name

    def integers(self, op: str, value: str, **attributes: Any) -> None:
        name = f"i{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [value], [name], **attributes))
        self.other.append(name)

    def transpose(self, value: str, perm: list[int]) -> str:
        shape = self.shapes[value]
        return self.make("Transpose", [value], tuple(shape[i] for i in perm), perm=perm)

    def full(self) -> list[str]:
        return [name for name, shape in self.shapes.items() if len(shape) == 4]

    def step(self) -> None:
        """One more operator on a value drawn from all there are."""
        value = self.draw(st.sampled_from(self.full()))
        kind = self.draw(st.integers(0, 9))
        if kind < 3:
            self.transpose(value, self.draw(st.sampled_from(PERMS)))
        elif kind < 6:
            self.elementwise(value)
        elif kind < 7:
            self.integer_result(value)
        else:
            self.along_one_axis(value)

    def elementwise(self, value: str) -> None:
        shape = self.shapes[value]
        kind = self.draw(st.sampled_from(["Neg", "Abs", "Add", "Max", "Constant", "LowerRank", "MaxPool"]))
        if kind in ("Neg", "Abs"):
            self.make(kind, [value], shape)
        elif kind in ("Add", "Max"):
            same = [n for n in self.full() if self.shapes[n] == shape]
            self.make(kind, [value, self.draw(st.sampled_from(same))], shape)
        elif kind == "Constant":
            kept = [d if self.draw(st.booleans()) else 1 for d in shape][self.draw(st.integers(0, 3)) :]
            operands = [value, self.weight(self.numbers(kept), np.float32)]
            self.make("Mul", operands if self.draw(st.booleans()) else operands[::-1], shape)
        elif kind == "LowerRank":
            self.make("Add", [value, self.lower(shape)], shape)
        else:
            self.make(kind, [value], shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def integer_result(self, value: str) -> None:
        if self.draw(st.booleans()):
            self.integers("Shape", value)
        else:
            axis, keep = self.draw(st.integers(-4, 3)), self.draw(st.integers(0, 1))
            self.integers("ArgMax", value, axis=axis, keepdims=keep)

    def along_one_axis(self, value: str) -> None:
        shape, axis = self.shapes[value], self.draw(st.integers(0, 3))
        signed = axis - 4 if self.draw(st.booleans()) else axis
        size = shape[axis]
        here = [int(i == axis) for i in range(4)]

        def resized(new: int) -> tuple[int, ...]:
            return tuple(new if i == axis else d for i, d in enumerate(shape))

        kinds = ["Concat", "Pad", "ReduceMax", "Squeezed", "Gather", "Tile"]
        kind = self.draw(st.sampled_from([*kinds, "Split", "Slice"] if size > 1 else kinds))
        if kind == "Concat":
            self.make(kind, [value, value], resized(2 * size), axis=signed)
        elif kind == "Split":
            names = [f"t{len(self.nodes)}", f"s{len(self.nodes)}"]
            operands = [value, self.weight([1, size - 1])]
            self.nodes.append(helper.make_node(kind, operands, names, axis=signed))
            self.shapes.update(zip(names, (resized(1), resized(size - 1)), strict=True))
        elif kind == "Slice":
            bounds = [self.weight([1]), self.weight([99]), self.weight([signed])]
            self.make(kind, [value, *bounds], resized(size - 1))
        elif kind == "Pad":
            self.make(kind, [value, self.weight([*here, 0, 0, 0, 0])], resized(size + 1))
        elif kind == "ReduceMax":
            self.make(kind, [value], resized(1), axes=[signed])
        elif kind == "Squeezed":
            lower = shape[:axis] + shape[axis + 1 :]
            reduced = self.make("ReduceMax", [value], lower, axes=[signed], keepdims=0)
            self.make("Unsqueeze", [reduced, self.weight([signed])], resized(1))
        elif kind == "Gather":
            self.make(kind, [value, self.weight([size - 1, 0])], resized(2), axis=signed)
        else:
            self.make(kind, [value, self.weight([1 + h for h in here])], resized(2 * size))

    def numbers(self, shape: Sequence[int]) -> NDArray[np.float64]:
        return np.random.default_rng(len(self.nodes)).standard_normal(shape)

    def lower(self, shape: tuple[int, ...]) -> str:
        """A computed value of rank 1 or 2 that broadcasts to the shape."""
        count = self.draw(st.integers(1, 2))
        operand = self.weight(self.numbers(shape[-count:]), np.float32)
        return self.make("Neg", [operand], shape[-count:])


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of up to 14 operators whose unread results, and perhaps some others, are its outputs."""
    graph = Graph(draw)
    for source in ("x", "z"):
        graph.transpose(source, [0, 2, 3, 1])
    for _ in range(draw(st.integers(2, 12))):
        graph.step()
    read = {name for node in graph.nodes for name in node.input}
    made = [name for node in graph.nodes for name in node.output]
    outputs = [name for name in made if name not in read or draw(st.integers(0, 9)) == 0]
    kinds = dict.fromkeys(graph.other, TensorProto.INT64)
    ports = [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs]
    sources = [helper.make_tensor_value_info(n, TensorProto.FLOAT, START) for n in ("x", "z")]
    body = helper.make_graph(graph.nodes, "random", sources, ports, graph.weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(graphs())
def test_random_graphs(before: onnx.ModelProto) -> None:
    model = from_proto(before)
    InferShapes().run(model, Context())
    signature, count = signature_of(model), transposes(model)
    changed = True
    for _ in range(4):
        changed = SinkTransposes().run(model, Context())
        verify(model, signature)
        assert transposes(model) <= count
        count = transposes(model)
        if not changed:
            break
    assert not changed, "it does not come to rest"
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal(START).astype(np.float32) for name in ("x", "z")}
    assert_bitwise(before, to_proto(model), feed)
