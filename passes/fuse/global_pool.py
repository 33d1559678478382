# SPDX-License-Identifier: Apache-2.0
"""ReduceMean over all spatial axes, and AveragePool over all of them, as GlobalAveragePool."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_op, rank, string_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, maybe, op, var

_ROWS = 3  # [batch, rows, width], or a signal [batch, channels, length]
_DTYPES = (DataType.FLOAT16, DataType.FLOAT)  # onnxruntime has a double kernel for ReduceMean only


class SpatialMean(Rule):
    """The mean over axes 2 to r - 1 of a tensor of rank r: GlobalAveragePool, squeezed without keepdims."""

    root: ClassVar = op("ReduceMean", var("x"), maybe(var("axes")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The pool, and the Squeeze if dimensions are not kept."""
        node, x = m.root, m["x"]
        ndim = rank(x)
        if ndim is None or ndim < 3:
            return Miss("not known to have spatial axes")
        if x.dtype not in _DTYPES:
            return Miss("not known to be floats GlobalAveragePool takes")
        given = input_at(node, 1)
        array = constant(given)
        if given is not None and array is None:
            return Miss("axes are not constant")
        axes = ints_attr(node, "axes") if array is None else [int(a) for a in array.reshape(-1)]
        if not axes:
            return Miss("no axes: the mean of everything, or of nothing")
        if sorted(a % ndim for a in axes if -ndim <= a < ndim) != list(range(2, ndim)):
            return Miss("other axes than the spatial ones")
        if 0 in (dims(x) or ()):
            return Miss("nothing to pool")
        if ndim == _ROWS and _normalises(node, x):
            return Miss("part of a normalisation of rows")
        pooled = rw.node("GlobalAveragePool", [x], before=node).outputs[0]
        if int_attr(node, "keepdims", 1):
            return pooled
        spatial = list(range(2, ndim))
        if rw.opset(node) < 13:
            return rw.node("Squeeze", [pooled], {"axes": spatial}, before=node).outputs[0]
        where = rw.constant(np.array(spatial, dtype=np.int64), "spatial_axes", node)
        return rw.node("Squeeze", [pooled, where], before=node).outputs[0]


def _normalises(mean: Node, x: Value) -> bool:
    """Whether a mean over the last axis is one of squares, or is taken off what it is the mean of."""
    made = x.producer()
    squares = is_op(made, "Pow") or (
        is_op(made, "Mul") and made is not None and made.inputs[0] is made.inputs[1]
    )
    return squares or any(is_op(user, "Sub") and x in user.inputs for user, _ in mean.outputs[0].uses())


class WholeAveragePool(Rule):
    """AveragePool whose one window is the whole input, without padding: GlobalAveragePool."""

    root: ClassVar = op("AveragePool", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The pool without a window."""
        node, x = m.root, m["x"]
        shape = dims(x)
        if x.dtype not in _DTYPES or shape is None or len(shape) < 3:
            return Miss("not known to be floats with spatial axes")
        if ints_attr(node, "kernel_shape") != list(shape[2:]):
            return Miss("the window is not the whole input")
        if any(ints_attr(node, "pads") or ()) or string_attr(node, "auto_pad", "NOTSET") not in (
            "NOTSET",
            "VALID",
        ):
            return Miss("padded")
        if any(d != 1 for d in ints_attr(node, "dilations") or ()):
            return Miss("dilated")
        return rw.node("GlobalAveragePool", [x], before=node).outputs[0]


class ReduceMeanToGlobalAveragePool(Pass):
    """Turn ReduceMean over all spatial axes into GlobalAveragePool.

    The mean over axes 2 to r - 1 of x [N, C, ...] is GlobalAveragePool(x), which keeps the reduced axes as 1;
    without keepdims a Squeeze drops them. That is one node more, but a view that costs nothing and that int8
    passes through, while onnxruntime has an int8 kernel for the pool and none for ReduceMean; a later merge
    of reshapes takes the Squeeze into a Flatten or Reshape behind it. AveragePool with one window over all of
    the input, as exporters write it for fixed sizes, is the same pool.

    Not valid, so left alone: unknown rank, or rank below 3; axes that are not constant or are not exactly the
    spatial ones; no axes (the mean of all, or with noop_with_empty_axes of nothing); integers; sizes of 0,
    which open ones are taken not to be. Not done for double and bfloat16, for which onnxruntime has no such
    pool, nor within a normalisation of rows (RMSNorm), which it fuses by the operators it is spelled with.
    """

    name: ClassVar[str] = "reduce-mean-to-global-average-pool"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [SpatialMean(), WholeAveragePool()])
