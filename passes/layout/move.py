# SPDX-License-Identifier: Apache-2.0
"""Moving a region: its nodes are made anew in the layout before the permutation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...graph_ir import INFERRED, Node, Rewriter, Shape, Value, constant
from ...graph_ir.ops import is_op, is_read
from .borders import Region
from .carry import Plan
from .perms import Perm, back_array, inverse, is_identity, perm_of, then


def move(region: Region, order: dict[Node, int], rw: Rewriter) -> None:
    """Make the region's nodes in the layout before the permutation, with Transposes where others read them.

    Args:
        region: connected nodes of one graph.
        order: places of the graph's nodes; a new node gets that of the node it is put before.
        rw: the door.
    """
    _Move(region, order, rw).run()


class _Move:
    def __init__(self, region: Region, order: dict[Node, int], rw: Rewriter) -> None:
        self.region, self.order, self.rw = region, order, rw
        self.moved: dict[Value, Value] = {}  # by value, the one before the permutation
        self.sources: dict[Node, None] = {}
        self.constants: dict[tuple[Value, Perm], Value] = {}

    def run(self) -> None:
        nodes = sorted(self.region, key=self.order.__getitem__)
        for node in nodes:
            found = self.region[node]
            with self.rw.standing_for([node]):
                made = self._make(node, found)
                for old, new, perm in zip(node.outputs, made.outputs, found.outs, strict=True):
                    _describe(new, old, perm)
                    self._hand_over(node, old, new, perm)
        self.rw.erase_all(list(reversed(nodes)))
        for source in self.sources:
            output = source.outputs[0]
            if source.graph is not None and not is_read(output):
                self.rw.erase(source)

    def _node(
        self, op_type: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any], before: Node
    ) -> Value:
        made = self.rw.node(op_type, inputs, attributes, before=before)
        self.order[made] = self.order[before]
        return made.outputs[0]

    def _transpose(self, x: Value, perm: Perm, before: Node) -> Value:
        return self._node("Transpose", [x], {"perm": list(perm)}, before)

    def _make(self, node: Node, found: Plan) -> Node:
        inputs = [self._operand(node, i, value, found) for i, value in enumerate(node.inputs)]
        for i, array in found.operands.items():
            inputs += [None] * (i + 1 - len(inputs))
            inputs[i] = self.rw.constant(array, f"{node.outputs[0].name}_operand", node)
        made = self.rw.node(
            node.op_type,
            inputs,
            [a for name, a in node.attributes.items() if name not in found.attributes],
            before=node,
            domain=node.domain,
            outputs=len(node.outputs),
        )
        self.order[made] = self.order[node]
        for name, value in found.attributes.items():
            self.rw.set_attribute(made, name, value)
        return made

    def _operand(self, node: Node, index: int, value: Value | None, found: Plan) -> Value | None:
        if value is None or index in found.operands:
            return None
        if index in found.moved:
            return self._before(value, found.perm, node)
        if index in found.turned:
            key = (value, found.perm)
            if key not in self.constants:
                array = constant(value)
                assert array is not None
                turned = back_array(found.perm, array)
                self.constants[key] = self.rw.constant(turned, f"{value.name}_moved", node)
            return self.constants[key]
        if index in found.stretched:
            return self._stretched(value, found.stretched[index], node)
        return value

    def _stretched(self, value: Value, axes: tuple[int, ...], node: Node) -> Value:
        if self.rw.opset(node) < 13:
            new = self._node("Unsqueeze", [value], {"axes": list(axes)}, node)
        else:
            operand = self.rw.constant(np.array(axes, np.int64), f"{value.name}_axes", node)
            new = self._node("Unsqueeze", [value, operand], {}, node)
        new.type = value.type
        if value.shape is not None:
            given = iter(value.shape)
            extent = len(value.shape) + len(axes)
            new.shape = Shape([1 if i in axes else next(given) for i in range(extent)])
        new.meta[INFERRED] = True
        return new

    def _before(self, value: Value, perm: Perm, node: Node) -> Value:
        """The x with Transpose_perm(x) = value, for a node that reads it."""
        found = self.moved.get(value)
        if found is not None:
            return found
        back = inverse(perm)
        source = value.producer()
        given = perm_of(source)
        x: Value | None = value
        if source is not None and given is not None:
            self.sources[source] = None
            x, back = source.inputs[0], then(given, back)
        if x is None or not is_identity(back):
            x = self._turned_back(value, x or value, perm, back, node)
        self.moved[value] = x
        return x

    def _turned_back(self, value: Value, x: Value, perm: Perm, back: Perm, node: Node) -> Value:
        """One Transpose for it: the one there is, if it comes early enough, or a new one in its place."""
        undo = inverse(perm)
        twins = [u for u, _ in value.uses() if u.graph is node.graph and perm_of(u) == undo]
        place = self.order[node]
        for twin in twins:
            if self.order[twin] <= place:
                return twin.outputs[0]
        new = self._transpose(x, back, node)
        _describe(new, value, perm)
        for twin in twins:
            self._replace_transpose(twin, new)
        return new

    def _hand_over(self, node: Node, old: Value, new: Value, perm: Perm) -> None:
        """Give every reader outside the region what it needs of a moved result."""
        self.moved[old] = new
        if is_identity(perm):
            self.rw.replace(old, new)
            return
        rest = old.is_graph_output()
        for user, index in list(old.uses()):
            q = perm_of(user) if user.graph is node.graph else None
            if q is not None:
                both = then(perm, q)
                if is_identity(both):
                    self._replace_transpose(user, new)
                else:
                    self._replace_transpose(user, self._transpose(new, both, node))
            elif user.graph is node.graph and is_op(user, "Shape"):
                self._replace_shape(user, new, perm)
            else:
                inside = self.region.get(user)
                rest = rest or inside is None or index not in inside.moved
        if rest:
            out = self._transpose(new, perm, node)
            self.rw.replace(old, out)
            self.moved[out] = new

    def _replace_transpose(self, user: Node, new: Value) -> None:
        self.rw.replace(user.outputs[0], new)
        self.rw.erase(user)

    def _replace_shape(self, user: Node, new: Value, perm: Perm) -> None:
        """Shape(Transpose_p(x)) = Gather(Shape(x), p), for the part of p that start and end leave."""
        attributes = {a.name: a.as_int() for a in user.attributes.values()}
        part = perm[attributes.get("start", 0) : attributes.get("end", len(perm))]
        with self.rw.standing_for([user]):
            shape = self._node("Shape", [new], {}, user)
            places = self.rw.constant(np.array(part, np.int64), f"{user.outputs[0].name}_perm", user)
            taken = self._node("Gather", [shape, places], {"axis": 0}, user)
            self.rw.replace(user.outputs[0], taken)
        self.rw.erase(user)


def _describe(new: Value, old: Value, perm: Perm) -> None:
    """The type and shape of what Transpose_perm makes `old` of."""
    new.type = old.type
    if old.shape is not None and len(old.shape) == len(perm):
        given = list(old.shape)
        new.shape = Shape([given[i] for i in inverse(perm)])
    new.meta[INFERRED] = True
