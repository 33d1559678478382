# SPDX-License-Identifier: Apache-2.0
"""Common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph_ir import Attr, AttributeType, Graph, Model, Node, Rewriter
from ...graph_ir.ops import has_reference_attribute, is_pure, subgraphs
from ..base import Context, Exactness, Pass

Key = tuple[object, ...]
_LARGE_ATTRIBUTE_BYTES = 1 << 20


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Compute equal expressions once: same operator, attributes, inputs, in the same or an enclosing graph.

    Random operators, nodes with bodies and unknown domains are never merged. Two graph outputs keep two
    producers.
    """

    name: ClassVar[str] = "cse"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        merged = _merge(model.graph, {}, rewriter)
        for function in model.functions.values():
            merged += _merge(function.graph, {}, rewriter)
        ctx.counters["merged"] += merged
        return merged > 0


def _merge(graph: Graph, seen: dict[Key, Node], rewriter: Rewriter) -> int:
    """Merge within a graph, given what enclosing graphs computed before this point."""
    merged = 0
    added: list[Key] = []
    for node in graph:
        for body in subgraphs(node):
            merged += _merge(body, seen, rewriter)
        if not is_pure(node) or has_reference_attribute(node):
            continue
        key = _key(node)
        if key is None:
            continue
        first = seen.get(key)
        if first is None:
            seen[key] = node
            added.append(key)
        elif _can_merge(node, first, rewriter) and rewriter.allowed("cse", node):
            with rewriter.standing_for([node]):
                for old, new in zip(node.outputs, first.outputs, strict=True):
                    rewriter.replace(old, new)
                rewriter.erase(node)
            merged += 1
    for key in added:
        del seen[key]
    return merged


def _can_merge(node: Node, first: Node, rewriter: Rewriter) -> bool:
    return all(
        not old.is_graph_output() or rewriter.can_take_output(old, new)
        for old, new in zip(node.outputs, first.outputs, strict=True)
    )


def _key(node: Node) -> Key | None:
    attributes: list[object] = []
    for name in sorted(node.attributes):
        value = _attribute_key(node.attributes[name])
        if value is None:
            return None
        attributes.append((name, value))
    used = tuple(bool(o.name) for o in node.outputs)
    return (node.op_type, tuple(node.inputs), tuple(attributes), used)


def _attribute_key(attr: Attr) -> object | None:
    if attr.type == AttributeType.TENSOR:
        tensor = attr.as_tensor()
        if tensor.nbytes > _LARGE_ATTRIBUTE_BYTES:
            return None
        data = tuple(tensor.numpy().reshape(-1).tolist()) if tensor.dtype.is_string() else tensor.tobytes()
        return (tensor.dtype, tuple(tensor.shape.numpy()), data)
    if attr.type in (AttributeType.FLOAT, AttributeType.FLOATS):
        # repr tells -0.0 from 0.0 and makes NaN equal to itself
        return (attr.type, repr(attr.value))
    if attr.type in (AttributeType.INT, AttributeType.STRING):
        return (attr.type, attr.value)
    if attr.type in (AttributeType.INTS, AttributeType.STRINGS):
        return (attr.type, tuple(attr.value))
    return None
