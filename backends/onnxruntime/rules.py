# SPDX-License-Identifier: Apache-2.0
"""Why a node between Q and DQ did not become an int8 kernel, read from the emitted graph.

The conditions are those of onnxruntime's QDQ transformer (optimizer/qdq_transformer), each held against what
onnxruntime 1.31 does in tests/backends/test_audit_rules.py. A verdict is only asked for when the optimized
graph shows a float kernel; a case that no rule covers is reported as `unknown`, never guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .charge import LINEAR
from .clamps import CLAMPS, clamp_verdict, is_redundant
from .graph_view import Q, Quant, Scope, Verdict, dq_of, float_attribute, label, quant_of, string_attribute
from .misread import bias_scale, scale_axis

if TYPE_CHECKING:
    import onnx

COMPUTING = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "Where"}
    | {"AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax"}
)
MOVING = frozenset(
    {"MaxPool", "ReduceMax", "ReduceMin", "Resize", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
    | {"Slice", "Gather", "GatherElements", "Expand", "Tile", "Split", "DepthToSpace"}
)

# Past these the runtime moves a DequantizeLinear by itself (QDQPropagation): they need no quantizer behind.
PROPAGATED = frozenset({"MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"})


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs that must come from a DequantizeLinear for the node to run on int8."""
    if node.op_type in LINEAR:
        return list(node.input[:2])
    if node.op_type == "Where":
        return list(node.input[1:3])
    if node.op_type in {"Add", "Mul", "Concat", "Sub", "Div", "Pow", "Max", "Min"}:
        return [name for name in node.input if name]
    return list(node.input[:1])


def explain(scope: Scope, node: onnx.NodeProto) -> Verdict:
    """Why this node ended in float; the first condition that does not hold."""
    op_type = node.op_type
    if op_type in CLAMPS:
        return clamp_verdict(scope, node)
    if op_type not in COMPUTING | MOVING or node.domain not in {"", "ai.onnx"}:
        return Verdict("no-int8-kernel", f"onnxruntime has no int8 rule for {op_type}")
    mode = string_attribute(node, "mode", "nearest")
    if op_type == "Resize" and mode != "nearest":
        return Verdict("no-int8-kernel", f"onnxruntime has no int8 rule for Resize in mode {mode}")
    found = _inputs(scope, node)
    if isinstance(found, Verdict):
        return found
    return (
        _output(scope, node)
        or _scaling(node)
        or _types(scope, node, found)
        or _bias(scope, node, found)
        or _moved(scope, node, found)
        or scale_axis(scope, node)
        or Verdict("unknown", "not fused, and no rule known to tersor says why")
    )


def _inputs(scope: Scope, node: onnx.NodeProto) -> list[Quant] | Verdict:
    found: list[Quant] = []
    for position, name in enumerate(data_inputs(node)):
        producer = dq_of(scope, name)
        if producer is None:
            if scope.tensor(name) is not None:
                code = "float-weight" if node.op_type in LINEAR and position == 1 else "float-constant"
                return Verdict(code, f"its constant {name!r} is float, not behind a DequantizeLinear")
            maker = scope.producer(name)
            origin = f"comes from {label(maker)!r} ({maker.op_type})" if maker else "is a graph input"
            return Verdict("float-input", f"its input {name!r} {origin} without Q and DQ between")
        quant = quant_of(scope, producer)
        if quant.scale is None or (quant.zero is None and quant.names[1]):
            return Verdict("dynamic-params", f"scale or zero point of {name!r} is not a constant")
        if scope.tensor(producer.input[0]) is None and quant.scale.size != 1:
            return Verdict("per-axis-activation", f"the activation {name!r} has more than one scale")
        found.append(quant)
    return found


def _output(scope: Scope, node: onnx.NodeProto) -> Verdict | None:
    for name in node.output:
        if name and (scope.is_output(name) or scope.readers(name)):
            verdict = _one_output(scope, node, name)
            if verdict is not None:
                return verdict
    return None


