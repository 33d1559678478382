# SPDX-License-Identifier: Apache-2.0
"""Makes nodes compute in another float type, with one Cast where a value passes between the types."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from ...graph_ir import Attr, DataType, Node, Rewriter, TensorType, Value, constant, is_constant
from ...graph_ir.ops import is_op, is_read
from .choice import convertible

_TITLES = {DataType.FLOAT: "float", DataType.DOUBLE: "double"}


class Converter:
    """Converts nodes of the main graph.

    Args:
        rewriter: of the model.
        dtype: what they compute in from now on.
        sources: the types that become it.
    """

    def __init__(self, rewriter: Rewriter, dtype: DataType, sources: Collection[DataType]) -> None:
        self.rw, self.dtype, self.sources = rewriter, dtype, sources
        self._made: dict[Value, Value] = {}  # values of the sources' types in the new one

    def run(self, nodes: Sequence[Node]) -> None:
        """Make the new nodes in graph order; then take the old ones out, last first."""
        made = [self._node(node) for node in nodes]
        for node, outputs in zip(reversed(nodes), reversed(made), strict=True):
            with self.rw.standing_for([node]):
                for old, new in zip(node.outputs, outputs, strict=False):
                    self._hand_on(old, new, node)
                self.rw.erase(node)

    def _node(self, node: Node) -> list[Value]:
        if is_op(node, "Cast"):
            return [self._recast(node)]
        picked, kept = convertible(node, self.rw.opset(node), self.dtype, self.sources)
        inputs = list(node.inputs)
        count = 1 + max(i for i, o in enumerate(node.outputs) if o.name)
        with self.rw.standing_for([node]):
            for index in picked:
                value = inputs[index]
                assert value is not None
                inputs[index] = self._converted(value, node)
            attributes, title = list(node.attributes.values()), node.name or node.op_type
            made = self.rw.node(
                node.op_type, inputs, attributes, before=node, name=title, outputs=count, domain=node.domain
            )
        for index, (old, new) in enumerate(zip(node.outputs, made.outputs, strict=False)):
            new.shape = old.shape
            new.type = TensorType(self.dtype) if index in kept else old.type
            if index in kept:
                self._made[old] = new
        return list(made.outputs)

    def _recast(self, node: Node) -> Value:
        """What a Cast from or to one of the sources gives; nothing is rounded to a source in between."""
        value, old = node.inputs[0], node.outputs[0]
        assert value is not None
        assert old.dtype is not None
        with self.rw.standing_for([node]):
            new = self._converted(value, node) if value.dtype in self.sources else value
            wanted = self.dtype if old.dtype in self.sources else old.dtype
            if new.dtype != wanted:
                # Its own attributes tell how values are brought into range.
                own = node.attributes.values() if wanted == old.dtype else ()
                new = self._cast(new, wanted, f"{old.name}_{_title(wanted)}", node, own)
        if old.dtype in self.sources:
            self._made[old] = new
        return new

    def _converted(self, value: Value, near: Node) -> Value:
        """The new form of what a node reads: a constant rounded here, else one Cast for all readers."""
        if value not in self._made:
            name = f"{value.name}_{_title(self.dtype)}"
            if is_constant(value):
                array = constant(value)
                assert array is not None
                data = np.asarray(array.astype(self.dtype.numpy()))
                self._made[value] = self.rw.constant(data, name, near)
            else:
                self._made[value] = self._cast(value, self.dtype, name, near)
        return self._made[value]

    def _hand_on(self, old: Value, new: Value, node: Node) -> None:
        if not is_read(old):
            return
        if old.dtype is not None and new.dtype != old.dtype:
            new = self._cast(new, old.dtype, f"{old.name}_{_title(old.dtype)}", node)
        self.rw.replace(old, new)

    def _cast(
        self, value: Value, dtype: DataType, name: str, near: Node, attributes: Iterable[Attr] = ()
    ) -> Value:
        given = list(attributes) or {"to": int(dtype)}
        out = self.rw.node("Cast", [value], given, before=near, name=name).outputs[0]
        out.type, out.shape = TensorType(dtype), value.shape
        return out


def _title(dtype: DataType) -> str:
    return _TITLES.get(
        dtype, "half" if dtype in (DataType.FLOAT16, DataType.BFLOAT16) else dtype.name.lower()
    )
