# SPDX-License-Identifier: Apache-2.0
"""Hand-built quantize/dequantize models, one small knob at a time.

`Qdq` writes ONNX nodes with `onnx.helper`; each method returns the name of the tensor that it made.
Weights come from a seeded generator, so equal calls make equal models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ACT_SCALE = 0.05


class Qdq:
    """A growing graph of float and Q/DQ nodes over one float input `x` of shape `shape`."""

    def __init__(self, shape: list[int | str], seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[str] = []
        self._shape = shape
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def const(self, array: NDArray[Any] | np.generic, stem: str = "c") -> str:
        name = self.fresh(stem)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", outputs: int = 1, **attrs: Any) -> str:
        """Append a node; returns its first output (`<name or op_type_n>.out`)."""
        title = name or self.fresh(op_type)
        outs = [f"{title}.out"] + [f"{title}.out{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outs, name=title, **attrs))
        return outs[0]

    def q(
        self,
        tensor: str,
        *,
        scale: float = ACT_SCALE,
        zero: int = 0,
        dtype: type[np.integer] = np.uint8,
        params: tuple[str, str] | None = None,
    ) -> tuple[str, tuple[str, str]]:
        """Quantize; returns the integer tensor and the names of its scale and zero point."""
        pair = params or (
            self.const(np.array(scale, np.float32), "scale"),
            self.const(np.array(zero, dtype), "zero"),
        )
        return self.op("QuantizeLinear", tensor, *pair), pair

    def dq(self, tensor: str, params: tuple[str, str]) -> str:
        return self.op("DequantizeLinear", tensor, *params)

    def qdq(
        self, tensor: str, *, scale: float = ACT_SCALE, zero: int = 0, dtype: type[np.integer] = np.uint8
    ) -> str:
        """Quantize and dequantize, the shape in which an activation is marked as int8."""
        return self.dq(*self.q(tensor, scale=scale, zero=zero, dtype=dtype))

    def weight(
        self,
        shape: tuple[int, ...],
        *,
        axis: int | None = 0,
        scale: float = 0.01,
        dtype: type[np.integer] = np.int8,
    ) -> str:
        """An int8 weight of `shape` behind its DequantizeLinear; `axis=None` makes one scale for all."""
        info = np.iinfo(dtype)
        values = self._rng.integers(max(info.min, -60), 60, shape).astype(dtype)
        if axis is None:
            pair = self.const(np.array(scale, np.float32)), self.const(np.array(0, dtype))
            return self.op("DequantizeLinear", self.const(values, "w"), *pair)
        count = shape[axis]
        pair = self.const(np.full(count, scale, np.float32)), self.const(np.zeros(count, dtype))
        return self.op("DequantizeLinear", self.const(values, "w"), *pair, axis=axis)

    def bias(self, count: int, *, scale: float = ACT_SCALE * 0.01) -> str:
        """An int32 bias behind its DequantizeLinear; `scale` should be input scale times weight scale."""
        values = self._rng.integers(-500, 500, count).astype(np.int32)
        pair = self.const(np.full(count, scale, np.float32)), self.const(np.zeros(count, np.int32))
        return self.op("DequantizeLinear", self.const(values, "b"), *pair, axis=0)

    def conv(
        self,
        tensor: str,
        cin: int,
        cout: int,
        *,
        name: str = "",
        kernel: int = 3,
        bias: bool | str = True,
        w_axis: int | None = 0,
        w_dtype: type[np.integer] = np.int8,
    ) -> str:
        weight = self.weight((cout, cin, kernel, kernel), axis=w_axis, dtype=w_dtype)
        extra = [bias] if isinstance(bias, str) else [self.bias(cout)] if bias else []
        pad = kernel // 2
        return self.op("Conv", tensor, weight, *extra, name=name, pads=[pad] * 4, kernel_shape=[kernel] * 2)

    def model(self, *outputs: str, opset: int = 20) -> onnx.ModelProto:
        """The checked model with these float (or, after a Q, uint8) outputs of inferred type."""
        graph = helper.make_graph(
            self.nodes,
            "qdq",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self._shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        inferred |= {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.output}
        del model.graph.output[:]
        model.graph.output.extend(inferred[name] for name in outputs)
        onnx.checker.check_model(model, full_check=True)
        return model
