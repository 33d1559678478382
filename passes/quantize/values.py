# SPDX-License-Identifier: Apache-2.0
"""Write quantised values: Q/DQ around activations, codes of weights and biases, shared grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.numerics import QuantParams, activation_params, quantize, quantize_bias
from ...graph_ir.ops import dims, is_constant, is_op, is_read, walk_graphs

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[bytes, bytes, str, "int | None"]


class ValueWriter:
    """Makes Q, DQ and their constants in one graph; each value gets one Q, equal grids share initializers.

    Args:
        rewriter: the door.
        params: the grid of each float value that an int8 node may read.
    """

    def __init__(self, rewriter: Rewriter, params: Mapping[Value, QuantParams]) -> None:
        self.rw = rewriter
        self._params = params
        self._codes: dict[Value, tuple[Value, QuantParams]] = {}  # a DQ's output -> the codes it reads
        self._read: dict[Value, Value] = {}  # a float value -> the DQ output int8 nodes read instead
        self._grids: dict[Key, tuple[Value, Value]] = {}
        self._weights: dict[tuple[Value, Key, tuple[int, ...], bool], Value] = {}
        self._spread: dict[Value, Value] = {}
        self._widened: dict[Value, Value] = {}

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        near: Node,
        hint: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> Value:
        """The output of a new node, called like it: the runtime refuses two nodes of one name."""
        made = self.rw.node(op_type, inputs, attributes or {}, before=near, name=hint)
        made.name = made.outputs[0].name
        return made.outputs[0]

    def codes_of(self, value: Value | None) -> tuple[Value, QuantParams] | None:
        """The codes and grid behind a DQ's output; None for any other value."""
        return None if value is None else self._codes.get(value)

    def grid_of(self, value: Value) -> QuantParams:
        """The grid an int8 node reads a value in."""
        found = self._codes.get(value)
        return self._params[value] if found is None else found[1]

    def operand(self, value: Value | None, near: Node) -> Value | None:
        """What an int8 node reads in place of a value: the output of a DQ."""
        if value is None or value in self._codes:
            return value
        if is_constant(value):
            array = constant(value)
            assert array is not None
            params = activation_params(float(array.min()), float(array.max()))
            return self.weight(value, array, params, near)
        if value not in self._read:
            self._read[value] = self._entry(value, near)
        return self._read[value]

    def _entry(self, value: Value, near: Node) -> Value:
        """Q and DQ of a float value.

        Behind a float MaxPool the Q has one (equal) scale for each channel: the runtime would move a scalar
        one to before the pool, and its NCHW pool of uint8 is many times slower than the float one.
        """
        params, name = self._params[value], value.name or ""
        channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
        if not is_op(value.producer(), "MaxPool") or not isinstance(channels, int):
            return self.quantized(value, params, near, name)
        scale, zero = self.grid(_spread(params, channels, 1), near, f"{name}_spread")
        codes = self.node("QuantizeLinear", [value, scale, zero], near, f"{name}_quantized", {"axis": 1})
        return self.dequantized(codes, params, near, name)

    def spread(self, value: Value, axis: int, count: int, near: Node) -> Value:
        """A second DQ of the same codes, with one (equal) scale for each index of an axis."""
        if value not in self._spread:
            codes, params = self._codes[value]
            wide = _spread(params, count, axis)
            self._spread[value] = self.dequantized(codes, wide, near, f"{value.name}_float")
        return self._spread[value]

    def widened(self, value: Value, extra: int, near: Node) -> Value | None:
        """What reads the codes of a float value [N, C, H, W] with channels of zeros behind them.

        None where the codes were made by an operator: a Pad would change its layout. What came channels-last
        is padded as planes, in a Reshape: the runtime would take its Transpose to behind the Pad, which then
        adds to each pixel by itself, and that can take longer than the convolution.

        Args:
            value: the float value.
            extra: how many channels.
            near: the node that reads it.
        """
        if value not in self._read:
            return None
        if value not in self._widened:
            codes, params = self._codes[self._read[value]]
            name, planes = f"{value.name}_widened", is_op(value.producer(), "Transpose")
            if planes:
                flat = self.rw.constant(np.array([0, 0, -1], np.int64), f"{name}_flat", near)
                codes = self.node("Reshape", [codes, flat], near, f"{name}_flat")
            ends = np.zeros(6 if planes else 8, np.int64)
            ends[len(ends) // 2 + 1] = extra
            inputs = [codes, self.rw.constant(ends, f"{name}_pads", near), self.grid(params, near, name)[1]]
            wide = self.node("Pad", inputs, near, name)
            if planes:
                wide = self.node("Reshape", [wide, self._whole(value, near, name)], near, f"{name}_whole")
            self._widened[value] = self.dequantized(wide, params, near, name)
        return self._widened[value]

    def _whole(self, value: Value, near: Node, name: str) -> Value:
        """The shape that makes planes of pixels pictures again, as large as the value's."""
        sizes = [d if isinstance(d, int) else -1 for d in (dims(value) or ())[2:]]
        if sizes.count(-1) < len(sizes):
            return self.rw.constant(np.array([0, 0, *sizes], np.int64), f"{name}_shape", near)
        kept, start, end = (np.array(v, np.int64) for v in ([0, 0], [2], [4]))
        bounds = [self.rw.constant(bound, f"{name}_bounds", near) for bound in (start, end)]
        last = self.node("Slice", [self.node("Shape", [value], near, f"{name}_sizes"), *bounds], near, name)
        first = self.rw.constant(kept, f"{name}_kept", near)
        return self.node("Concat", [first, last], near, f"{name}_shape", {"axis": 0})

    def narrowed(self, value: Value, count: int, near: Node) -> Value:
        """What reads the first so many channels of the codes behind a DQ's output."""
        codes, params = self._codes[value]
        name = f"{value.name}_narrowed"
        bounds = [self.rw.constant(np.array([b], np.int64), f"{name}_bounds", near) for b in (0, count, 1)]
        return self.dequantized(self.node("Slice", [codes, *bounds], near, name), params, near, name)

    def quantized(self, value: Value, params: QuantParams, near: Node, name: str) -> Value:
        """Q and DQ of a value; the output of the DQ."""
        scale, zero = self.grid(params, near, name)
        codes = self.node("QuantizeLinear", [value, scale, zero], near, f"{name}_quantized")
        return self.dequantized(codes, params, near, name)

    def dequantized(self, codes: Value, params: QuantParams, near: Node, name: str) -> Value:
        """The DQ of codes."""
        scale, zero = self.grid(params, near, name)
        attributes = {} if params.axis is None else {"axis": params.axis}
        hint = f"{name}_dequantized"
        out = self.node("DequantizeLinear", [codes, scale, zero], near, hint, attributes)
        self._codes[out] = codes, params
        return out

    def grid(self, params: QuantParams, near: Node, name: str) -> tuple[Value, Value]:
        """The initializers of a grid: the runtime tells grids apart by name, so equal ones are one."""
        if params.key not in self._grids:
            scale = self.rw.constant(params.scale, f"{name}_scale", near)
            zero = self.rw.constant(params.zero_point, f"{name}_zero_point", near)
            self._grids[params.key] = scale, zero
        return self._grids[params.key]

    def weight(self, source: Value, array: NDArray[Any], params: QuantParams, near: Node) -> Value:
        """The DQ of a constant's codes (see `weight_codes`)."""
        attributes = {} if params.axis is None else {"axis": params.axis}
        inputs = self.weight_codes(source, array, params, near)
        return self.node(
            "DequantizeLinear", inputs, near, f"{source.name or 'weight'}_dequantized", attributes
        )

    def weight_codes(
        self, source: Value, array: NDArray[Any], params: QuantParams, near: Node, *, turned: bool = False
    ) -> tuple[Value, Value, Value]:
        """A constant's codes, scale and zero point; they are shared by all users with the same grid.

        Args:
            source: the constant.
            array: its data, or a positive multiple of it, perhaps with zeros behind.
            params: the grid.
            near: the node that reads it.
            turned: write the codes of a matrix transposed.
        """
        key = source, params.key, array.shape, turned
        if key not in self._weights:
            codes = quantize(array, params)
            stored: NDArray[Any] = np.ascontiguousarray(np.transpose(codes)) if turned else codes
            self._weights[key] = self.rw.constant(stored, f"{source.name}_quantized", near)
        return self._weights[key], *self.grid(params, near, source.name or "weight")

    def drop_unread(self) -> None:
        """Remove the DQs that nothing reads: operators took the codes."""
        for value in [v for v in self._codes if not is_read(v)]:
            node = value.producer()
            del self._codes[value]
            if node is not None:
                self.rw.erase(node)

    def bias(self, bias: NDArray[Any], x: QuantParams, w: QuantParams, near: Node) -> Value:
        """The DQ of an int32 bias with the exact scale of the accumulator."""
        codes, scale = quantize_bias(bias, x.scale, w.scale)
        name = f"{near.outputs[0].name}_bias"
        inputs = [
            self.rw.constant(codes, f"{name}_quantized", near),
            self.rw.constant(scale, f"{name}_scale", near),
            self.rw.constant(np.zeros(codes.shape, np.int32), f"{name}_zero_point", near),
        ]
        return self.node("DequantizeLinear", inputs, near, f"{name}_dequantized", {"axis": 0})


def used_initializers(model: Model) -> list[Value]:
    """The initializers of the main graph and of bodies that something reads."""
    return [v for graph in walk_graphs(model) for v in graph.initializers.values() if v.uses()]


def drop_orphans(rewriter: Rewriter, once_used: Sequence[Value]) -> None:
    """Remove those initializers that nothing reads any more."""
    for value in once_used:
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            rewriter.drop_initializer(value)


def _spread(params: QuantParams, count: int, axis: int) -> QuantParams:
    return QuantParams(np.full(count, params.scale), np.full(count, params.zero_point), axis)
