# SPDX-License-Identifier: Apache-2.0
"""Raise the ai.onnx opset of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph_ir import Model
from ...graph_ir.ops import opset_of
from ..base import Context, Exactness, Pass, bounded
from ..opset import opset_blockers, raise_opset


@dataclass(frozen=True)
class RaiseOpset(Pass):
    """Raise the ai.onnx opset to `to`, rewriting nodes whose form changed; do nothing if one cannot be.

    A node keeps its meaning: between the two opsets its operator is the same, was only widened, or is
    rewritten to the same computation (`passes/opset_table.py`, `passes/opset_steps.py`). A node that
    onnxruntime has no CPU kernel for at the newer opset is an obstacle, too. Obstacles are noted in the
    report. It needs the types of values for Clip and Pad and their shapes for Softmax (`infer-shapes`).
    Per-channel Q/DQ needs opset 13.

    Attributes:
        to: the opset wanted; a model already there, or beyond, is left alone.
    """

    name = "raise-opset"
    exact = Exactness.ROUNDING

    to: int = bounded(13, 1)

    def run(self, model: Model, ctx: Context) -> bool:
        """Raise it, or say why not."""
        current = opset_of(model)
        for reason in opset_blockers(model, self.to):
            ctx.note(f"opset {current} stays, {self.to} was asked for: {reason}")
            ctx.misses[self.name, reason] += 1
        if not raise_opset(model, ctx.rewriter(model), self.to):
            return False
        ctx.counters[self.name] += 1
        return True
