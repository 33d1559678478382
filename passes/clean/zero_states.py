# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers that start from zero are told so by leaving the state out."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import Model, Value, constant
from ...graph_ir.ops import input_at, is_op
from ..base import Context, Exactness, Pass

_LAYERS = ("LSTM", "GRU", "RNN")
_STATES = (5, 6)  # initial_h, and initial_c of LSTM; both are zeros where absent
_STEPS = 8  # from the zeros to the layer: they are repeated for the batch, and cut apart for the layers
_MOVES = (
    "Expand",
    "Tile",
    "Slice",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
    "Cast",
    "Gather",
)


class EliminateZeroStates(Pass):
    """Leave out initial states of LSTM, GRU and RNN that are zero, which is what an absent one means.

    Exporters write them as a ConstantOfShape or an Expand of zero, cut into one part for each layer, or as
    one constant that all layers read. That costs the arithmetic of its shape, and ties the hidden units of
    layers together that have nothing to do with each other. A state is zero when it is a constant that holds
    nothing but +0, a ConstantOfShape of 0, or made of one of these by operators that only move or repeat
    elements. Not done for states that a caller may give, and for those whose zeros cannot be told.
    """

    name: ClassVar[str] = "eliminate-zero-states"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        for node in rewriter.nodes(_LAYERS):
            for index in _STATES:
                state = input_at(node, index)
                if state is None or not is_zero(state) or not rewriter.allowed(self.name, node):
                    continue
                rewriter.set_input(node, index, None)
                ctx.counters["states left out"] += 1
            count = len(node.inputs)
            while node.inputs[count - 1] is None:
                count -= 1
            if count < len(node.inputs):
                rewriter.trim_inputs(node, count)
        return rewriter.edits > 0


def is_zero(value: Value, steps: int = _STEPS) -> bool:
    """Whether a value is +0 throughout, whatever its shape."""
    data = constant(value)
    if data is not None:
        return _is_zero(data)
    producer = value.producer()
    if producer is None or steps == 0:
        return False
    if is_op(producer, "ConstantOfShape"):
        fill = producer.attributes.get("value")
        return fill is None or _is_zero(fill.as_tensor().numpy())
    if is_op(producer, "Concat"):
        return all(v is not None and is_zero(v, steps - 1) for v in producer.inputs)
    source = input_at(producer, 0)
    return is_op(producer, *_MOVES) and source is not None and is_zero(source, steps - 1)


def _is_zero(data: NDArray[Any]) -> bool:
    return data.dtype.kind in "fiu" and not data.any() and not np.signbit(data).any()
