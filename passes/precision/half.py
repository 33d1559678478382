# SPDX-License-Identifier: Apache-2.0
"""16-bit floats where their range suffices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from ...graph_ir import DataType, Model, is_constant
from ...graph_ir.ops import label
from ..base import Context, Exactness, Pass, bounded
from ..quantize.facts import RANGES
from ..quantize.values import drop_orphans, used_initializers
from .choice import SINGLE, UNTYPED, Extent, Guard, choose
from .convert import Converter

_TYPES = {"fp16": DataType.FLOAT16, "bf16": DataType.BFLOAT16}
_QUIET = ("what it moves is float", "nothing near it is worth the Casts")


@dataclass(frozen=True)
class ToHalf(Pass):
    """Compute in float16 or bfloat16 what keeps within its range; the rest stays float32.

    Weights are rounded once, to nearest even. A node stays float32, with the reason in the notes, when
    - a value it reads or makes was measured to reach beyond the largest number over `margin`,
    - a constant of it overflows or is not finite, or all weights of a channel underflow,
    - the operator has no such form at the model's opset, is not a standard one, or has a body,
    - its sums or positions need more than 16 bits (reductions by sum, CumSum, GridSample and the like).
    Nodes that only move elements take the type of what they move, so Casts stand where the type changes and
    nowhere else, one for each value; a group of neighbours with no Conv, Gemm, MatMul, recurrent layer or
    embedding table among them stays float. Inputs and outputs keep their types. Bodies are left alone.

    Reads `ctx.facts["ranges"]` where given (value name -> min, max, unsafe); a value that was not measured
    is taken to fit. Which of the nodes have 16-bit kernels is the runtime's business: onnxruntime on CPU has
    few for float16 and puts Casts round the others, so there this saves room, not time; with next to none for
    bfloat16 it refuses such a model.

    Options:
        type: `fp16` (largest 65504, 11 bits) or `bf16` (float32's range, 8 bits).
        margin: how many times what was measured must fit.
        exclude: labels or origins of nodes that stay float.
    """

    name: ClassVar[str] = "to-half"
    exact: ClassVar[Exactness] = Exactness.LOSSY

    type: Literal["fp16", "bf16"] = "fp16"
    margin: float = bounded(4.0, 1)
    exclude: tuple[str, ...] = ()

    def run(self, model: Model, ctx: Context) -> bool:
        """Choose and convert in the main graph."""
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        dtype = _TYPES[self.type]
        extents = cast("Mapping[str, Extent]", ctx.facts.get(RANGES, {}))
        if not extents:
            ctx.note("to-half: no ranges were measured, so no activation was checked for overflow")
        # A bisection leaves nodes out; their neighbours need Casts then.
        barred = {label(node) for node in model.graph if not rewriter.allowed(self.name, node)}
        choice = choose(model, Guard(dtype, self.margin, extents, {*self.exclude, *barred}))
        for node, reason in choice.reasons.items():
            ctx.misses[self.name, reason] += 1
            if reason not in (*_QUIET, UNTYPED):
                ctx.note(f"to-half: {label(node)} stays float32: {reason}")
        untyped = sum(reason == UNTYPED for reason in choice.reasons.values())
        if untyped:
            ctx.note(
                f"to-half: {UNTYPED} for {untyped} nodes, which stay float32; put infer-shapes before it"
            )
        Converter(rewriter, dtype, SINGLE).run(list(choice.half))
        ctx.counters[self.name] += len(choice.half)
        drop_orphans(rewriter, used)
        return rewriter.edits > 0


def values_to_guard(model: Model) -> list[str]:
    """Names of the float32 values of the main graph whose extremes `to-half` wants to know."""
    given = (v for v in model.graph.inputs if not v.is_initializer())
    values = (*given, *(out for node in model.graph for out in node.outputs))
    return [v.name for v in values if v.name and v.dtype == DataType.FLOAT and not is_constant(v)]
