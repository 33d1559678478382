# SPDX-License-Identifier: Apache-2.0
"""A residual sum and its layer normalisation, taken apart again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import float_attr, input_at, is_op, is_read, opset_of, walk_nodes
from ..base import Context, Exactness, Pass
from ..opset import opset_blockers, raise_opset

_DOMAIN, _OPERATOR, _SINCE = "com.microsoft", "SkipLayerNormalization", 17
_EPSILON = 1e-12  # when the attribute is left out


@dataclass(frozen=True)
class ExpandSkipLayerNorm(Pass):
    """Write SkipLayerNormalization of com.microsoft as Add and LayerNormalization, from opset 17 on.

    SkipLayerNormalization(x, skip, g, b, c) = LayerNormalization((x + c) + skip, g, b) over the last axis; b
    and c may be left out. The sum, its fourth result, is that of the Adds. Not valid: mean or deviation read,
    which ONNX gives in another form; types other than float; below opset 17.

    onnxruntime's optimizer for transformers writes it. Its CPU kernel takes three to ten times as long as the
    two operators, and it hides the layers before and behind from other passes.

    Attributes:
        raise_opset: raise the opset to 17, if that is safe (`raise-opset`).
    """

    name: ClassVar[str] = "expand-skip-layer-norm"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Expand each; True if anything changed."""
        found = [node for node in walk_nodes(model) if _fits(node) and _allowed(node, self.name, ctx)]
        if not found:
            return False
        rw = ctx.rewriter(model)
        if self.raise_opset and opset_of(model) < _SINCE:
            for reason in opset_blockers(model, _SINCE):
                ctx.note(f"opset {_SINCE} was wanted for LayerNormalization, but {reason}")
            raise_opset(model, rw, _SINCE)
        for node in found:
            if rw.opset(node) < _SINCE:
                ctx.misses[self.name, f"needs opset {_SINCE}"] += 1
                continue
            with rw.standing_for([node]):
                _expand(node, rw)
            ctx.counters[self.name] += 1
        return rw.edits > 0


def _allowed(node: Node, name: str, ctx: Context) -> bool:
    return ctx.allow is None or ctx.allow(name, node)


def _fits(node: Node) -> bool:
    if node.op_type != _OPERATOR or node.domain != _DOMAIN or len(node.inputs) < 3:
        return False
    if None in node.inputs[:3] or any(map(is_read, node.outputs[1:3])):
        return False
    types = {value.dtype for value in (*node.inputs, *node.outputs[:1]) if value is not None}
    return DataType.FLOAT in types and types <= {DataType.FLOAT, None}


def _expand(node: Node, rw: Rewriter) -> None:
    x, skip, bias = node.inputs[0], node.inputs[1], input_at(node, 4)
    if bias is not None:
        # Where it is the bias of a product, it stands right behind it.
        if not is_op(_producer(x), "MatMul") and is_op(_producer(skip), "MatMul"):
            x, skip = skip, x
        x = _add(x, bias, node, rw)
    total = _add(x, skip, node, rw)
    inputs = [total, *node.inputs[2:4]]
    attributes = {"axis": -1, "epsilon": float_attr(node, "epsilon", _EPSILON)}
    name = node.name or ""
    made = rw.node("LayerNormalization", inputs, attributes, before=node, name=name).outputs[0]
    rw.replace(node.outputs[0], made)
    if len(node.outputs) > 3 and is_read(node.outputs[3]):
        rw.replace(node.outputs[3], total)
    rw.erase(node)


def _producer(value: Value | None) -> Node | None:
    return None if value is None else value.producer()


def _add(a: Value | None, b: Value | None, near: Node, rw: Rewriter) -> Value:
    return rw.node("Add", [a, b], before=near, name=f"{near.name}_sum").outputs[0]
