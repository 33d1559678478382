# SPDX-License-Identifier: Apache-2.0
"""Constants of float32 that need only 16 bits, stored in those."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, TensorType, Value, constant
from ..base import Context, Exactness, Pass

LEAST = 4096  # bytes; a Cast node takes room, too


class StoreHalf(Pass):
    """Store constants of float32 that float16 holds exactly in float16, with a Cast behind.

    Half the room for the same bits: weights that came in float16 and were not folded into others since.
    onnxruntime folds the Cast when it opens the model, so a run takes no longer. It comes last: folding
    constants undoes it. Constants of less than 4 KiB, of bodies and of the signature are left.
    """

    name: ClassVar[str] = "store-half"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Look at each initializer of the main graph."""
        rewriter, first = ctx.rewriter(model), next(iter(model.graph), None)
        if first is None:
            return False
        for value in list(model.graph.initializers.values()):
            half = _half(value)
            if half is None or not rewriter.allowed(self.name, value.consumers()[0]):
                continue
            stored = rewriter.constant(half, f"{value.name}_half", first)
            attributes = {"to": int(DataType.FLOAT)}
            made = rewriter.node("Cast", [stored], attributes, before=first, name=f"{value.name}_stored")
            out = made.outputs[0]
            out.type, out.shape = TensorType(DataType.FLOAT), value.shape
            rewriter.replace(value, out)
            rewriter.drop_initializer(value)
            ctx.counters[self.name] += 1
        return rewriter.edits > 0


def _half(value: Value) -> np.ndarray | None:
    """The constant in float16; None where that is not the same, or saves little."""
    if value.dtype != DataType.FLOAT or value.is_graph_input() or value.is_graph_output() or not value.uses():
        return None
    array = constant(value)
    if array is None or array.nbytes < LEAST:
        return None
    with np.errstate(over="ignore", under="ignore"):
        half = array.astype(np.float16)
    same = np.array_equal(half.astype(np.float32).view(np.int32), array.view(np.int32))
    return half if same else None
