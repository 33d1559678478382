# SPDX-License-Identifier: Apache-2.0
"""Common subexpression elimination."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Attr, AttributeType, Graph, Model, Node, Rewriter
from ...graph_ir.ops import has_reference_attribute, is_pure, subgraphs
from ..base import Context, Exactness, Pass

Key = tuple[object, ...]
Form = tuple[object, ...]  # operator and inputs
_LARGE_ATTRIBUTE_BYTES = 1 << 20


class EliminateCommonSubexpressions(Pass):
    """Compute equal expressions once: same operator, attributes, inputs, in the same or an enclosing graph.

    Random operators, nodes with bodies and unknown domains are never merged. Two graph outputs keep two
    producers.
    """

    name: ClassVar[str] = "cse"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        merged = _merge(model.graph, _Seen(), rewriter)
        for function in model.functions.values():
            merged += _merge(function.graph, _Seen(), rewriter)
        ctx.counters["merged"] += merged
        return merged > 0


class _Seen:
    """What enclosing graphs and this one computed before this point.

    Attributes, which are slow to ask for, are only looked at where operator and inputs agree.
    """

    def __init__(self) -> None:
        self._first: dict[Form, Node] = {}
        self._equal: dict[Key, Node] = {}  # of nodes that are not the only ones of their form
        self._keys: dict[Node, Key | None] = {}

    def find(self, form: Form, node: Node) -> Node | None:
        """An earlier node that computes the same; without one, this node is kept for later ones."""
        first = self._first.setdefault(form, node)
        if first is node:
            return None
        if first not in self._keys:
            self._keep(first)
        return self._keep(node)

    def _keep(self, node: Node) -> Node | None:
        key = self._keys[node] = _key(node)
        found = node if key is None else self._equal.setdefault(key, node)
        return None if found is node else found

    def forget(self, form: Form, node: Node) -> None:
        """Let go of a node of a body that ends."""
        if self._first.get(form) is node:
            del self._first[form]
        key = self._keys.pop(node, None)
        if key is not None and self._equal.get(key) is node:
            del self._equal[key]


def _merge(graph: Graph, seen: _Seen, rewriter: Rewriter) -> int:
    """Merge within a graph, given what enclosing graphs computed before this point."""
    merged = 0
    added: list[tuple[Form, Node]] = []
    for node in graph:
        for body in subgraphs(node):
            merged += _merge(body, seen, rewriter)
        form = (node.op_type, *node.inputs)
        first = seen.find(form, node)
        if first is None:
            added.append((form, node))
        elif _can_merge(node, first, rewriter) and rewriter.allowed("cse", node):
            with rewriter.standing_for([node]):
                for old, new in zip(node.outputs, first.outputs, strict=True):
                    rewriter.replace(old, new)
                rewriter.erase(node)
            merged += 1
    for form, node in added:
        seen.forget(form, node)
    return merged


def _can_merge(node: Node, first: Node, rewriter: Rewriter) -> bool:
    return all(
        not old.is_graph_output() or rewriter.can_take_output(old, new)
        for old, new in zip(node.outputs, first.outputs, strict=True)
    )


def _key(node: Node) -> Key | None:
    if not is_pure(node) or has_reference_attribute(node):
        return None
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
