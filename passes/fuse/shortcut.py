# SPDX-License-Identifier: Apache-2.0
"""Every s-th pixel with channels of zeros around it ("option A" of residual networks), as a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, is_op, string_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .slices import taken

_SPATIAL = (2, 3)
_MOST = 256  # products for each element, beyond which moving elements is as fast


class PaddedPixels(Rule):
    """Pad(x[:, :, ::s, ::t]) with zeros along the channels = Conv(x) with strides s, t and a kernel of 1 x 1.

        y[n, before + c, i, j] = x[n, c, s i, t j], other channels 0
                               = sum over c' of W[before + c, c'] x[n, c', s i, t j]

    with W[before + c, c] = 1 and zeros elsewhere. One product of each sum is not zero, so finite numbers come
    out as they are, but for the sign of a zero. An infinite value or NaN spreads over the channels of its
    pixel. Not valid: slices that begin elsewhere or end early; padding of other axes, by other values or
    below zero. Not done: types other than float; results that no Add reads; more than 256 channels or an
    unknown number of them.
    """

    root: ClassVar[Op] = op("Pad", var("sliced"), var("pads"), maybe(var("value")), maybe(var("axes")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The convolution."""
        node = m.root
        around = _channels_around(node)
        if around is None:
            return Miss("pads something else than channels with zeros")
        found = _every(m["sliced"])
        if found is None:
            return Miss("pads no slice of every so many pixels")
        x, strides = found
        extent = dims(x)
        count = extent[1] if extent is not None and len(extent) == 4 else None
        if not isinstance(count, int) or not 0 < count <= _MOST or x.dtype != DataType.FLOAT:
            return Miss("not a float tensor of a known and small number of channels")
        if not any(is_op(user, "Add") for user, _ in node.outputs[0].uses()):
            return Miss("no Add reads it")
        before, behind = around
        weight = np.zeros((before + count + behind, count, 1, 1), np.float32)
        weight[before + np.arange(count), np.arange(count)] = 1
        filters = rw.constant(weight, f"{node.name or 'shortcut'}_weight", node)
        attributes = {"kernel_shape": [1, 1], "strides": list(strides)}
        return rw.node("Conv", [x, filters], attributes, before=node, name=node.name or "").outputs[0]


def _channels_around(node: Node) -> tuple[int, int] | None:
    """How many channels of zeros a Pad adds before and behind; None when it does something else."""
    data, fill, named = (constant(input_at(node, i)) for i in (1, 2, 3))
    if string_attr(node, "mode", "constant") != "constant" or data is None:
        return None
    if (input_at(node, 2) is not None and (fill is None or fill.any())) or (
        input_at(node, 3) is not None and named is None
    ):
        return None
    pads = [int(v) for v in data.reshape(-1)]
    axes = list(range(4)) if named is None else [int(v) % 4 for v in named.reshape(-1)]
    if len(pads) != 2 * len(axes) or min(pads, default=0) < 0:
        return None
    found = {axis: pair for axis, *pair in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)}
    before, behind = found.pop(1, [0, 0])
    if before + behind == 0 or any(any(pair) for pair in found.values()):
        return None
    return before, behind


def _every(value: Value) -> tuple[Value, tuple[int, int]] | None:
    """What is sliced, and the steps of its rows and columns, by one Slice or by one for each."""
    found: dict[int, int] = {}
    while (node := value.producer()) is not None and (parts := taken(node)) is not None:
        source = input_at(node, 0)
        extent = dims(source)
        if source is None or extent is None or len(extent) != 4:
            return None
        for part in parts:
            axis = part.axis % 4
            if axis not in _SPATIAL or axis in found or part.start != 0 or not part.whole(extent[axis]):
                return None
            found[axis] = part.step
        value = source
    strides = found.get(2, 1), found.get(3, 1)
    return (value, strides) if max(strides) > 1 else None


@dataclass(frozen=True)
class FoldShortcut(Pass):
    """Write a shortcut of every s-th pixel and channels of zeros as one convolution.

    The algebra and limits stand with the rule `PaddedPixels`. It needs shapes (`infer-shapes`).

    Slice and Pad have onnxruntime leave its blocked layout, and with them each sum of the branches behind;
    a convolution stays in it, and in int8.
    """

    name: ClassVar[str] = "fold-shortcut"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [PaddedPixels()])
