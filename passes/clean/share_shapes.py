# SPDX-License-Identifier: Apache-2.0
"""Sharing of shape arithmetic that is known to give the same numbers."""

from __future__ import annotations

from typing import ClassVar

from ...analysis.shapes import DATA, symbolic_data
from ...graph_ir import DataType, Graph, Model, Rewriter, Value
from ...graph_ir.ops import STANDARD_DOMAINS
from ..base import Context, Exactness, Pass

_Contents = tuple[DataType, int, tuple[int | str | None, ...]]


class ShareShapes(Pass):
    """Compute each shape once: readers of an integer tensor read the first one of equal contents.

    Contents are equal when every element is the same number, dimension of the signature, or polynomial of
    such, however it was computed and of whatever tensor: a decoder that asks each layer's cache for its
    length asks once, and the test for -1 before an Expand goes. Needs infer-shapes. Not valid for elements
    that are not known; outputs of the graph keep their own nodes. Bodies share within themselves only.
    """

    name: ClassVar[str] = "share-shapes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        for graph in rewriter.graphs():
            ctx.counters[self.name] += _share(graph, rewriter)
        return rewriter.edits > 0


def _share(graph: Graph, rewriter: Rewriter) -> int:
    first: dict[_Contents, Value] = {}
    shared = 0
    for node in graph:
        if node.domain not in STANDARD_DOMAINS or node.op_type == "Constant":
            continue
        for output in node.outputs:
            contents = _contents(output)
            if contents is None:
                continue
            known = first.setdefault(contents, output)
            if known is output or not output.uses() or output.is_graph_output():
                continue
            if rewriter.allowed(ShareShapes.name, node):
                rewriter.replace(output, known)
                shared += 1
    return shared


def _contents(value: Value) -> _Contents | None:
    """What the value holds, if all of it is known and some of it by name."""
    if DATA not in value.meta.data or value.shape is None or value.dtype is None:
        return None
    data = symbolic_data(value)
    if data is None or None in data or all(isinstance(element, int) for element in data):
        return None
    return value.dtype, len(value.shape), data
