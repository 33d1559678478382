# SPDX-License-Identifier: Apache-2.0
"""Initializer deduplication."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import DataType, Model, Rewriter, Value
from ..base import Context, Exactness, Pass

_HEAD_ELEMENTS = 64
_DIGEST_BYTES = 64


class DeduplicateWeights(Pass):
    """Store weights of equal type, shape and bits once.

    Weights a caller may override, weights that are outputs, and the statistics of a BatchNormalization that
    trains (onnxruntime updates them in place) are left alone. Data is only read where two weights agree in
    type and shape.
    """

    name: ClassVar[str] = "dedup-weights"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        by_form: dict[tuple[DataType, tuple[object, ...]], list[Value]] = {}
        for graph in rewriter.graphs_within(model.graph):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or value.is_graph_input() or value.is_graph_output():
                    continue
                # The value repeats what its tensor holds (the verifier sees to that), and answers faster.
                dtype = tensor.dtype if value.dtype is None else value.dtype
                shape = tensor.shape if value.shape is None else value.shape
                if dtype != DataType.STRING:
                    by_form.setdefault((dtype, tuple(shape.dims)), []).append(value)
        for values in by_form.values():
            for alike in _alike(values):
                ctx.counters["shared"] += _share(alike, model, rewriter)
        return rewriter.edits > 0


def _alike(values: list[Value]) -> list[list[Value]]:
    """Groups of two and more that begin with the same elements; large weights mostly part here, unread."""
    if len(values) == 1:
        return []
    groups: dict[bytes, list[Value]] = {}
    for value in values:
        if value.const_value is not None and not _updated(value):
            head = value.const_value.numpy().reshape(-1)[:_HEAD_ELEMENTS].tobytes()
            groups.setdefault(head, []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def _updated(value: Value) -> bool:
    return any(
        index in (3, 4) and node.op_type == "BatchNormalization" and len(node.outputs) > 1
        for node, index in value.uses()
    )


def _share(values: list[Value], model: Model, rewriter: Rewriter) -> int:
    first: dict[bytes, Value] = {}
    shared = 0
    for value in values:
        tensor = value.const_value
        if tensor is None:
            continue
        data = tensor.tobytes()
        key = data if len(data) <= _DIGEST_BYTES else _digest(data)
        kept = first.setdefault(key, value)
        # A weight of one body is not visible in another; only those of the main graph are seen everywhere.
        if kept is not value and kept.graph is model.graph:
            rewriter.replace(value, kept)
            rewriter.drop_initializer(value)
            shared += 1
    return shared


def _digest(data: bytes) -> bytes:
    from hashlib import blake2b  # slow to load, and weights shared by chance are mostly short

    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
