# SPDX-License-Identifier: Apache-2.0
"""In which precision a kernel of the optimized graph computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from .charge import Kernel
from .graph_view import DQ, Q, Scope

if TYPE_CHECKING:
    import onnx

Precision: TypeAlias = Literal["int8", "float", "dynamic", "gone"]
"""int8: integer kernel (or data movement on integers); float; dynamic: float activations quantized at run
time, or weight-only; gone: folded away or merged into another node's kernel."""

BOUNDARY = frozenset({Q, DQ})
LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
SHAPED = frozenset(
    {"ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
)

_DYNAMIC = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits", "DynamicQuantizeLinear"})
_INTEGER = frozenset({"QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger", "QAttention"})
_INT_TYPES = frozenset({2, 3, 4, 5, 21, 22})  # TensorProto: uint8 int8 uint16 int16 uint4 int4


def precision_of(kernels: Sequence[Kernel], integers: frozenset[tuple[int, str]]) -> Precision:
    """The precision of a node that became these kernels; changes of layout beside others do not count."""
    core = [kernel for kernel in kernels if kernel.node.op_type not in SHAPED] or list(kernels)
    found = {kernel_precision(kernel, integers) for kernel in core}
    if "float" in found:
        return "float"
    return "dynamic" if "dynamic" in found else "int8"


def kernel_precision(kernel: Kernel, integers: frozenset[tuple[int, str]]) -> Precision:
    """The precision of one kernel, given the tensors of integers (`integer_tensors`)."""
    node, scope = kernel.node, kernel.scope
    if node.op_type in _DYNAMIC:
        return "dynamic"
    if node.op_type in _INTEGER:
        maker = scope.producer(node.input[0])
        return "dynamic" if maker is not None and maker.op_type == "DynamicQuantizeLinear" else "int8"
    if node.op_type.startswith("QLinear"):
        return "int8"
    if node.op_type in BOUNDARY:
        return "int8"  # the node itself is gone: only its quantizer carries the tensor on
    return "int8" if any(_is_integer(scope, name, integers) for name in node.input[:1]) else "float"


def _is_integer(scope: Scope, name: str, integers: frozenset[tuple[int, str]]) -> bool:
    owner = scope.owner(name)
    return owner is not None and (id(owner), name) in integers


def integer_tensors(kernels: Sequence[Kernel]) -> frozenset[tuple[int, str]]:
    """Tensors of 16 bits and less, as (scope, name): onnxruntime's saved graph carries no types."""
    found: set[tuple[int, str]] = set()
    for scope in {id(kernel.scope): kernel.scope for kernel in kernels}.values():
        for value in scope.graph.input:
            if value.type.tensor_type.elem_type in _INT_TYPES:
                found.add((id(scope), value.name))
        for tensor in scope.graph.initializer:
            if tensor.data_type in _INT_TYPES:
                found.add((id(scope), tensor.name))
    for kernel in kernels:
        node, scope = kernel.node, kernel.scope
        source = scope.owner(node.input[0]) if node.input and node.input[0] else None
        carried = source is not None and (id(source), node.input[0]) in found and node.op_type != DQ
        if _makes_integers(node) or (carried and not _makes_floats(node)):
            found.update((id(scope), name) for name in node.output if name)
    return frozenset(found)


def _makes_integers(node: onnx.NodeProto) -> bool:
    if node.op_type == "QGemm":
        return len(node.input) > 7 and bool(node.input[7])
    return node.op_type == Q or node.op_type.startswith("QLinear")


def _makes_floats(node: onnx.NodeProto) -> bool:
    return node.op_type in _INTEGER or node.op_type in {
        "Cast",
        "Shape",
        "Size",
        "ArgMax",
        "ArgMin",
        "MatMulNBits",
    }
