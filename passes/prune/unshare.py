# SPDX-License-Identifier: Apache-2.0
"""Vectors of their own for all who read one, so that sharing them ties no channels together."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import constant_tensor, is_op
from ..base import Context, Exactness, Pass

_SIZES = frozenset({DataType.INT64, DataType.STRING, DataType.BOOL})  # of shapes and choices, not of channels


class UnshareVectors(Pass):
    """Give every reader of a shared vector (a bias, a scale) a copy of its own.

    Exporters and `dedup-weights` store equal weights once. Layers that happen to have equal biases, all zero
    say, could then only lose the same channels. A vector is a constant with one axis longer than 1; matrices
    and filters stay shared, for two copies of one would not be smaller. What a body or another graph reads,
    and text, sizes and truth values, are left alone. The copies share their data until one of them is cut.
    """

    name: ClassVar[str] = "unshare-vectors"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        made = [node.outputs[0] for node in model.graph if is_op(node, "Constant")]
        for value in (*model.graph.initializers.values(), *made):
            if _is_vector(value):
                ctx.counters["copies"] += _unshare(value, model, rewriter)
        return rewriter.edits > 0


def _is_vector(value: Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype in _SIZES or value.is_graph_output():
        return False
    sizes = tensor.shape.numpy()
    return prod(sizes) > 1 and max(sizes) == prod(sizes)


def _unshare(value: Value, model: Model, rewriter: Rewriter) -> int:
    readers: dict[Node, list[int]] = {}
    for node, index in value.uses():
        if node.graph is model.graph:
            readers.setdefault(node, []).append(index)
    # The first keeps the vector, unless others that cannot have a copy read it, too.
    everywhere = len(readers) == len({node for node, _ in value.uses()})
    tensor = constant_tensor(value)
    assert tensor is not None
    others = list(readers.items())[1 if everywhere else 0 :]
    for node, indices in others:
        copy = rewriter.constant(tensor, value.name or "vector", near=node)
        for index in indices:
            rewriter.set_input(node, index, copy)
    return len(others)
