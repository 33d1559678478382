# SPDX-License-Identifier: Apache-2.0
"""Convolutions over one axis as convolutions over two, the first of length 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import (
    dims,
    has_reference_attribute,
    input_at,
    int_attr,
    ints_attr,
    is_op,
    is_read,
    is_standard,
    rank,
)
from ..base import Context, Exactness, Pass, bounded

Array: TypeAlias = NDArray[Any]

_AXIS = 2
_UNARY = frozenset(
    {"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Erf", "Gelu", "Sqrt",
     "Exp", "Softplus", "Mish", "Swish", "Abs", "Neg"}
)  # fmt: skip
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})
_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool"})
_LENGTHS = ("kernel_shape", "strides", "dilations")


@dataclass(frozen=True)
class ConvolveOverTwoAxes(Pass):
    """Make a Conv over one axis [N, C, L] one over two [N, C, 1, L], with what lies between such.

    A kernel of length k is one of 1 by k; the new axis has no padding, stride or dilation. Elementwise
    operators, pools over one axis and concatenations of channels behind such a convolution are carried out on
    its wider result, so that the axis comes and goes once, by views. onnxruntime has a blocked layout and
    fused activations for two axes only: 1.2 to 2 times faster.

    Not valid, so left alone: weights that are no constants. Not done: other types than float32; pools whose
    indices are read. For the end of a pipeline and for that runtime.

    Attributes:
        least_macs: leave models alone whose convolutions over one axis are known to multiply less than that
            in all; onnxruntime hands even the smallest blocked ones out to its threads.
    """

    name: ClassVar[str] = "convolve-over-two-axes"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    least_macs: int = bounded(1_000_000, 0)

    def run(self, model: Model, ctx: Context) -> bool:
        """Walk each graph once, keeping the wider form of each value that has one."""
        rewriter = ctx.rewriter(model)
        narrow = [node for node in rewriter.nodes(["Conv"]) if _is_narrow(node)]
        if not narrow or sum(map(_macs, narrow)) < self.least_macs:
            return False
        for graph in rewriter.graphs_within(model.graph):
            wide: dict[Value, Value] = {}
            for node in list(graph):
                if not is_standard(node) or has_reference_attribute(node):
                    continue
                inputs = _inputs(node, wide, rewriter)
                if inputs is None or not rewriter.allowed(self.name, node):
                    continue
                with rewriter.standing_for([node]):
                    made = [self._given(value, how, node, wide, rewriter) for value, how in inputs]
                    result = rewriter.node(
                        node.op_type, made, _attributes(node), before=node, name=node.name or ""
                    ).outputs[0]
                    back = _moved("Squeeze", result, node, rewriter)
                    rewriter.replace(node.outputs[0], back)
                    rewriter.erase(node)
                wide[back] = result
                ctx.counters[self.name] += 1
        return rewriter.edits > 0

    def _given(
        self, value: Value | None, how: bool | Array, node: Node, wide: dict[Value, Value], rw: Rewriter
    ) -> Value | None:
        """An operand in its wider form, or as it is."""
        if value is None or how is False:
            return value
        if how is not True:
            return rw.constant(how, value.name or "constant", node)
        if value not in wide:
            wide[value] = _moved("Unsqueeze", value, node, rw)
        return wide[value]


def _is_narrow(node: Node) -> bool:
    """Whether it is a convolution over one axis with constant weights of float32."""
    weights = constant(input_at(node, 1))
    return weights is not None and weights.ndim == 3 and weights.dtype == np.float32


def _macs(node: Node) -> float:
    """Multiply-accumulates of a convolution for one sample; inf when its length is not known."""
    shape, weights = dims(node.outputs[0]), constant(node.inputs[1])
    length = shape[-1] if shape else None
    return weights.size * length if weights is not None and isinstance(length, int) else math.inf


def _inputs(
    node: Node, wide: dict[Value, Value], rw: Rewriter
) -> list[tuple[Value | None, bool | Array]] | None:
    """The operands, each with whether it is widened or with what replaces it; None for a node that stays."""
    first = node.inputs[0] if node.inputs else None
    if first is None or any(map(is_read, node.outputs[1:])):
        return None
    if is_op(node, "Conv"):
        weights = constant(input_at(node, 1))
        if weights is None or not _is_narrow(node):
            return None
        rest = [(value, False) for value in node.inputs[2:]]
        return [(first, True), (node.inputs[1], np.expand_dims(weights, _AXIS)), *rest]
    if not any(value in wide for value in node.inputs if value is not None):
        return None
    if is_op(node, *_UNARY, "MaxPool", "AveragePool", "GlobalAveragePool"):
        return [(first, True), *((value, False) for value in node.inputs[1:])] if first in wide else None
    if is_op(node, "Concat"):
        along = int_attr(node, "axis", 0) in (1, -2) and all(value in wide for value in node.inputs)
        return [(value, True) for value in node.inputs] if along else None
    if not is_op(node, *_BINARY) or len(node.inputs) != 2 or rw.opset(node) < 7:
        return None
    found: list[tuple[Value | None, bool | Array]] = []
    for value in node.inputs:
        array = constant(value)
        if value in wide or (array is None and rank(value) == 3):
            found.append((value, True))
        elif array is not None and array.ndim <= 3:
            found.append((value, np.expand_dims(array, array.ndim - 1) if array.ndim > 1 else False))
        else:
            return None
    return found


def _attributes(node: Node) -> dict[str, Any]:
    """The node's attributes for one more axis in front of the last one."""
    found: dict[str, Any] = {name: attr.value for name, attr in node.attributes.items()}
    if is_op(node, *_WINDOWS):
        for name in _LENGTHS:
            if (given := ints_attr(node, name)) is not None:
                found[name] = [1, *given]
        if (pads := ints_attr(node, "pads")) is not None:
            found["pads"] = [0, pads[0], 0, pads[1]]
    if is_op(node, "Concat"):
        found["axis"] = 1
    return found


def _moved(kind: str, value: Value, node: Node, rw: Rewriter) -> Value:
    """The value with the axis more, or less."""
    name = f"{node.name or node.op_type}_{kind.lower()}"
    if rw.opset(node) < 13:
        return rw.node(kind, [value], {"axes": [_AXIS]}, before=node, name=name).outputs[0]
    axes = rw.constant(np.array([_AXIS], np.int64), "axis", node)
    return rw.node(kind, [value, axes], before=node, name=name).outputs[0]
