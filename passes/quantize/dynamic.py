# SPDX-License-Identifier: Apache-2.0
"""Quantise linear layers whose activations are measured at run time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...graph_ir import DataType, Model, Node, Rewriter, UsageError, Value, constant
from ...graph_ir.numerics import quantize, weight_params
from ...graph_ir.ops import (
    constant_tensor,
    float_attr,
    has_reference_attribute,
    input_at,
    int_attr,
    is_op,
    is_read,
    label,
    walk_graphs,
)
from ...graph_ir.origins import goes_by
from ...graph_ir.provenance import note_left_float
from ..base import Context, Exactness, Pass
from .kinds import LINEAR, refuse_linear, refuse_weights
from .values import Key, drop_orphans, used_initializers

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("MatMul", "Gemm", "LSTM")
LEAST_OPSET = 11
_LSTM_OPERANDS = 8  # X, W, R, B, sequence_lens, initial_h, initial_c, P

Weights = dict[tuple[Value, bool, tuple[int, ...], Key], tuple[Value, Value, Value]]
"""The constants made of a weight, by it, whether it is turned, the shape of its codes and their grid."""


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Quantise MatMul, Gemm and LSTM of constant weights to int8, with activation scales found at run time.

    `x @ W + B` becomes `Cast((q(x) - z) @ Wq) * (s * w) + B` with `q, s, z = DynamicQuantizeLinear(x)`
    (one for all that read x) and `Wq` int8 with one scale `w` per column; onnxruntime runs that as one
    DynamicQuantizeMatMul. It needs no data and suits transformers, whose activations differ much between
    inputs. Not done when the weights are not a constant float matrix, or (Gemm) the data input is
    transposed or the bias is not one value per column.
    An LSTM becomes onnxruntime's own com.microsoft DynamicQuantizeLSTM: W and R are int8 with one scale per
    direction, gate and unit; its input, and its state in each step, are quantised as it runs. Gates and
    states are float. Not done for one of `layout` 1, which that operator does not know. With one scale per
    direction for R, which every step multiplies by, a step is a tenth to a fifth shorter, and less exact;
    so is a product of few rows with one scale for its matrix.

    Options:
        op_types: some of MatMul, Gemm and LSTM.
        exclude: labels or origins of nodes that stay float.
        bits: 8, or 7 for x86 CPUs without VNNI.
        mse_weights: choose weight scales by least squared error instead of the largest weight.
        per_tensor: one scale for a matrix, and per direction for the recurrent weights of an LSTM.
    """

    name: ClassVar[str] = "quantize-dynamic"
    exact: ClassVar[Exactness] = Exactness.LOSSY

    op_types: tuple[str, ...] = KINDS
    exclude: tuple[str, ...] = ()
    bits: int = 8
    mse_weights: bool = False
    per_tensor: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.op_types) - set(KINDS))
        if unknown:
            raise UsageError(
                f"quantize-dynamic cannot quantise {unknown[0]}; op_types are {', '.join(KINDS)}"
            )
        if self.bits not in (7, 8):
            raise UsageError(f"quantize-dynamic takes 7 or 8 bits, not {self.bits}")

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite every graph, body and function."""
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        exclude = set(self.exclude)
        weights: Weights = {}
        linear = [node for node in model.graph if is_op(node, *LINEAR)]
        left = {label(node): f"dynamic int8 is not made of {node.op_type}" for node in linear}
        for graph in walk_graphs(model):
            shared: dict[Value, Node] = {}  # by graph: scopes differ
            for node in list(graph):
                if node.graph is None or not is_op(node, *self.op_types):
                    continue
                reason = self._refuse(node, exclude, rewriter)
                if reason is not None:
                    ctx.misses[self.name, reason] += 1
                    if node.graph is model.graph:
                        left[label(node)] = reason
                elif rewriter.allowed(self.name, node):
                    left.pop(label(node), None)
                    if node.op_type == "LSTM":
                        self._rewrite_lstm(node, rewriter, weights)
                    else:
                        self._rewrite(node, rewriter, shared, weights)
                    ctx.counters[self.name] += 1
        drop_orphans(rewriter, used)
        if rewriter.edits > 0:
            note_left_float(model, left, keep=True)
        return rewriter.edits > 0

    def _refuse(self, node: Node, exclude: set[str], rewriter: Rewriter) -> str | None:
        if goes_by(node, exclude):
            return "`exclude` names it"
        if has_reference_attribute(node):
            return "an attribute is set by the function's caller"
        if rewriter.opset(node) < LEAST_OPSET:
            return f"it needs opset {LEAST_OPSET}"
        return _refuse_lstm(node) if node.op_type == "LSTM" else refuse_linear(node)

    def _rewrite(self, node: Node, rw: Rewriter, shared: dict[Value, Node], ready: Weights) -> None:
        x, source = node.inputs[0], node.inputs[1]
        assert x is not None
        assert source is not None
        weights, bias = _matrix_and_bias(node)
        axis = None if self.per_tensor else 1
        params = weight_params(weights, axis, bits=self.bits, mse=self.mse_weights)
        name = node.outputs[0].name
        with rw.standing_for([node]):
            if x not in shared:
                hint = f"{x.name}_dynamic"
                shared[x] = rw.node("DynamicQuantizeLinear", [x], before=node, name=hint, outputs=3)
            codes, x_scale, x_zero = shared[x].outputs
            key = source, bool(int_attr(node, "transB", 0)), weights.shape, params.key
            top = 2 ** (self.bits - 1) - 1
            if key not in ready or not source.is_initializer():
                ready[key] = (
                    rw.constant(
                        np.clip(quantize(weights, params), -top, top), f"{source.name}_quantized", node
                    ),
                    rw.constant(params.scale, f"{source.name}_scale", node),
                    rw.constant(params.zero_point, f"{source.name}_zero_point", node),
                )
            w, w_scale, w_zero = ready[key]
            total = rw.node("MatMulInteger", [codes, w, x_zero, w_zero], before=node, name=f"{name}_integer")
            cast = rw.node(
                "Cast", total.outputs, {"to": int(DataType.FLOAT)}, before=node, name=f"{name}_cast"
            )
            scale = rw.node("Mul", [x_scale, w_scale], before=node, name=f"{name}_scale")
            out = rw.node(
                "Mul", [cast.outputs[0], scale.outputs[0]], before=node, name=f"{name}_scaled"
            ).outputs[0]
            if bias is not None:
                added = rw.constant(bias, f"{source.name}_bias", node)
                out = rw.node("Add", [out, added], before=node, name=f"{name}_biased").outputs[0]
            rw.replace(node.outputs[0], out)
            rw.erase(node)

    def _rewrite_lstm(self, node: Node, rw: Rewriter, ready: Weights) -> None:
        rw.import_domain(node, MICROSOFT)
        operands: list[Value | None] = [input_at(node, i) for i in range(_LSTM_OPERANDS)]
        read = list(node.outputs)
        while len(read) > 1 and not is_read(read[-1]):
            del read[-1]
        with rw.standing_for([node]):
            for i in (1, 2):
                source, data = operands[i], constant(operands[i])
                assert source is not None
                assert data is not None
                scaled = data.shape[: 1 if i == 2 and self.per_tensor else 2]  # directions, gates * hidden
                rows = data.reshape(math.prod(scaled), -1)
                params = weight_params(rows, 0, bits=self.bits, mse=self.mse_weights)
                key, top, name = (source, True, data.shape, params.key), 2 ** (self.bits - 1) - 1, source.name
                if key not in ready or not source.is_initializer():
                    codes = np.clip(quantize(rows, params), -top, top).reshape(data.shape)
                    turned: NDArray[Any] = np.ascontiguousarray(np.transpose(codes, (0, 2, 1)))
                    ready[key] = (
                        rw.constant(turned, f"{name}_quantized", node),
                        rw.constant(params.scale.reshape(scaled), f"{name}_scale", node),
                        rw.constant(params.zero_point.reshape(scaled), f"{name}_zero_point", node),
                    )
                operands[i], *grid = ready[key]
                operands += grid
            made = rw.node(
                "DynamicQuantizeLSTM",
                operands,
                [attr for name, attr in node.attributes.items() if name != "layout"],
                before=node,
                name=node.name or "LSTM",
                domain=MICROSOFT,
                outputs=len(read),
            )
            for old, new in zip(read, made.outputs, strict=True):
                rw.replace(old, new)
            rw.erase(node)


def _refuse_lstm(node: Node) -> str | None:
    if int_attr(node, "layout", 0):
        return "its layout is 1"
    if constant_tensor(input_at(node, 0)) is not None:
        return "its data input is a constant"
    for i in (1, 2):
        tensor = constant_tensor(input_at(node, i))
        if tensor is None:
            return "its weights are not constant"
        if tensor.dtype != DataType.FLOAT:
            return f"its weights are {tensor.dtype.name.lower()}, not float"
        array = tensor.numpy()
        if array.ndim != 3:
            return "its weights are not shaped as an LSTM's"
        if (reason := refuse_weights(array)) is not None:
            return reason
    return None


def _matrix_and_bias(node: Node) -> tuple[NDArray[Any], NDArray[Any] | None]:
    data = constant(node.inputs[1])
    assert data is not None
    if node.op_type == "MatMul":
        return data, None
    weights: NDArray[Any] = np.transpose(data) if int_attr(node, "transB", 0) else data
    alpha, beta = float_attr(node, "alpha", 1.0), float_attr(node, "beta", 1.0)
    if alpha != 1.0:
        weights = np.asarray(weights * np.float32(alpha))
    bias = constant(input_at(node, 2))
    if bias is None:
        return weights, None
    scaled = np.asarray(bias.reshape(-1) * np.float32(beta), np.float32)
    return weights, np.array(np.broadcast_to(scaled, (int(weights.shape[1]),)))
