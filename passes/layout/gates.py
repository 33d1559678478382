# SPDX-License-Identifier: Apache-2.0
"""Gates of channels, spread over the picture before the product."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import INFERRED, Model, Node, Rewriter, Value
from ...graph_ir.ops import dims, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, op, var
from .blocks import convolves_blocks

_ACTIVATIONS = ("Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid", "Tanh")


class GateOfChannels(Rule):
    """x g, with x [N, C, H, W] and g [N, C, 1, 1], is x Resize(g), the one pixel repeated H by W times.

    Not valid below opset 13, where Resize is written otherwise. Not done: H and W not known; where x, g or
    what reads the product is no convolution in blocks of channels, but for an activation or x Sigmoid(x)
    between.
    """

    root: ClassVar = op("Mul", var("a"), var("b"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The same Mul, in place, of equal shapes."""
        node, values = m.root, (m["a"], m["b"])
        at = next((i for i in (0, 1) if _is_gate(values[i], values[1 - i])), None)
        if at is None:
            return Miss("no gate of channels and picture of known size")
        if rw.opset(node) < 13:
            return Miss("opset below 13")
        if not all(convolves_blocks(_convolution(value)) for value in values):
            return Miss("an operand is not in blocks of channels")
        if not all(convolves_blocks(user) for user, _ in node.outputs[0].uses()):
            return Miss("the product is read by what takes no blocks of channels")
        gate, picture, name = values[at], values[1 - at], node.name or "Mul"
        scales = np.array([1, 1, *(dims(picture) or ())[2:]], np.float32)
        given = rw.constant(scales, f"{name}_scales", node)
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        spread = rw.node("Resize", [gate, None, given], how, before=node, name=f"{name}_spread").outputs[0]
        spread.type, spread.shape, spread.meta[INFERRED] = picture.type, picture.shape, True
        rw.set_input(node, at, spread)
        return None


def _is_gate(gate: Value, picture: Value) -> bool:
    """Whether one is [N, C, 1, 1] and the other [N, C, H, W] of known C, H and W and more than one pixel."""
    few, many = dims(gate), dims(picture)
    if few is None or many is None or len(few) != 4 or len(many) != 4 or None in few:
        return False
    known = all(isinstance(size, int) for size in many[1:])
    return known and few[:2] == many[:2] and few[2:] == (1, 1) and many[2:] != (1, 1)


def _convolution(value: Value) -> Node | None:
    """What made the value, but for activations."""
    node = value.producer()
    while node is not None and is_op(node, *_ACTIVATIONS):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or not is_op(node, "Mul"):
        return node
    for gate, x in (node.inputs, node.inputs[::-1]):
        made = None if gate is None else gate.producer()
        if made is not None and x is not None and is_op(made, "Sigmoid") and made.inputs[0] is x:
            return x.producer()
    return None


class SpreadGates(Pass):
    """Repeat gates of channels over the picture they multiply, as within squeeze-and-excite.

    The algebra and limits stand with the rule `GateOfChannels`. It needs shapes (`infer-shapes`), and
    `declare-shapes` behind it where the number of samples is open.

    onnxruntime multiplies in its blocked layout of pictures only what has equal shapes; for a gate it leaves
    that layout and enters it again. For the end of a pipeline and for that runtime on x86.
    """

    name: ClassVar[str] = "spread-gates"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [GateOfChannels()])
