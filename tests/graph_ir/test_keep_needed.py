# SPDX-License-Identifier: Apache-2.0
"""Only what the outputs need stays: nodes, weights, what bodies read from outside."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from tersor.graph_ir.extract import keep_needed

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, bool c) => (float[2] y, float[2] z)
<float[2] W = {1, 2}, float[2] V = {3, 4}, float[2] U = {5, 6}>
{
    a = Add(x, W)
    b = Mul(x, V)
    y = Relu(a)
    z = If(c) <
        then_branch = t () => (float[2] p) { p = Neg(b) },
        else_branch = e () => (float[2] q) { q = Add(U, U) }
    >
}
"""


@pytest.mark.parametrize(
    ("output", "nodes", "weights"),
    [("y", ["Add", "Relu"], {"W"}), ("z", ["Mul", "If"], {"V", "U"}), ("b", ["Mul"], {"V"})],
)
def test_only_what_is_needed_stays(output: str, nodes: list[str], weights: set[str]) -> None:
    graph = onnx.parser.parse_model(TEXT).graph
    del graph.output[:]
    graph.output.add(name=output)
    keep_needed(graph)
    assert [node.op_type for node in graph.node] == nodes
    assert {tensor.name for tensor in graph.initializer} == weights
    assert [value.name for value in graph.input] == ["x", "c"]


def test_a_graph_without_waste_is_left_as_it_is() -> None:
    model = onnx.parser.parse_model(TEXT)
    before = model.SerializeToString()
    keep_needed(model.graph)
    assert model.SerializeToString() == before
