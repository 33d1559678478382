# SPDX-License-Identifier: Apache-2.0
"""Constant folding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ...analysis.evaluate import Evaluator
from ...analysis.scope import Scope
from ...analysis.shape_walk import Walker
from ...analysis.shapes import DATA, infer_shapes
from ...analysis.value_types import ValueType
from ...graph_ir import INFERRED, DataError, DataType, Graph, Model, ModelError, Node, Rewriter, Value
from ...graph_ir.extract import extract_constant_nodes
from ...graph_ir.ops import (
    constant_tensor,
    has_reference_attribute,
    is_constant,
    is_op,
    is_pure,
    label,
)
from ..base import Context, Exactness, Pass, bounded

# A dequantized weight would be stored at four times its size and leave its int8 kernel.
_NEVER = frozenset({"Constant", "DequantizeLinear"})
# Operators whose output is small, though its size hangs on the data.
_BOUNDED = frozenset({"NonZero", "Unique", "Compress"})
# Types that onnxruntime hands over as they are (it gives float8 as bytes, and bfloat16 and int4 not at all).
_FOLDABLE = frozenset(
    {
        DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BOOL,
        DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64,
        DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64,
    }
)  # fmt: skip


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute what depends on constants alone, in every graph, body and function.

    The values are computed by onnxruntime with its optimizer off. Left alone: random operators, bodies,
    values a caller may override, DequantizeLinear (folding it would undo a quantized weight), strings,
    sequences, bfloat16 and types of less than a byte, and whatever would make the model larger by more than
    the budget. A size that cannot be told beforehand counts as too large: nothing huge is ever computed.

    Options:
        budget_kib: how much larger than its constant inputs one folded value may be, in KiB.
    """

    name: ClassVar[str] = "fold-constants"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    budget_kib: int = bounded(1024, 0)

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        learned = ctx.counters["sizes learned"]
        owners: list[tuple[Graph, dict[str, int]]] = [(model.graph, model.opset_imports)]
        owners += [(f.graph, f.opset_imports) for f in model.functions.values()]
        for graph, opsets in owners:
            if graph is model.graph:
                ctx.counters["constants to weights"] += _store_constants(graph, rewriter)
            left: set[Node] = set()
            while self._round(graph, opsets, model.ir_version, rewriter, ctx, left):
                pass
        if ctx.counters["sizes learned"] > learned:
            infer_shapes(model)  # what follows from a size that inference could not compute
        return rewriter.edits > 0

    def _round(
        self,
        graph: Graph,
        opsets: dict[str, int],
        ir_version: int,
        rewriter: Rewriter,
        ctx: Context,
        left: set[Node],
    ) -> bool:
        """Fold all that can be computed in one session; whether another round may find more.

        Args:
            graph: of the model or a function.
            opsets: in force there.
            ir_version: of the model.
            rewriter: the door.
            ctx: for counters.
            left: nodes that cannot be folded; grows.
        """
        walker, scope = Walker(), Scope(opsets)
        chosen: list[Node] = []
        known: set[Value] = set()
        for inner in rewriter.graphs_within(graph):
            for node in inner:
                if node not in left and self._foldable(node, known, walker, scope, ctx):
                    chosen.append(node)
                    known.update(node.outputs)
        going = dict.fromkeys(n for n in chosen if not any(o.is_graph_output() for o in n.outputs))
        frontier = [
            output
            for node in going
            for output in node.outputs
            if output.name and any(user not in going for user, _ in output.uses())
        ]
        if not frontier:
            return False
        before = len(left)
        results = _evaluate(chosen, frontier, opsets, ir_version, ctx, left)
        folded = 0
        for node in reversed(chosen):
            if node in left or node not in going:
                continue
            if self._replace(node, results, rewriter, ctx, left):
                folded += 1
        ctx.counters["folded"] += folded
        return folded > 0 or len(left) > before

    def _replace(
        self,
        node: Node,
        results: dict[Value, NDArray[Any]],
        rewriter: Rewriter,
        ctx: Context,
        left: set[Node],
    ) -> bool:
        """Put the computed values in place of the node's outputs and drop the node; False if it must stay."""
        read = [o for o in node.outputs if o.uses()]
        if any(o not in results for o in read):
            return False
        allowed = self.budget_kib * 1024 + sum(_nbytes(v) for v in node.inputs)
        if any(results[o].nbytes > allowed for o in read):
            ctx.misses["fold-constants", "larger than the budget"] += 1
            left.add(node)
            return False
        if not rewriter.allowed("fold-constants", node):
            left.add(node)
            return False
        with rewriter.standing_for([node]):
            for output in read:
                ctx.counters["sizes learned"] += _is_new_size(output)
                made = rewriter.constant(results[output], output.name or "constant", near=node)
                rewriter.replace(output, made)
            rewriter.erase(node)
        return True

    def _foldable(self, node: Node, known: set[Value], walker: Walker, scope: Scope, ctx: Context) -> bool:
        for value in node.inputs:  # asked first: it turns nearly all nodes away
            if value is None or value in known:
                continue
            producer = value.producer()
            if (producer is not None and producer.op_type != "Constant") or not is_constant(value):
                return False
        if not node.inputs or node.op_type in _NEVER or not is_pure(node) or has_reference_attribute(node):
            return False
        walker.visit(node, scope)
        types = [scope.types[o] for o in node.outputs if o.name]
        if any(t.elem not in _FOLDABLE for t in types):
            ctx.misses["fold-constants", "type that cannot be computed"] += 1
            return False
        allowed = self.budget_kib * 1024 + sum(_nbytes(v) for v in node.inputs if v not in known)
        if _likely_bytes(node, types) > allowed:
            ctx.misses["fold-constants", "larger than the budget"] += 1
            return False
        return True


