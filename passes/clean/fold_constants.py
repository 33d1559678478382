# SPDX-License-Identifier: Apache-2.0
"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...analysis.evaluate import Evaluator
from ...graph_ir import DataError, Graph, Model, ModelError, Node, Rewriter, Value, constant
from ...graph_ir.extract import extract_constant_nodes
from ...graph_ir.ops import (
    constant_tensor,
    graphs_within,
    has_reference_attribute,
    input_at,
    is_constant,
    is_op,
    is_pure,
    label,
    static_shape,
)
from ..base import Context, Exactness, Pass

# A dequantized weight would be stored at four times its size and leave its int8 kernel.
_NEVER = frozenset({"Constant", "DequantizeLinear"})
# Operators whose output can be far larger than their inputs, with the input that says how large.
_GROWERS = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Tile": 1,
    "Range": 1,
    "Resize": 3,
    "Upsample": 1,
    "Pad": 1,
    "OneHot": 1,
}
_SEQUENCES = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceAt", "SequenceLength",
     "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
     "StringSplit", "ImageDecoder"}
)  # fmt: skip
_FOLDABLE_KINDS = "fiub"
_SMALL_ELEMENTS = 1 << 16
_MOST_BROADCAST = 1e9


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute what depends on constants alone, in every graph, body and function.

    The values are computed by onnxruntime with its optimizer off. Left alone: random operators, bodies,
    values a caller may override, DequantizeLinear (folding it would undo a quantized weight), strings, and
    whatever would make the model larger by more than the budget.

    Options:
        budget_kib: how much larger than its constant inputs one folded value may be, in KiB.
    """

    name: ClassVar[str] = "fold-constants"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    budget_kib: int = 1024

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        owners: list[tuple[Graph, dict[str, int]]] = [(model.graph, model.opset_imports)]
        owners += [(f.graph, f.opset_imports) for f in model.functions.values()]
        for graph, opsets in owners:
            if graph is model.graph:
                ctx.counters["constants to weights"] += _store_constants(graph, rewriter)
            while folded := self._round(graph, opsets, model, rewriter, ctx):
                ctx.counters["folded"] += folded
        return rewriter.edits > 0

    def _round(
        self, graph: Graph, opsets: dict[str, int], model: Model, rewriter: Rewriter, ctx: Context
    ) -> int:
        """Fold all that can be computed in one session; how many nodes went away."""
        chosen: list[Node] = []
        known: set[Value] = set()
        for inner in graphs_within(graph):
            for node in inner:
                if self._foldable(node, known, ctx):
                    chosen.append(node)
                    known.update(node.outputs)
        chosen_set = set(chosen)
        frontier = [
            output
            for node in chosen
            for output in node.outputs
            if output.name and any(user not in chosen_set for user, _ in output.uses())
        ]
        if not frontier:
            return 0
        results = _evaluate(chosen, frontier, opsets, model.ir_version, ctx)
        folded = 0
        for node in reversed(chosen):
            if any(o.is_graph_output() for o in node.outputs):
                continue
            if self._replace(node, results, rewriter, ctx):
                folded += 1
        return folded

    def _replace(
        self, node: Node, results: dict[Value, NDArray[Any]], rewriter: Rewriter, ctx: Context
    ) -> bool:
        """Put the computed values in place of the node's outputs and drop the node; False if it must stay."""
        read = [o for o in node.outputs if o.uses()]
        if any(o not in results for o in read):
            return False
        allowed = self.budget_kib * 1024 + sum(_nbytes(v) for v in node.inputs)
        if any(results[o].nbytes > allowed for o in read):
            ctx.misses["fold-constants", "larger than the budget"] += 1
            return False
        if not rewriter.allowed("fold-constants", node):
            return False
        with rewriter.standing_for([node]):
            for output in read:
                made = rewriter.constant(results[output], output.name or "constant", near=node)
                rewriter.replace(output, made)
            rewriter.erase(node)
        return True

    def _foldable(self, node: Node, known: set[Value], ctx: Context) -> bool:
        if not node.inputs or node.op_type in _NEVER or node.op_type in _SEQUENCES:
            return False
        if not is_pure(node) or has_reference_attribute(node):
            return False
        if any(v is not None and v not in known and not is_constant(v) for v in node.inputs):
            return False
        if any(
            o.dtype is not None and not o.dtype.is_floating_point() and o.dtype.is_string()
            for o in node.outputs
        ):
            return False
        allowed = self.budget_kib * 1024 + sum(_nbytes(v) for v in node.inputs if v not in known)
        if _likely_bytes(node, known) > allowed:
            ctx.misses["fold-constants", "larger than the budget"] += 1
            return False
        return True


def _nbytes(value: Value | None) -> int:
    tensor = constant_tensor(value)
    return 0 if tensor is None else tensor.nbytes


def _likely_bytes(node: Node, known: set[Value]) -> float:
    """Bytes the node's outputs will take, as far as can be told before running; inf when it cannot."""
    shapes = [static_shape(o) for o in node.outputs if o.name]
    if shapes and all(s is not None for s in shapes):
        return float(sum(8 * float(np.prod(s, dtype=np.float64)) for s in shapes if s is not None))
    if node.op_type in _GROWERS:
        sizes = constant(input_at(node, _GROWERS[node.op_type]))
        if sizes is None or input_at(node, _GROWERS[node.op_type]) in known:
            return float("inf")
        if is_op(node, "ConstantOfShape", "Expand"):
            return 8 * float(np.prod(sizes, dtype=np.float64))
        if is_op(node, "Range"):
            start, delta = (constant(input_at(node, i)) for i in (0, 2))
            if start is None or delta is None or not np.all(delta):
                return float("inf")
            return 8 * abs(float(sizes.reshape(()) - start.reshape(())) / float(delta.reshape(())))
        return float("inf")
    elements = [0 if (t := constant_tensor(v)) is None else t.size for v in node.inputs]
    return (
        0.0
        if max(elements) <= _SMALL_ELEMENTS and float(np.prod(np.maximum(elements, 1.0))) < 1e9
        else float("inf")
    )


def _store_constants(graph: Graph, rewriter: Rewriter) -> int:
    """Turn Constant nodes into initializers, which every reader of the format treats alike."""
    moved = 0
    for inner in graphs_within(graph):
        for node in list(inner):
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
    nodes: list[Node], outputs: list[Value], opsets: dict[str, int], ir_version: int, ctx: Context
) -> dict[Value, NDArray[Any]]:
    """Values of the outputs; those onnxruntime cannot compute are left out.

    When one node of many fails, the rest must not go unfolded: the nodes are then computed one by one.
    """
    try:
        found = Evaluator(extract_constant_nodes(nodes, outputs, opsets, ir_version)).run({})
    except (ModelError, DataError) as error:
        if len(nodes) > 1:
            results: dict[Value, NDArray[Any]] = {}
            for node in nodes:
                if all(is_constant(v) for v in node.inputs if v is not None):
                    mine = [o for o in node.outputs if o in outputs]
                    results |= _evaluate([node], mine, opsets, ir_version, ctx) if mine else {}
            return results
        ctx.note(f"node {label(nodes[0])!r} was not folded: {error}")
        return {}
    by_name: dict[str, object] = dict(found)
    arrays = {o: by_name[o.name or ""] for o in outputs}
    return {o: a for o, a in arrays.items() if isinstance(a, np.ndarray) and a.dtype.kind in _FOLDABLE_KINDS}