def _one_output(scope: Scope, node: onnx.NodeProto, name: str) -> Verdict | None:
    tensor = name
    readers = scope.readers(tensor)
    while len(readers) == 1 and readers[0].op_type in CLAMPS and not scope.is_output(tensor):
        clamp = readers[0]
        tensor = clamp.output[0]
        readers = scope.readers(tensor)
        quantizers = [reader for reader in readers if reader.op_type == Q]
        if quantizers and not is_redundant(scope, clamp, quant_of(scope, quantizers[0])):
            return Verdict("relu-kept", f"{clamp_verdict(scope, clamp).text} ({label(clamp)!r})")
    quantizers = [reader for reader in readers if reader.op_type == Q]
    others = [reader for reader in readers if reader.op_type != Q]
    if not quantizers:
        return _float_output(scope, node, tensor, others)
    if scope.is_output(tensor):
        return Verdict("graph-output", f"its output {tensor!r} is also a graph output in float")
    if others:
        return Verdict(
            "forked-output",
            f"besides the quantizer, {label(others[0])!r} ({others[0].op_type}) reads its output in float",
        )
    first = quant_of(scope, quantizers[0])
    if first.scale is None or (first.zero is None and first.names[1]):
        return Verdict(
            "dynamic-params", f"scale or zero point of the quantizer of {tensor!r} is not a constant"
        )
    if any(quant_of(scope, other).names != first.names for other in quantizers[1:]):
        return Verdict(
            "several-quantizers",
            f"{len(quantizers)} quantizers with scales of their own read its output; one shared Q is needed",
        )
    return None


def _float_output(
    scope: Scope, node: onnx.NodeProto, tensor: str, others: list[onnx.NodeProto]
) -> Verdict | None:
    if node.op_type == "MatMul":
        only = others[0] if len(others) == 1 else None
        if (
            only is not None
            and only.op_type == "Add"
            and any(_is_float_constant(scope, n) for n in only.input)
        ):
            return Verdict(
                "matmul-add-fusion",
                f"MatMulAddFusion joins it with {label(only)!r} to a Gemm of float bias, without int8 form; "
                "give the bias as int32 or switch MatMulAddFusion off",
            )
        return None
    if node.op_type == "Gemm":
        if len(node.input) > 2 and node.input[2] and dq_of(scope, node.input[2]) is None:
            return Verdict(
                "float-bias", "its bias is float and its output is not quantized; give an int32 bias"
            )
        return None
    if node.op_type in PROPAGATED:
        return None
    if scope.is_output(tensor):
        return Verdict("graph-output", f"its output {tensor!r} is a graph output without a quantizer")
    reader = f"; {label(others[0])!r} ({others[0].op_type}) reads it in float" if others else ""
    return Verdict("no-quantizer", f"no QuantizeLinear follows{reader}")


def _is_float_constant(scope: Scope, name: str) -> bool:
    return scope.tensor(name) is not None


def _scaling(node: onnx.NodeProto) -> Verdict | None:
    if node.op_type == "Gemm" and (
        float_attribute(node, "alpha", 1.0) != 1.0 or float_attribute(node, "beta", 1.0) != 1.0
    ):
        return Verdict("gemm-scaling", "a Gemm with alpha or beta other than 1 has no int8 form here")
    return None


def _types(scope: Scope, node: onnx.NodeProto, inputs: list[Quant]) -> Verdict | None:
    x = inputs[0].dtype
    if node.op_type in LINEAR:
        if x == np.int8 and inputs[1].dtype != np.int8:
            return Verdict("type-mismatch", f"int8 activation with {inputs[1].dtype} weight")
        others: list[np.dtype[np.generic] | None] = []
    else:
        others = [item.dtype for item in inputs[1:]]
    output = _output_quant(scope, node)
    others += [output.dtype] if output is not None else []
    if any(other != x for other in others):
        found = ", ".join(sorted({str(dtype) for dtype in [x, *others]}))
        return Verdict("type-mismatch", f"its quantized inputs and output are of different types: {found}")
    if x == np.int8:
        return Verdict(
            "signed-activation",
            "int8 activations have no kernel on x86, and this one cannot be turned into uint8 because its "
            "quantizer is read more than once; quantize it as uint8",
        )
    if x not in {np.dtype(np.uint8), np.dtype(np.int8)}:
        return Verdict("type-mismatch", f"no kernel takes {x} here")
    return None


def _output_quant(scope: Scope, node: onnx.NodeProto) -> Quant | None:
    readers = scope.readers(node.output[0])
    while len(readers) == 1 and readers[0].op_type in CLAMPS:
        readers = scope.readers(readers[0].output[0])
    quantizer = next((reader for reader in readers if reader.op_type == Q), None)
    return quant_of(scope, quantizer) if quantizer is not None else None


def _bias(scope: Scope, node: onnx.NodeProto, inputs: list[Quant]) -> Verdict | None:
    if node.op_type not in {"Conv", "Gemm"}:
        return None
    return bias_scale(scope, node, inputs[0], inputs[1])


def _moved(scope: Scope, node: onnx.NodeProto, inputs: list[Quant]) -> Verdict | None:
    if node.op_type not in MOVING:
        return None
    for name in node.output:
        for reader in scope.readers(name):
            if reader.op_type == Q and not inputs[0].same_values(quant_of(scope, reader)):
                return Verdict(
                    "params-differ",
                    f"{node.op_type} only moves elements, but its input and output are quantized differently",
                )
    return None