def _is_new_size(value: Value) -> bool:
    """Whether the value may be a size whose number inference, which has been at work here, did not find."""
    integers = value.dtype in (DataType.INT64, DataType.INT32)
    short = value.shape is not None and len(value.shape) <= 1
    return integers and short and INFERRED in value.meta and DATA not in value.meta.data


def _nbytes(value: Value | None) -> int:
    tensor = constant_tensor(value)
    return 0 if tensor is None else tensor.nbytes


def _likely_bytes(node: Node, types: list[ValueType]) -> float:
    """Bytes the node's outputs will take; inf when that cannot be told before running it."""
    if is_op(node, *_BOUNDED):
        tensors = [constant_tensor(v) for v in node.inputs]
        most = sum(t.size * max(1, len(t.shape)) for t in tensors if t is not None)
        return float("inf") if None in tensors[:1] else 8.0 * most * len(types)
    total = 0.0
    for known in types:
        if known.dims is None or not known.static:
            return float("inf")
        elements = prod(float(d) for d in known.dims if isinstance(d, int))
        total += elements * DataType(known.elem).itemsize
    return total


def _store_constants(graph: Graph, rewriter: Rewriter) -> int:
    """Turn Constant nodes into initializers, which every reader of the format treats alike."""
    moved = 0
    if not rewriter.occurs("Constant"):
        return moved
    for inner in rewriter.graphs_within(graph):
        for node in [n for n in inner if n.op_type == "Constant"]:
            if not is_op(node, "Constant") or node.outputs[0].is_graph_output():
                continue
            tensor = constant_tensor(node.outputs[0])
            if tensor is None or not rewriter.allowed("fold-constants", node):
                continue
            with rewriter.standing_for([node]):
                made = rewriter.constant(tensor, node.outputs[0].name or "constant", near=node)
                rewriter.replace(node.outputs[0], made)
                rewriter.erase(node)
            moved += 1
    return moved


def _evaluate(
    nodes: list[Node],
    outputs: list[Value],
    opsets: dict[str, int],
    ir_version: int,
    ctx: Context,
    left: set[Node],
) -> dict[Value, NDArray[Any]]:
    """Values of the outputs, computed by the nodes; those onnxruntime cannot compute are left out.

    When one node of many fails, the rest must not go unfolded: the outputs are then halved, and halved again.
    """
    try:
        found = Evaluator(extract_constant_nodes(nodes, outputs, opsets, ir_version)).run({})
    except (ModelError, DataError) as error:
        if len(outputs) > 1:
            half = len(outputs) // 2
            results: dict[Value, NDArray[Any]] = {}
            for part in (outputs[:half], outputs[half:]):
                results |= _evaluate(_needed(nodes, part), part, opsets, ir_version, ctx, left)
            return results
        culprit, reason = _culprit(nodes, opsets, ir_version, error)
        left.add(culprit)
        ctx.note(f"node {label(culprit)!r} was not folded: {reason}")
        return {}
    arrays = zip(outputs, cast("Iterable[object]", found.values()), strict=True)
    return {o: a for o, a in arrays if isinstance(a, np.ndarray)}


def _culprit(
    nodes: list[Node], opsets: dict[str, int], ir_version: int, error: Exception
) -> tuple[Node, Exception]:
    """The first node that cannot be computed, and why, given that all of them together cannot."""
    low, high = 1, len(nodes)
    while low < high:
        middle = (low + high) // 2
        some = nodes[:middle]
        read = {v for node in some for v in node.inputs}
        ends = [o for node in some for o in node.outputs if o.name and o not in read]
        try:
            Evaluator(extract_constant_nodes(some, ends, opsets, ir_version)).run({})
            low = middle + 1
        except (ModelError, DataError) as again:
            high, error = middle, again
    return nodes[low - 1], error


def _needed(nodes: list[Node], outputs: list[Value]) -> list[Node]:
    """Those of the nodes that the outputs are computed by."""
    wanted = {o.producer() for o in outputs}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node in wanted:
            kept.append(node)
            wanted.update(v.producer() for v in node.inputs if v is not None)
    return kept[::-1]
