# SPDX-License-Identifier: Apache-2.0
"""Linear layers as their time depends on widths, and one-node models to time them with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...analysis import expr
from ...analysis.cost import working_nodes
from ...analysis.shapes import dims_of
from ...graph_ir import AttributeType, DataType, Model, Node, Value
from ...graph_ir.ops import has_reference_attribute, int_attr, is_constant, is_standard, opset_of
from .products import Axis
from .widths import is_depthwise

if TYPE_CHECKING:
    import onnx

_FLOATS = {DataType.FLOAT, DataType.FLOAT16, DataType.DOUBLE}
_SPATIAL = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True)
class Layer:
    """One linear node with a constant weight, in numbers.

    Attributes:
        op_type: Conv, ConvTranspose, Gemm or MatMul.
        x: shape of the activation it reads.
        w: shape of the weight.
        dtype: of both.
        bias: whether it adds one.
        attributes: its own, in a fixed order.
        opset: version of the standard operators.
        group: of a convolution, 1 for the others.
        depthwise: whether in- and output channels go together, one by one.
    """

    op_type: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    dtype: DataType
    bias: bool
    attributes: tuple[tuple[str, Any], ...]
    opset: int
    group: int = 1
    depthwise: bool = False

    @property
    def key(self) -> str:
        """What tells layers that take different time apart, as text."""
        facts = [self.op_type, self.x, self.w, self.dtype.name, self.bias, self.attributes, self.opset]
        return json.dumps(facts)

    @property
    def inputs(self) -> int:
        """Channels it sums over (in all groups of a convolution)."""
        return self.x[1] if self.op_type in _SPATIAL else self.x[self._summed]

    @property
    def outputs(self) -> int:
        """Channels it makes."""
        if self.op_type == "Conv":
            return self.w[0]
        if self.op_type == "ConvTranspose":
            return self.w[1] * self.group
        return self.w[0 if self._attribute("transB") else -1]

    @property
    def _summed(self) -> int:
        return 0 if self._attribute("transA") else len(self.x) - 1

    def _attribute(self, name: str) -> Any:
        return dict(self.attributes).get(name, 0)

    def proto(self, inputs: int, outputs: int) -> onnx.ModelProto:
        """A model of this node alone with other widths, its weights drawn by a fixed seed.

        Args:
            inputs: channels; a multiple of `group`.
            outputs: channels; a multiple of `group`; of a depthwise layer it follows from `inputs`.
        """
        from onnx import TensorProto, helper, numpy_helper

        x, w, attributes = list(self.x), list(self.w), dict(self.attributes)
        if self.depthwise:
            factor = self.outputs // self.inputs
            x[1], w[0], attributes["group"], outputs = inputs, inputs * factor, inputs, inputs * factor
        elif self.op_type == "Conv":
            x[1], w[0], w[1] = inputs, outputs, inputs // self.group
        elif self.op_type == "ConvTranspose":
            x[1], w[0], w[1] = inputs, inputs, outputs // self.group
        else:
            x[self._summed] = inputs
            turned = bool(self._attribute("transB"))
            w[1 if turned else 0], w[0 if turned else -1] = inputs, outputs
        kind = int(self.dtype)
        rng = np.random.default_rng(0)
        weights = [("w", w), *([("b", [outputs])] if self.bias else [])]
        constants = [
            numpy_helper.from_array((rng.standard_normal(s) * 0.05).astype(self.dtype.numpy()), name)
            for name, s in weights
        ]
        node = helper.make_node(self.op_type, ["x", *(name for name, _ in weights)], ["y"], **attributes)
        rank = len(x)
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", kind, x)],
            [helper.make_tensor_value_info("y", kind, [None] * rank)],
            constants,
        )
        assert kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def feed(self, inputs: int) -> dict[str, np.ndarray[Any, Any]]:
        """An input for `proto`."""
        shape = list(self.x)
        shape[1 if self.op_type in _SPATIAL else self._summed] = inputs
        return {"x": np.random.default_rng(1).standard_normal(shape).astype(self.dtype.numpy())}


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer, with the axes of the model its widths are."""

    node: Node
    layer: Layer
    input_axis: Axis
    output_axis: Axis


@dataclass
class Sizes:
    """Shapes with every named dim replaced by a number; one run's worth of them."""

    bindings: Mapping[str, int]
    known: dict[Value, tuple[int, ...] | None] = field(default_factory=dict[Value, "tuple[int, ...] | None"])

    def of(self, value: Value | None) -> tuple[int, ...] | None:
        """The value's shape, None where a dim is not known. Names without a size count as 1."""
        if value is None:
            return None
        if value not in self.known:
            dims = dims_of(value)
            names = {name for dim in dims or () for name in expr.names(dim)}
            bound = {**dict.fromkeys(names, 1), **self.bindings}
            sizes = [expr.evaluate(dim, bound) for dim in dims or ()]
            whole = tuple(s for s in sizes if s is not None and s > 0)
            self.known[value] = whole if dims is not None and len(whole) == len(sizes) else None
        return self.known[value]


def linear_layers(model: Model, bindings: Mapping[str, int]) -> Iterator[Placed]:
    """The linear layers that can be timed by themselves."""
    sizes = Sizes(bindings)
    opset = opset_of(model)
    for node in working_nodes(model.graph):
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and is_standard(node):
            placed = _placed(node, sizes, opset)
            if placed is not None:
                yield placed


def _placed(node: Node, sizes: Sizes, opset: int) -> Placed | None:
    x, w = node.inputs[0], node.inputs[1]
    if x is None or w is None or not is_constant(w) or is_constant(x) or has_reference_attribute(node):
        return None
    shape, weight = sizes.of(x), sizes.of(w)
    if (
        shape is None
        or weight is None
        or x.dtype is None
        or x.dtype not in _FLOATS
        or len(weight) < 2
        or len(shape) < 2
    ):
        return None
    if node.op_type == "MatMul" and len(weight) != 2:
        return None
    kept = (AttributeType.INT, AttributeType.INTS, AttributeType.FLOAT, AttributeType.STRING)
    attributes = tuple((n, _plain(a.value)) for n, a in sorted(node.attributes.items()) if a.type in kept)
    bias = len(node.inputs) > 2 and node.inputs[2] is not None and node.op_type != "MatMul"
    group = int_attr(node, "group", 1) if node.op_type in _SPATIAL else 1
    depthwise = is_depthwise(node)
    layer = Layer(node.op_type, shape, weight, x.dtype, bias, attributes, opset, group, depthwise=depthwise)
    out = node.outputs[0]
    if node.op_type in _SPATIAL:
        return Placed(node, layer, (x, 1), (out, 1))
    summed = 0 if node.op_type == "Gemm" and int_attr(node, "transA", 0) else len(shape) - 1
    return Placed(node, layer, (x, summed), (out, len(sizes.of(out) or shape) - 1))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [int(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value
