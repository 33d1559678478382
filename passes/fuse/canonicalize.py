# SPDX-License-Identifier: Apache-2.0
"""Operators in the one form that later passes and int8 kernels know."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import INFERRED, Model, Rewriter, Shape, Value, constant
from ...graph_ir.ops import constant_tensor, int_attr, may_enlarge, rank, static_shape
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Rule, const, maybe, op, var
from .weights import FLOATS, fold_weights, wide


class OneSlope(Rule):
    """PRelu whose slopes are all one a >= 0 is LeakyRelu with alpha = a: both are x or a x by the sign of x.

    Not valid for integers, a slope float32 (LeakyRelu's attribute) cannot hold, or slopes that x could be
    broadcast to, which the standard forbids and runtimes do. A negative slope is left alone: it gives
    PRelu(+0) = -0 where LeakyRelu gives +0.

    Bit for bit by the definition of both operators, infinities included. onnxruntime before 1.27 breaks that
    of PRelu, of which it makes NaN at an infinity; there the LeakyRelu gives what is defined.
    """

    root: ClassVar = op("PRelu", var("x"), const("slope"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The LeakyRelu."""
        tensor = constant_tensor(m["slope"])
        if tensor is None or tensor.dtype not in FLOATS or tensor.size == 0:
            return Miss("slope is not a float constant")
        slopes = wide(tensor.numpy()).reshape(-1)
        first = float(slopes[0])
        if not (slopes == first).all() or not np.isfinite(first):
            return Miss("slopes differ")
        if (tensor.size > 1 or rank(m["x"]) is not None) and may_enlarge(m["x"], tensor.shape.numpy()):
            return Miss("slopes may be more than x has")
        if np.signbit(slopes).any():
            return Miss("slope is negative")
        if float(np.float32(first)) != first:
            return Miss("slope is no float32")
        return rw.node("LeakyRelu", [m["x"]], {"alpha": first}, before=m.root).outputs[0]


class SubtractConstant(Rule):
    """x - c = x + (-c), bit for bit: subtraction is defined as that addition (IEEE 754, 5.4.1).

    Not valid for unsigned integers; not done for signed ones, whose least number has no negative.
    """

    root: ClassVar = op("Sub", var("x"), const("c"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Add."""
        tensor = constant_tensor(m["c"])
        if tensor is None or tensor.dtype not in FLOATS:
            return Miss("not a float constant")
        if rw.opset(m.root) < 7:
            return Miss("opset below 7")
        negative = rw.constant(np.asarray(np.negative(tensor.numpy())), m["c"].name or "addend", m.root)
        return rw.node("Add", [m["x"], negative], before=m.root).outputs[0]


class RangeOfScalars(Rule):
    """Range of one-element vectors is Range of their elements, as the specification asks.

    Exporters write vectors, and runtimes take them as long as they cannot tell; once shapes are folded they
    can, and refuse the model. Only done where the shape is known to be [1].
    """

    root: ClassVar = op("Range", var("start"), var("limit"), var("delta"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The same Range, in place, reading scalars."""
        vectors = [(i, v) for i, v in enumerate(m.root.inputs) if v is not None and static_shape(v) == (1,)]
        if not vectors:
            return Miss("operands are scalars already, or of unknown shape")
        for index, value in vectors:
            shape = rw.constant(np.empty(0, np.int64), "scalar", m.root)
            scalar = rw.node("Reshape", [value, shape], before=m.root).outputs[0]
            scalar.type, scalar.shape, scalar.meta[INFERRED] = value.type, Shape([]), True
            rw.set_input(m.root, index, scalar)
        return None


class PadEveryAxis(Rule):
    """Pad of some axes is Pad of all, with zeros for the others.

    onnxruntime moves transposes through a Pad as if its pads were for all axes, and then cannot run it. Not
    done where the pads, the axes or the rank are not known.
    """

    root: ClassVar = op("Pad", var("x"), const("pads"), maybe(var("value")), const("axes"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Pad without axes."""
        known, pads, axes = rank(m["x"]), constant(m["pads"]), constant(m["axes"])
        if known is None or pads is None or axes is None:
            return Miss("the rank is not known")
        given = [int(axis) % known for axis in axes.reshape(-1) if -known <= axis < known]
        if len(set(given)) != axes.size or pads.size != 2 * axes.size:
            return Miss("its axes are not sound")
        every = np.zeros((2, known), np.int64)
        every[:, given] = pads.reshape(2, -1)
        widths = rw.constant(every.reshape(-1), m["pads"].name or "pads", m.root)
        operands = [m["x"], widths, *m.root.inputs[2:3]]
        attributes = list(m.root.attributes.values())
        return rw.node("Pad", operands, attributes, before=m.root, name=m.root.name or "Pad").outputs[0]


class LookUpOneAxis(Rule):
    """GatherND by constant indices of one number each is Gather along the first axis: y[i] = x[k_i].

    So torch's exporter writes x[[k, l]]. Both take numbers below 0 from the end, and none out of range.
    Not valid with shared batch axes; not done before opset 12, where GatherND takes no numbers below 0.
    """

    root: ClassVar = op("GatherND", var("x"), const("indices"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Gather."""
        indices = constant(m["indices"])
        if indices is None or indices.ndim < 1 or indices.shape[-1] != 1:
            return Miss("it looks up several axes")
        if int_attr(m.root, "batch_dims", 0) or rw.opset(m.root) < 12:
            return Miss("it has batch axes, or its opset is below 12")
        chosen = rw.constant(indices[..., 0], m["indices"].name or "indices", m.root)
        return rw.node("Gather", [m["x"], chosen], {"axis": 0}, before=m.root).outputs[0]


class Canonicalize(Pass):
    """Write PRelu of one slope as LeakyRelu, Sub of a constant as Add, Range of scalars, Pad of all axes.

    Also GatherND along one axis as Gather. The algebra and limits stand with the rules `OneSlope`,
    `SubtractConstant`, `RangeOfScalars`, `PadEveryAxis` and `LookUpOneAxis`. onnxruntime has int8 kernels for
    LeakyRelu and Add, and none for PRelu and Sub.
    """

    name: ClassVar[str] = "canonicalize"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        rules = [OneSlope(), SubtractConstant(), RangeOfScalars(), PadEveryAxis(), LookUpOneAxis()]
        return fold_weights(model, ctx, rules)
