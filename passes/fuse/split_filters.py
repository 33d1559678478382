# SPDX-License-Identifier: Apache-2.0
"""The parts of a linear layer's channels, each as a layer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...graph_ir import Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_op, only_user, rank
from ..layout.blocks import BLOCK
from ..linear.bias import bias_add
from ..pattern import Match, Miss, Op, Rule, maybe, op, var

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALONE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")
_MORE_ALONE = ("Elu", "Gelu", "Swish")
_GATES = ("Sigmoid", "HardSigmoid")
_MOST_STEPS = 3
_LEAST_INT8_ROWS = 32
_LEAST_ROWS, _LEAST_INPUTS = 128, 192


@dataclass(frozen=True)
class _Layer:
    """A linear operator and what stands between it and a Split.

    Attributes:
        node: Conv, Gemm or MatMul.
        weight: its weights.
        cut: their axis of output channels.
        axes: what a Split calls these channels in the result.
        added: the Add of a MatMul's bias.
        bias: what is added, its last axis the channels or 1.
        steps: what works on each element alone, the last one first; the gate of a product of gate and x.
    """

    node: Node
    weight: NDArray[Any]
    cut: int
    axes: tuple[int, ...]
    added: Node | None
    bias: NDArray[Any] | None
    steps: tuple[tuple[Node, Node | None], ...]

    @property
    def outputs(self) -> int:
        """Output channels."""
        return int(self.weight.shape[self.cut])

    @property
    def inputs(self) -> int:
        """What an output sums over."""
        return self.weight.size // self.outputs


class SplitLayer(Rule):
    """Split(act(W x + b)) over channels = act(W1 x + b1), act(W2 x + b2), ...: the filters of each part.

    The layer is Conv, Gemm or MatMul, its weights and bias are constant; `act` is nothing, or works on each
    element alone, in up to three steps, also as x times a gate of x. What a filter makes does not depend on
    the others, so nothing is computed twice. Not valid: other readers of the whole, or of the weights, which
    would be stored twice; other axes; groups.

    Not done where it does not pay on onnxruntime's CPU: convolutions that become int8, and parts of them that
    are not blocks of 16 channels; products that become int8 of less than 32 rows, others of less than 128
    rows or 192 inputs. A free size counts as 1.

    Args:
        int8: whether layers are to become int8.
    """

    root: ClassVar[Op] = op("Split", var("whole"), maybe(var("sizes")))

    def __init__(self, int8: bool = False) -> None:
        self._int8 = int8

    def rewrite(self, m: Match, rw: Rewriter) -> Miss | None:
        """The layers of the parts."""
        node, whole = m.root, m["whole"]
        layer = _layer(whole) if only_user(whole) is node else None
        if layer is None:
            return Miss("no layer of constant weights that it alone reads")
        if int_attr(node, "axis", 0) not in layer.axes:
            return Miss("not of channels")
        sizes = _sizes(node, layer.outputs)
        if sizes is None or min(sizes) < 1 or sum(sizes) != layer.outputs:
            return Miss("sizes are not known")
        if not self._pays(layer, sizes, whole):
            return Miss("one layer and a copy are as fast")
        ends = list(accumulate(sizes))
        for size, end, out in zip(sizes, ends, node.outputs, strict=True):
            if out.uses() or out.is_graph_output():
                rw.replace(out, _part(layer, slice(end - size, end), node, rw))
        rw.erase_all([node, *_all(layer)])
        return None

    def _pays(self, layer: _Layer, sizes: Sequence[int], whole: Value) -> bool:
        if layer.node.op_type == "Conv":
            return not self._int8 and all(size % BLOCK == 0 for size in sizes)
        known = dims(whole)
        rows = 0 if known is None else prod(d for d in known[:-1] if isinstance(d, int))
        if self._int8:
            return rows >= _LEAST_INT8_ROWS
        return rows >= _LEAST_ROWS and layer.inputs >= _LEAST_INPUTS


def _layer(value: Value) -> _Layer | None:
    """The layer whose channels a value holds, with nothing between that others read."""
    steps: list[tuple[Node, Node | None]] = []
    node = value.producer()
    while node is not None and len(steps) <= _MOST_STEPS:
        found = _step(node)
        if found is None:
            return _linear(node, value, steps)
        gate, x = found
        steps.append((node, gate))
        value, node = x, x.producer()
    return None


def _step(node: Node) -> tuple[Node | None, Value] | None:
    """The gate, if there is one, and what the node works on, element by element; None if it does not."""
    x = input_at(node, 0)
    if is_op(node, *ALONE, *_MORE_ALONE):
        return None if x is None or only_user(x) is not node else (None, x)
    if not is_op(node, "Mul"):
        return None
    for x, gated in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        gate = None if gated is None else gated.producer()
        if x is None or gate is None or not is_op(gate, *_GATES) or gate.inputs[0] is not x:
            continue
        readers = {user for user, _ in x.uses()}
        if readers == {node, gate} and not x.is_graph_output() and only_user(gate.outputs[0]) is node:
            return gate, x
    return None


def _linear(node: Node, value: Value, steps: Sequence[tuple[Node, Node | None]]) -> _Layer | None:
    added: Node | None = None
    if is_op(node, "Add"):
        products = [v.producer() for v in node.inputs if v is not None]
        product = next((p for p in products if is_op(p, "MatMul")), None)
        found = None if product is None else bias_add(product)
        if product is None or found is None or found[0] is not node:
            return None
        added, node, given = node, product, found[1]
    elif is_op(node, "Conv", "Gemm", "MatMul"):
        given = input_at(node, 2)
    else:
        return None
    source = input_at(node, 1)
    weight, bias, extent = constant(source), constant(given), rank(value)
    if (
        source is None
        or weight is None
        or weight.ndim < 2
        or extent is None
        or (given is not None and bias is None)
    ):
        return None
    if len(source.uses()) != 1:
        return None
    if node.op_type == "Conv":
        if int_attr(node, "group", 1) != 1 or extent != weight.ndim:
            return None
        axes, cut = (1, 1 - extent), 0
    else:
        if weight.ndim != 2:
            return None
        axes = (extent - 1, -1)
        cut = 0 if node.op_type == "Gemm" and int_attr(node, "transB", 0) else 1
    if bias is not None and bias.ndim and bias.shape[-1] not in (1, weight.shape[cut]):
        return None
    return _Layer(node, weight, cut, axes, added, bias, tuple(steps))


def _sizes(node: Node, channels: int) -> list[int] | None:
    """What a Split gives to each output."""
    given = ints_attr(node, "split")
    if given is None and input_at(node, 1) is not None:
        data = constant(node.inputs[1])
        if data is None:
            return None
        given = [int(v) for v in data.reshape(-1)]
    count = len(node.outputs)
    if given is None:
        return [channels // count] * count if channels % count == 0 else None
    return given if len(given) == count else None


def _part(layer: _Layer, taken: slice, near: Node, rw: Rewriter) -> Value:
    """The layer of some filters, and the steps behind it."""
    node = layer.node
    weight = np.ascontiguousarray(layer.weight[taken] if layer.cut == 0 else layer.weight[:, taken])
    inputs = [node.inputs[0], rw.constant(weight, _name(node, 1), near)]
    bias = layer.bias
    if bias is not None and bias.ndim and bias.shape[-1] == layer.outputs:
        bias = np.ascontiguousarray(bias[..., taken])
    if bias is not None and layer.added is None:
        inputs.append(rw.constant(bias, _name(node, 2), near))
    value = _again(node, inputs, near, rw)
    if layer.added is not None and bias is not None:
        place = 0 if constant(layer.added.inputs[0]) is not None else 1
        operands = [value, value]
        operands[place] = rw.constant(bias, _name(layer.added, place), near)
        value = _again(layer.added, operands, near, rw)
    for step, gate in reversed(layer.steps):
        if gate is None:
            value = _again(step, [value, *step.inputs[1:]], near, rw)
        else:
            gated = _again(gate, [value], near, rw)
            first = step.inputs[0] is gate.outputs[0]
            value = _again(step, [gated, value] if first else [value, gated], near, rw)
    return value


def _again(node: Node, inputs: Sequence[Value | None], near: Node, rw: Rewriter) -> Value:
    with rw.standing_for([node]):
        attributes = list(node.attributes.values())
        return rw.node(node.op_type, inputs, attributes, before=near, name=node.name or "").outputs[0]


def _all(layer: _Layer) -> list[Node]:
    """The nodes of a layer, those that read others first."""
    behind = [n for pair in layer.steps for n in pair if n is not None]
    return [*behind, *([] if layer.added is None else [layer.added]), layer.node]


def _name(node: Node, place: int) -> str:
    value = input_at(node, place)
    return f"{value.name if value is not None else 'filters'}_part"
