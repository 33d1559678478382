# SPDX-License-Identifier: Apache-2.0
"""What a pruned model must compute: the original with removed channels silenced where they are summed.

Nothing is removed here. A removed channel is multiplied by zero in front of each node that sums over it, and
left out of the statistics of each node that normalises over it; so this shares no code with the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tersor.graph_ir import Model, Value, from_proto, to_proto
from tersor.graph_ir.ops import constant, static_shape, walk_nodes

Mask = NDArray[np.bool_]
Masks = Mapping[tuple[Value, int], Mask]

_EXTREMES = {"ReduceMax": -1e9, "ReduceMin": 1e9, "GlobalMaxPool": -1e9}
_MEANS = ("ReduceMean", "GlobalAveragePool")
_SUMS = ("GlobalLpPool", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def oracle(model: Model, masks: Masks) -> Model:
    """The original, silenced.

    Args:
        model: the original, with inferred shapes; not changed.
        masks: for every axis that loses positions, which stay.
    """
    return from_proto(_Silencer(model, masks).proto)


class _Silencer:
    def __init__(self, model: Model, masks: Masks) -> None:
        self.proto = to_proto(model)
        self.masks = {(value.name, axis): mask for (value, axis), mask in masks.items()}
        values = [v for n in walk_nodes(model) for v in (*n.inputs, *n.outputs) if v is not None]
        self.shapes = {v.name: static_shape(v) for v in values}
        self.ranks = {v.name: len(v.shape) for v in values if v.shape is not None}
        self.values = {v.name: v for v in values}
        self.opset = model.opset_imports.get("", 0)
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0
        self.graph(self.proto.graph)

    def graph(self, graph: onnx.GraphProto) -> None:
        """Silence a graph and its bodies, whose masks are initializers of the main graph."""
        outside, self.nodes = self.nodes, []
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self.graph(attribute.g)
            HANDLERS.get(node.op_type, _Silencer.plain)(self, node)
        del graph.node[:]
        graph.node.extend(self.nodes)
        self.nodes = outside

    # -- small graphs -------------------------------------------------------------------------------------

    def weight(self, array: NDArray[Any]) -> str:
        self.count += 1
        name = f"oracle_{self.count}"
        self.proto.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        self.count += 1
        name = output or f"oracle_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def plain(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Of numbers that are computed with a value; float32 where the value is made here."""
        known = self.values[name].dtype if name in self.values else None
        return np.dtype(np.float32) if known is None else known.numpy()

    def mask(self, name: str, axes: Sequence[int]) -> NDArray[Any] | None:
        """1 and 0 along the axes, shaped to be multiplied onto the value; None when all stays."""
        rank = self.ranks.get(name, 0)
        found: NDArray[Any] | None = None
        for axis in sorted({a % rank for a in axes} if rank else ()):
            mask = self.masks.get((name, axis))
            if mask is not None:
                shaped = mask.astype(self.dtype(name)).reshape([-1 if a == axis else 1 for a in range(rank)])
                found = shaped if found is None else found * shaped
        return found

    def silenced(self, name: str, *axes: int) -> str:
        mask = self.mask(name, axes)
        return name if mask is None else self.node("Mul", [name, self.weight(mask)])

    # -- nodes that sum over channels ---------------------------------------------------------------------

    def conv(self, node: onnx.NodeProto) -> None:
        rank = self.ranks[node.input[0]]  # a window may slide over channels
        node.input[0] = self.silenced(node.input[0], *range(1, rank))
        self.nodes.append(node)

    def gemm(self, node: onnx.NodeProto) -> None:
        node.input[0] = self.silenced(node.input[0], 0 if _attributes(node).get("transA") else 1)
        self.nodes.append(node)

    def matmul(self, node: onnx.NodeProto) -> None:
        node.input[0] = self.silenced(node.input[0], -2 if _attributes(node).get("transA") else -1)
        self.nodes.append(node)

    def einsum(self, node: onnx.NodeProto) -> None:
        operands, result = _attributes(node)["equation"].decode().replace(" ", "").split("->")
        for index, letters in enumerate(operands.split(",")):
            gone = [i for i, letter in enumerate(letters) if letter not in result]
            node.input[index] = self.silenced(node.input[index], *gone)
        self.nodes.append(node)

    def recurrent(self, node: onnx.NodeProto) -> None:
        """Inputs, and the state of a removed unit where the others read it."""
        node.input[0] = self.silenced(node.input[0], 2)
        node.input[2] = self.silenced(node.input[2], 2)
        self.nodes.append(node)

    def attention(self, node: onnx.NodeProto) -> None:
        """Of heads that become narrower; a whole head is read by no other."""
        node.input[0] = self.silenced(node.input[0], -1)
        if node.op_type == "MultiHeadAttention" and len(node.input) > 3:  # a bias is added to the queries
            node.input[3] = self.silenced(node.input[3], 0)
        self.nodes.append(node)

    # -- statistics ---------------------------------------------------------------------------------------

    def reduced(self, node: onnx.NodeProto) -> None:
        """Sums and means over channels."""
        name = node.input[0]
        axes = _attributes(node).get("axes")
        if node.op_type.startswith("Global"):
            axes = list(range(2, self.ranks[name]))
        elif axes is None and len(node.input) > 1:
            data = constant(self.values.get(node.input[1]))
            axes = None if data is None else data.tolist()
        mask = self.mask(name, list(range(self.ranks[name])) if axes is None else axes)
        if mask is None:
            self.nodes.append(node)
            return
        known = node.op_type in (*_EXTREMES, *_MEANS, *_SUMS)
        assert known, f"the oracle knows no {node.op_type} over cut channels"
        if node.op_type in _EXTREMES:  # a removed channel is never the extreme
            most = float(np.finfo(mask.dtype).max) / 2
            far = np.where(mask, 0.0, np.clip(_EXTREMES[node.op_type], -most, most)).astype(mask.dtype)
            node.input[0] = self.node("Add", [name, self.weight(far)])
            self.nodes.append(node)
            return
        node.input[0] = self.node("Mul", [name, self.weight(mask)])
        if node.op_type not in _MEANS:
            self.nodes.append(node)
            return
        output = node.output[0]
        node.output[0] = f"{output}_of_all"
        self.nodes.append(node)
        self.node(
            "Mul",
            [node.output[0], self.weight(np.asarray(1 / mask.mean(dtype=np.float64), mask.dtype))],
            output,
        )

    def moments(self, name: str, axes: list[int], epsilon: float) -> str:
        """(x - mean) / sqrt(var + epsilon) over what is left of the axes."""
        mask = self.mask(name, axes)
        assert mask is not None
        scale = self.weight(np.asarray(1 / mask.mean(dtype=np.float64), mask.dtype))
        held = self.weight(mask)
        mean = self.node("Mul", [self.mean(self.node("Mul", [name, held]), axes), scale])
        off = self.node("Mul", [self.node("Sub", [name, mean]), held])
        var = self.node("Mul", [self.mean(self.node("Mul", [off, off]), axes), scale])
        root = self.node("Sqrt", [self.node("Add", [var, self.weight(np.asarray(epsilon, mask.dtype))])])
        return self.node("Div", [off, root])

    def mean(self, name: str, axes: list[int]) -> str:
        if self.opset < 18:
            return self.node("ReduceMean", [name], axes=axes)
        return self.node("ReduceMean", [name, self.weight(np.asarray(axes, np.int64))])

    def along(self, node: onnx.NodeProto) -> None:
        """The norm of a vector: what is zero adds nothing."""
        node.input[0] = self.silenced(node.input[0], _attributes(node).get("axis", -1))
        self.nodes.append(node)

    def rms_norm(self, node: onnx.NodeProto) -> None:
        """x / sqrt(mean(x * x) + epsilon) over what is left of the axes."""
        name, rank = node.input[0], self.ranks[node.input[0]]
        axes = list(range(_attributes(node).get("axis", -1) % rank, rank))
        mask = self.mask(name, axes)
        if mask is None:
            self.nodes.append(node)
            return
        held = self.node("Mul", [name, self.weight(mask)])
        scale = self.weight(np.asarray(1 / mask.mean(dtype=np.float64), mask.dtype))
        square = self.node("Mul", [self.mean(self.node("Mul", [held, held]), axes), scale])
        epsilon = self.weight(np.asarray(_attributes(node).get("epsilon", 1e-5), mask.dtype))
        root = self.node("Sqrt", [self.node("Add", [square, epsilon])])
        self.node("Mul", [self.node("Div", [held, root]), node.input[1]], node.output[0])

    def layer_norm(self, node: onnx.NodeProto) -> None:
        name = node.input[0]
        axes = list(range(_attributes(node).get("axis", -1) % self.ranks[name], self.ranks[name]))
        self.normalised(node, axes, lambda weight: weight)

    def instance_norm(self, node: onnx.NodeProto) -> None:
        rank = self.ranks[node.input[0]]
        shape = self.weight(np.asarray([-1] + [1] * (rank - 2), np.int64))
        self.normalised(node, list(range(2, rank)), lambda weight: self.node("Reshape", [weight, shape]))

    def normalised(
        self, node: onnx.NodeProto, axes: list[int], shaped: Callable[[str], str], epsilon: float = 1e-5
    ) -> None:
        if self.mask(node.input[0], axes) is None:
            self.nodes.append(node)
            return
        done = self.moments(node.input[0], axes, _attributes(node).get("epsilon", epsilon))
        scaled = self.node("Mul", [done, shaped(node.input[1])])
        if len(node.input) > 2:
            self.node("Add", [scaled, shaped(node.input[2])], node.output[0])
        else:
            self.node("Identity", [scaled], node.output[0])

    def group_norm(self, node: onnx.NodeProto) -> None:
        """Where channels of all groups go: moments of what is left of each, on `[N, G, C/G * H * W]`."""
        name, shape = node.input[0], self.shapes[node.input[0]]
        assert shape is not None
        groups = _attributes(node)["num_groups"]
        mask = self.masks.get((name, 1), np.ones(shape[1], np.bool_)).reshape(groups, -1)
        if (mask == mask[:, :1]).all():  # whole groups
            self.nodes.append(node)
            return
        inner = prod(shape[1:]) // groups
        to = [self.weight(np.asarray(s, np.int64)) for s in ([shape[0], groups, inner], shape)]
        flat = self.node("Reshape", [name, to[0]])
        self.ranks[flat] = 3
        self.masks[flat, 2] = np.repeat(mask[0], inner // mask.shape[1])
        done = self.node("Reshape", [self.moments(flat, [2], _attributes(node).get("epsilon", 1e-5)), to[1]])
        form = self.weight(np.asarray([-1] + [1] * (len(shape) - 2), np.int64))
        gain, beta = (self.node("Reshape", [w, form]) for w in node.input[1:3])
        self.node("Add", [self.node("Mul", [done, gain]), beta], node.output[0])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


Handler = Callable[[_Silencer, onnx.NodeProto], None]
HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "DeformConv", "FusedConv"), _Silencer.conv),
    **dict.fromkeys(("Gemm", "FusedGemm"), _Silencer.gemm),
    **dict.fromkeys(("MatMul", "FusedMatMul"), _Silencer.matmul),
    "Einsum": _Silencer.einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Silencer.recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _Silencer.attention),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"), _Silencer.reduced),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", *_SUMS), _Silencer.reduced),
    "LayerNormalization": _Silencer.layer_norm,
    "LpNormalization": _Silencer.along,
    "RMSNormalization": _Silencer.rms_norm,
    "InstanceNormalization": _Silencer.instance_norm,
    "GroupNormalization": _Silencer.group_norm,
}
