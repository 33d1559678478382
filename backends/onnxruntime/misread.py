# SPDX-License-Identifier: Apache-2.0
"""Groups that onnxruntime fuses although its int8 kernel then computes something else than the Q/DQ say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .graph_view import Quant, Scope, Verdict, dq_of, int_attribute, quant_of

if TYPE_CHECKING:
    import onnx

BIAS_TOLERANCE = 1e-3  # relative; above it the bias that the kernel adds is another one
_UNCHECKED = ("Conv", "Gemm", "MatMul")


def misread(scope: Scope, node: onnx.NodeProto) -> Verdict | None:
    """What an int8 kernel takes otherwise than the Q/DQ nodes say: fused, fast and wrong.

    When it fuses, onnxruntime looks neither at the axis of a weight's scales (but at that of a MatMul's from
    1.32 on) nor at the scale of a Gemm's bias; it lets a Conv's bias be off by 1 % (or 1e-6), before 1.27 by
    anything, and quantizes float weights by itself.
    """
    if node.op_type not in _UNCHECKED:
        return None
    pair = [dq_of(scope, name) for name in node.input[:2]]
    if pair[0] is not None and pair[1] is None and scope.tensor(node.input[1]) is not None:
        return Verdict(
            "weight-requantized",
            "its weight is float in the model, and WeightBiasQuantization made it int8 with one scale; "
            "quantize the weight, or switch that optimizer off",
        )
    if any(item is None for item in pair):
        return None
    x, w = (quant_of(scope, item) for item in pair if item is not None)
    along = scale_axis(scope, node)
    if along is not None:
        return along
    return bias_scale(scope, node, x, w) if node.op_type in {"Conv", "Gemm"} else None


def scale_axis(scope: Scope, node: onnx.NodeProto) -> Verdict | None:
    """Whether a weight has its scales along another axis than the kernel: misread, or left float."""
    source = dq_of(scope, node.input[1]) if node.op_type in _UNCHECKED else None
    if source is None:
        return None
    w, weight = quant_of(scope, source), scope.tensor(source.input[0])
    if w.scale is None or w.scale.size < 2 or weight is None:
        return None
    count = len(weight.dims)
    axis = w.axis + count if w.axis < 0 else w.axis
    rows = node.op_type == "Conv" or (node.op_type == "Gemm" and int_attribute(node, "transB", 0))
    wanted = 0 if rows else count - 1
    if axis == wanted:
        return None
    return Verdict(
        "wrong-axis",
        f"the weight has its scales along axis {axis}, the kernel reads them along axis {wanted}",
    )


def bias_scale(scope: Scope, node: onnx.NodeProto, x: Quant, w: Quant) -> Verdict | None:
    """Whether the int32 bias has another scale than input scale times weight scale."""
    producer = dq_of(scope, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if producer is None or x.scale is None or w.scale is None:
        return None
    bias = quant_of(scope, producer)
    if bias.scale is None:
        return Verdict("dynamic-params", "the scale of its bias is not a constant")
    wanted = np.atleast_1d(x.scale.astype(np.float64) * w.scale.astype(np.float64))
    given = np.atleast_1d(bias.scale.astype(np.float64))
    if given.size not in {1, wanted.size} and wanted.size != 1:
        return Verdict("bias-scale", f"its bias has {given.size} scales, the weight {wanted.size}")
    worst = float(np.max(np.abs(given / wanted - 1.0)))
    if worst <= BIAS_TOLERANCE:
        return None
    return Verdict(
        "bias-scale",
        f"the bias scale is not input scale times weight scale (off by {worst:.2%}); rescale the bias",
    )
