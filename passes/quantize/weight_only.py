# SPDX-License-Identifier: Apache-2.0
"""Narrow weights that are widened as they are read, with float activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...graph_ir import Graph, Model, Node, Rewriter, UsageError, Value, constant
from ...graph_ir.numerics import pack_int4
from ...graph_ir.ops import float_attr, has_reference_attribute, input_at, is_op, walk_graphs
from ...graph_ir.origins import goes_by
from ..base import Context, Exactness, Pass
from ..linear.rows import RowView
from .kinds import refuse_linear
from .row_grid import RowGrid, block_grid
from .values import drop_orphans, used_initializers

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCKED_DQ_OPSET = 21
GROUPS = (16, 32, 64, 128, 256)
KINDS = ("MatMul", "Gemm")

Ready = dict[tuple[Value, bool, float, "Graph | None"], tuple[Value, ...]]
"""The constants made of a weight, by it, whether its rows are outputs, what scales it, and their graph.

onnxruntime looks for what DequantizeLinear reads in the very graph that has the node, and refuses the model
where it is not; all else is in the main graph.
"""


@dataclass(frozen=True)
class WeightOnly(Pass):
    """Store the weights of MatMul and Gemm in 4 or 8 bits, one scale for each group of inputs.

    Each output's weights are cut into groups of `group` inputs; a group has its own scale and, if not
    symmetric, its own zero point. Activations stay float. In `matmulnbits` form a layer becomes one
    com.microsoft MatMulNBits (and an Add of the bias), which onnxruntime reads in place; its definition is in
    onnxruntime's docs/ContribOperators.md. In `dq` form the weights stand behind a standard blocked
    DequantizeLinear (opset 21), which any runtime understands; onnxruntime from 1.25 on makes the same
    MatMulNBits of it, with the accuracy level that the session says (4 if nothing). Before 1.25 it does so
    only for a MatMul of 4 bits without a bias, and widens other weights in every run. Gemm's factors go into
    the constants.

    It saves memory and load time, and time where reading weights is what takes it (few rows at a time). Left
    alone: weights that are not a constant float32 matrix, and what `insert-qdq` would refuse for the node
    itself. To choose codes by data run `gptq` with the same bits, group and symmetry before it.

    Options:
        bits: 4 or 8.
        group: inputs per scale: 16, 32, 64, 128 or 256.
        form: `matmulnbits` or `dq`.
        symmetric: codes round 0, no zero points; else from the lowest to the highest weight of a group.
        accuracy_level: of MatMulNBits: 0 or 1 computes in float32, 4 rounds activations to int8 as it goes.
        exclude: labels or origins of nodes that are left alone.
    """

    name: ClassVar[str] = "weight-only"
    exact: ClassVar[Exactness] = Exactness.LOSSY

    bits: int = 4
    group: int = 32
    form: Literal["matmulnbits", "dq"] = "matmulnbits"
    symmetric: bool = True
    accuracy_level: int = 4
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise UsageError(f"weight-only takes 4 or 8 bits, not {self.bits}")
        if self.group not in GROUPS:
            raise UsageError(f"weight-only takes groups of {', '.join(map(str, GROUPS))}, not {self.group}")
        if self.accuracy_level not in range(5):
            raise UsageError(f"weight-only takes an accuracy-level from 0 to 4, not {self.accuracy_level}")

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite every graph, body and function.

        Raises:
            UsageError: in `dq` form below opset 21.
        """
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        exclude = set(self.exclude)
        ready: Ready = {}
        for graph in walk_graphs(model):
            for node in list(graph):
                if not is_op(node, *KINDS):
                    continue
                reason = "`exclude` names it" if goes_by(node, exclude) else self._refuse(node)
                if reason is not None:
                    ctx.misses[self.name, reason] += 1
                elif rewriter.allowed(self.name, node):
                    self._rewrite(node, rewriter, ready)
                    ctx.counters[self.name] += 1
        drop_orphans(rewriter, used)
        return rewriter.edits > 0

    def _refuse(self, node: Node) -> str | None:
        if has_reference_attribute(node):
            return "an attribute is set by the function's caller"
        return refuse_linear(node)

    def _rewrite(self, node: Node, rw: Rewriter, ready: Ready) -> None:
        if self.form == "dq" and (version := rw.opset(node)) < BLOCKED_DQ_OPSET:
            raise UsageError(
                f"weight-only{{form=dq}} needs opset {BLOCKED_DQ_OPSET} and the model has {version}; "
                f"run raise-opset{{to={BLOCKED_DQ_OPSET}}} before it"
            )
        source = node.inputs[1]
        weights = constant(source)
        assert source is not None
        assert weights is not None
        read, alpha, beta = RowView(node, weights.shape), 1.0, 1.0
        if node.op_type == "Gemm":
            alpha, beta = float_attr(node, "alpha", 1.0), float_attr(node, "beta", 1.0)
        key = source, read.by_row, alpha, node.graph if self.form == "dq" else None
        if key not in ready or not source.is_initializer():
            rows = np.asarray(read.rows(weights) * np.float32(alpha))
            make = self._blocked if self.form == "dq" else self._packed
            ready[key] = make(rows, source, rw, node)
        bias = input_at(node, 2)
        if bias is not None and beta != 1.0:
            array = constant(bias)
            assert array is not None
            bias = rw.constant(np.asarray(array * np.float32(beta)), bias.name or "bias", node)
        with rw.standing_for([node]):
            if self.form == "dq":
                self._dequantized(node, ready[key], bias, source.name or "weight", rw)
            else:
                self._fused(node, ready[key], bias, read, rw)

    def _grid(self, rows: NDArray[Any]) -> RowGrid:
        return block_grid(rows, self.bits, self.group, symmetric=self.symmetric)

    def _dequantized(
        self, node: Node, ready: tuple[Value, ...], bias: Value | None, name: str, rw: Rewriter
    ) -> None:
        """Put a DequantizeLinear before the node, which is left without factors: else nothing would fuse."""
        attributes = {"axis": 0, "block_size": self.group}
        wide = rw.node("DequantizeLinear", ready, attributes, before=node, name=f"{name}_dequantized")
        rw.set_input(node, 1, wide.outputs[0])
        if node.op_type == "Gemm":
            if bias is not None:
                rw.set_input(node, 2, bias)
            for attribute in ("alpha", "beta", "transB"):
                rw.set_attribute(node, attribute, None)

    def _fused(
        self, node: Node, ready: tuple[Value, ...], bias: Value | None, read: RowView, rw: Rewriter
    ) -> None:
        """Replace the node by MatMulNBits, and an Add of its bias."""
        rw.import_domain(node, MICROSOFT)
        attributes = {
            "K": read.inputs,
            "N": read.outputs,
            "bits": self.bits,
            "block_size": self.group,
            "accuracy_level": self.accuracy_level,
        }
        name = node.name or node.outputs[0].name or node.op_type
        operands = [node.inputs[0], *ready]
        made = rw.node("MatMulNBits", operands, attributes, before=node, name=name, domain=MICROSOFT)
        if bias is not None:
            made = rw.node("Add", [made.outputs[0], bias], before=node, name=f"{name}_bias")
        rw.replace(node.outputs[0], made.outputs[0])
        rw.erase(node)

    def _blocked(self, rows: NDArray[Any], source: Value, rw: Rewriter, node: Node) -> tuple[Value, ...]:
        """Codes [K, N], scales [groups, N] and, if any, zero points: what DequantizeLinear reads."""
        grid = self._grid(rows)
        made = [_narrow(grid.quantize(rows), self.bits, signed=self.symmetric), grid.scale]
        if not self.symmetric:
            made.append(_narrow(grid.zero, self.bits, signed=False))
        return tuple(
            rw.constant(np.ascontiguousarray(np.transpose(array)), f"{source.name}_{name}", node, inside=True)
            for name, array in zip(("quantized", "scale", "zero_point"), made, strict=False)
        )

    def _packed(self, rows: NDArray[Any], source: Value, rw: Rewriter, node: Node) -> tuple[Value, ...]:
        """Codes uint8 [N, blocks, bytes], scales [N * blocks] and, if any, zero points [N * bytes]."""
        grid = self._grid(rows)
        middle = 2 ** (self.bits - 1) if self.symmetric else 0
        count, blocks = grid.scale.shape
        zero = (grid.zero + middle).astype(np.uint8)
        codes = np.repeat(zero, self.group, axis=1)  # what lies behind the last input is worth 0
        codes[:, : rows.shape[1]] = grid.quantize(rows) + middle
        packed = codes if self.bits == 8 else pack_int4(codes)
        name = source.name or "weight"
        made = [
            rw.constant(packed.reshape(count, blocks, -1), f"{name}_quantized", node),
            rw.constant(grid.scale.reshape(-1), f"{name}_scale", node),
        ]
        if not self.symmetric:
            even = np.pad(zero, ((0, 0), (0, blocks % 2)))
            points = zero if self.bits == 8 else pack_int4(even)
            made.append(rw.constant(points.reshape(-1), f"{name}_zero_point", node))
        return tuple(made)


def _narrow(codes: NDArray[np.int64], bits: int, *, signed: bool) -> NDArray[Any]:
    """Codes in the integer type of their width."""
    if bits == 8:
        return codes.astype(np.int8 if signed else np.uint8)
    import ml_dtypes

    return codes.astype(np.int8 if signed else np.uint8).astype(ml_dtypes.int4 if signed else ml_dtypes.uint4)
