# SPDX-License-Identifier: Apache-2.0
"""Axes, constant operands and opsets, as operators give them."""

from __future__ import annotations

import pytest

from tersor.graph_ir import parse
from tersor.graph_ir.ops import from_front, ints_at, is_read, opset_in, opset_of


@pytest.mark.parametrize(
    ("axes", "rank", "found"),
    [
        ([0, -1], 3, [0, 2]),
        ([], 0, []),
        ([3], 3, None),
        ([-4], 3, None),
        ([1, -2], 3, None),  # the same axis twice
        ([0], 0, None),
        (None, 3, None),
    ],
)
def test_axes_are_counted_from_the_front(axes: list[int] | None, rank: int, found: list[int] | None) -> None:
    assert from_front(axes, rank) == found


def test_only_constant_integers_of_at_most_one_axis_are_a_list() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x, int64[2] free) => (float[2,3] y)
        <int64[2] list = {-1, 4}, int64 one = {7}, int64[1,1] table = {1}, float[1] real = {1},
         int64[2] free = {0, 0}>
        { y = f.Op(x, list, one, table, real, free) }"""
    )
    node = model.graph[0]
    assert [ints_at(node, index) for index in range(7)] == [None, [-1, 4], [7], None, None, None, None]


def test_what_a_node_or_the_caller_takes_is_read() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[2] b) { a, b = Split<axis=0>(x) }"""
    )
    a, b = model.graph[0].outputs
    assert (is_read(model.graph.inputs[0]), is_read(a), is_read(b)) == (True, False, True)


@pytest.mark.parametrize("name", ["", "ai.onnx"])
def test_an_opset_is_found_by_either_name_of_its_domain(name: str) -> None:
    model = parse(
        f'<ir_version: 8, opset_import: ["{name}" : 17]> g (float[4] x) => (float[4] y) {{ y = Abs(x) }}'
    )
    assert opset_of(model) == opset_in({name: 17, "f": 3}, "ai.onnx") == 17
    assert (opset_in({name: 17, "f": 3}, "f"), opset_in({name: 17}, "f")) == (3, 0)
