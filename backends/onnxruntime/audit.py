# SPDX-License-Identifier: Apache-2.0
"""The fusion audit: what each quantized node of an emitted model became in onnxruntime, and why.

A Q/DQ group that misses one fusion rule is not a little slower: the node runs in float and its int8 weight is
dequantized again in every run. So onnxruntime itself optimizes the emitted model, the result is read
back, and every node that did not end in an int8 kernel is reported with the rule it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .charge import LINEAR, Kernel, SourceNode
from .config import SessionConfig
from .graph_view import DQ, Q, Scope, Verdict
from .misread import misread
from .optimized import Optimized, optimized_with_sources
from .precision import BOUNDARY, LAYOUT, SHAPED, Precision, integer_tensors, precision_of
from .rules import data_inputs, explain
from .source import ModelSource

if TYPE_CHECKING:
    import onnx

_DEFAULT = SessionConfig()
COUNTED = LINEAR | {
    "LSTM", "GRU", "RNN", "DynamicQuantizeLSTM",
    "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits",
}  # fmt: skip
"""Operators of linear nodes: products with weights, recurrent layers and quantized forms among them."""


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
        misread: an int8 kernel took the parameters otherwise than the Q/DQ nodes say: its numbers are wrong.
    """

    node: str
    op_type: str
    kernel: str
    precision: Precision
    code: str = ""
    reason: str = ""
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
    """What onnxruntime made of a quantized model; shares are between 0 and 1 (1 with nothing to count).

    Attributes:
        rows: a row for each node, in graph order.
        leftovers: weights that are dequantized in every run.
        quantizers: QuantizeLinear and DequantizeLinear that are left.
        linear_total: nodes that hold the work: convolutions, products, recurrent layers.
        linear_int8: how many of them run in int8.
        macs_total: multiply-accumulates of one run, of those nodes.
        macs_int8: the same of those in int8.
    """

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
        return audit_of(optimized, macs or {})


def audit_of(optimized: Optimized, macs: Mapping[str, float]) -> Audit:
    """`audit` of a graph that is open already."""
    kernels: dict[int, list[Kernel]] = {}
    for kernel in optimized.kernels:
        for index in kernel.sources:
            kernels.setdefault(index, []).append(kernel)
    integers = integer_tensors(optimized.kernels)
    rows = tuple(
        _row(item, kernels.get(item.index, []), integers, optimized.left_float)
        for item in optimized.sources
        if _concerned(item)
    )
    linear = [row for row in rows if row.op_type in COUNTED]
    narrow = [row for row in linear if row.precision in ("int8", "dynamic")]
    return Audit(
        rows=rows,
        leftovers=_leftovers(optimized),
        quantizers=sum(kernel.node.op_type in BOUNDARY for kernel in optimized.kernels),
        linear_total=len(linear),
        linear_int8=len(narrow),
        macs_total=float(sum(macs.get(row.node, 0) for row in linear)),
        macs_int8=float(sum(macs.get(row.node, 0) for row in narrow)),
    )


def _concerned(item: SourceNode) -> bool:
    node, scope = item.node, item.scope
    if node.op_type in BOUNDARY or node.op_type == "Constant":
        return False
    if node.op_type in COUNTED:
        return True
    made = (scope.producer(name) for name in node.input if name)
    return any(maker is not None and maker.op_type == DQ for maker in made) or any(
        reader.op_type == Q for name in node.output if name for reader in scope.readers(name)
    )


def _row(
    item: SourceNode,
    kernels: Sequence[Kernel],
    integers: frozenset[tuple[int, str]],
    left_float: Mapping[str, str],
) -> AuditRow:
    node, scope = item.node, item.scope
    own = [kernel for kernel in kernels if kernel.node.op_type not in BOUNDARY | LAYOUT] or list(kernels)
    title = "+".join(dict.fromkeys(kernel.node.op_type for kernel in own))
    if not own:
        return AuditRow(item.label, node.op_type, "", "gone", reason="removed or merged by the optimizer")
    precision = precision_of(own, integers)
    if precision == "float":
        dequantized = _reads_constant(scope, node) and any(map(_weight_dequantized, own))
        verdict = explain(scope, node)
        chosen = item.label in left_float or not _quantized(scope, node)
        if node.op_type in LINEAR and chosen and not dequantized:
            verdict = Verdict("not-quantized", left_float.get(item.label, "it has no quantized input"))
        return AuditRow(item.label, node.op_type, title, precision, verdict.code, verdict.text)
    wrong = misread(scope, node) if precision == "int8" else None
    if wrong is None:
        return AuditRow(item.label, node.op_type, title, precision)
    return AuditRow(item.label, node.op_type, title, precision, wrong.code, wrong.text, misread=True)


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


def _weight_dequantized(kernel: Kernel) -> bool:
    scope = kernel.scope
    for name in kernel.node.input:
        maker = scope.producer(name) if name else None
        if maker is not None and maker.op_type in SHAPED and maker.input:
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
