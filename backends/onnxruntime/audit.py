# SPDX-License-Identifier: Apache-2.0
"""The fusion audit: what each quantized node of an emitted model became in onnxruntime, and why.

A Q/DQ group that misses one fusion rule is not a little slower: the node runs in float and its int8 weight is
dequantized again in every run. So onnxruntime itself optimizes the emitted model, the result is read
back, and every node that did not end in an int8 kernel is reported with the rule it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from .charge import LINEAR, Kernel, SourceNode
from .config import SessionConfig
from .graph_view import DQ, Q, Scope, Verdict
from .misread import misread
from .optimized import Optimized, optimized_with_sources
from .rules import data_inputs, explain
from .source import ModelSource

if TYPE_CHECKING:
    import onnx

Precision: TypeAlias = Literal["int8", "float", "dynamic", "gone"]
"""int8: integer kernel (or data movement on integers); float; dynamic: float activations quantized at run
time, or weight-only; gone: folded away or merged into another node's kernel."""

_DEFAULT = SessionConfig()
_DYNAMIC = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits", "DynamicQuantizeLinear"})
_INTEGER = frozenset({"QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger", "QAttention"})
_COUNTED = LINEAR | {"MatMulInteger", "ConvInteger"}
_BOUNDARY = frozenset({Q, DQ})
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput"})
_SHAPED = frozenset(
    {"ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
)
_INT_TYPES = frozenset({2, 3, 4, 5, 21, 22})  # TensorProto: uint8 int8 uint16 int16 uint4 int4


@dataclass(frozen=True)
class AuditRow:
    """One node of the emitted model.

    Attributes:
        node: its name (or `Op(output)`).
        op_type: its operator.
        kernel: the operators it became, joined by `+`; empty when it is gone.
        precision: see `Precision`.
        code: which rule it breaks (`graph-output`, `forked-output`, ...; tersor's own short names).
        reason: the same in a sentence; empty when all is well.
        weight_dequantized_each_run: an int8 constant is turned into float again in every run.
        misread: an int8 kernel took the parameters otherwise than the Q/DQ nodes say: its numbers are wrong.
    """

    node: str
    op_type: str
    kernel: str
    precision: Precision
    code: str = ""
    reason: str = ""
    weight_dequantized_each_run: bool = False
    misread: bool = False


@dataclass(frozen=True)
class LeftoverDequantize:
    """A constant of so many elements, dequantized in every run, and the source nodes that read it."""

    node: str
    initializer: str
    elements: int
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """Rows in graph order; shares are between 0 and 1 (1 when there is nothing to count)."""

    rows: tuple[AuditRow, ...]
    leftovers: tuple[LeftoverDequantize, ...]
    quantizers: int
    linear_total: int
    linear_int8: int
    macs_total: float
    macs_int8: float

    @property
    def misses(self) -> tuple[AuditRow, ...]:
        """Rows that stayed in float."""
        return tuple(row for row in self.rows if row.precision == "float")

    @property
    def misread(self) -> tuple[AuditRow, ...]:
        """Rows whose int8 kernel computes something else than the model says."""
        return tuple(row for row in self.rows if row.misread)

    @property
    def linear_share(self) -> float:
        """Share of Conv, ConvTranspose, Gemm and MatMul nodes in int8, dynamic ones included."""
        return self.linear_int8 / self.linear_total if self.linear_total else 1.0

    @property
    def macs_share(self) -> float:
        """Share of multiply-accumulates in int8; 1 when no costs were given."""
        return self.macs_int8 / self.macs_total if self.macs_total else 1.0


def audit(
    model: ModelSource, config: SessionConfig = _DEFAULT, *, macs: Mapping[str, float] | None = None
) -> Audit:
    """Optimize an emitted Q/DQ model with onnxruntime and report what became of it.

    Args:
        model: path, bytes or proto; left unchanged.
        config: the options that will lie beside it.
        macs: multiply-accumulates by node name (as in `AuditRow.node`), for the weighted share.

    Every linear node has a row, quantized or not; other nodes have one when they touch a Q or DQ.

    Raises:
        BackendError: onnxruntime refuses the model.
    """
    with optimized_with_sources(model, config) as optimized:
        return _audit(optimized, macs or {})


def _audit(optimized: Optimized, macs: Mapping[str, float]) -> Audit:
    kernels: dict[int, list[Kernel]] = {}
    for kernel in optimized.kernels:
        for index in kernel.sources:
            kernels.setdefault(index, []).append(kernel)
    integers = _integer_tensors(optimized.kernels)
    rows = tuple(
        _row(item, kernels.get(item.index, []), integers) for item in optimized.sources if _concerned(item)
    )
    linear = [row for row in rows if row.op_type in _COUNTED]
    narrow = [row for row in linear if row.precision in ("int8", "dynamic")]
    return Audit(
        rows=rows,
        leftovers=_leftovers(optimized),
        quantizers=sum(kernel.node.op_type in _BOUNDARY for kernel in optimized.kernels),
        linear_total=len(linear),
        linear_int8=len(narrow),
        macs_total=float(sum(macs.get(row.node, 0) for row in linear)),
        macs_int8=float(sum(macs.get(row.node, 0) for row in narrow)),
    )


def _concerned(item: SourceNode) -> bool:
    node, scope = item.node, item.scope
    if node.op_type in _BOUNDARY or node.op_type == "Constant":
        return False
    if node.op_type in _COUNTED:
        return True
    made = (scope.producer(name) for name in node.input if name)
    return any(maker is not None and maker.op_type == DQ for maker in made) or any(
        reader.op_type == Q for name in node.output if name for reader in scope.readers(name)
    )


def _row(item: SourceNode, kernels: Sequence[Kernel], integers: frozenset[tuple[int, str]]) -> AuditRow:
    node, scope = item.node, item.scope
    own = [kernel for kernel in kernels if kernel.node.op_type not in _BOUNDARY | _LAYOUT] or list(kernels)
    title = "+".join(dict.fromkeys(kernel.node.op_type for kernel in own))
    if not own:
        return AuditRow(item.label, node.op_type, "", "gone", reason="removed or merged by the optimizer")
    precision = _precision(own, integers)
    dequantized = _reads_constant(scope, node) and any(_weight_dequantized(kernel) for kernel in own)
    if precision == "float":
        verdict = explain(scope, node)
        if node.op_type in LINEAR and not _quantized(scope, node) and not dequantized:
            verdict = Verdict("not-quantized", "it has no quantized input")
        return AuditRow(item.label, node.op_type, title, precision, verdict.code, verdict.text, dequantized)
    wrong = misread(scope, node) if precision == "int8" else None
    if wrong is None:
        return AuditRow(item.label, node.op_type, title, precision, weight_dequantized_each_run=dequantized)
    return AuditRow(
        item.label, node.op_type, title, precision, wrong.code, wrong.text, dequantized, misread=True
    )


def _reads_constant(scope: Scope, node: onnx.NodeProto) -> bool:
    makers = [(name, scope.producer(name)) for name in node.input if name]
    return any(
        scope.tensor(name if maker is None else maker.input[0]) is not None
        for name, maker in makers
        if maker is None or maker.op_type == DQ
    )


def _quantized(scope: Scope, node: onnx.NodeProto) -> bool:
    makers = (scope.producer(name) for name in data_inputs(node))
    return any(maker is not None and maker.op_type == DQ for maker in makers)


def _precision(kernels: Sequence[Kernel], integers: frozenset[tuple[int, str]]) -> Precision:
    core = [kernel for kernel in kernels if kernel.node.op_type not in _SHAPED] or list(kernels)
    found = {_kernel_precision(kernel, integers) for kernel in core}
    if "float" in found:
        return "float"
    return "dynamic" if "dynamic" in found else "int8"


def _kernel_precision(kernel: Kernel, integers: frozenset[tuple[int, str]]) -> Precision:
    node, scope = kernel.node, kernel.scope
    if node.op_type in _DYNAMIC:
        return "dynamic"
    if node.op_type in _INTEGER:
        maker = scope.producer(node.input[0])
        return "dynamic" if maker is not None and maker.op_type == "DynamicQuantizeLinear" else "int8"
    if node.op_type.startswith("QLinear"):
        return "int8"
    if node.op_type in _BOUNDARY:
        return "int8"  # the node itself is gone: only its quantizer carries the tensor on
    return "int8" if any(_is_integer(scope, name, integers) for name in node.input[:1]) else "float"


def _is_integer(scope: Scope, name: str, integers: frozenset[tuple[int, str]]) -> bool:
    owner = scope.owner(name)
    return owner is not None and (id(owner), name) in integers


def _integer_tensors(kernels: Sequence[Kernel]) -> frozenset[tuple[int, str]]:
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


def _weight_dequantized(kernel: Kernel) -> bool:
    scope = kernel.scope
    for name in kernel.node.input:
        maker = scope.producer(name) if name else None
        if maker is not None and maker.op_type in _SHAPED and maker.input:
            maker = scope.producer(maker.input[0])
        if maker is not None and maker.op_type == DQ and scope.tensor(maker.input[0]) is not None:
            return True
    return False


def _leftovers(optimized: Optimized) -> tuple[LeftoverDequantize, ...]:
    names = {item.index: item.label for item in optimized.sources}
    sources_of = {id(kernel.node): kernel.sources for kernel in optimized.kernels}
    found: list[LeftoverDequantize] = []
    for kernel in optimized.kernels:
        node, scope = kernel.node, kernel.scope
        tensor = scope.tensor(node.input[0]) if node.op_type == DQ else None
        if tensor is None:
            continue
        readers = dict.fromkeys(
            names[index]
            for reader in scope.readers(node.output[0])
            for index in sources_of.get(id(reader), ())
        )
        title = names[kernel.sources[0]] if kernel.sources else node.name
        found.append(
            LeftoverDequantize(title, tensor.name, int(np.prod(tensor.dims, dtype=np.int64)), tuple(readers))
        )
    return tuple(found)
