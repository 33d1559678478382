# SPDX-License-Identifier: Apache-2.0
"""Relu and Clip before a quantizer: whether rounding into the quantizer's range already does their work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .graph_view import Q, Quant, Scope, Verdict, quant_of

if TYPE_CHECKING:
    import onnx

CLAMPS = frozenset({"Relu", "Clip"})


def clamp_verdict(scope: Scope, node: onnx.NodeProto) -> Verdict:
    """Why this Relu or Clip was not absorbed by the quantizer after it."""
    quantizer = next((r for r in scope.readers(node.output[0]) if r.op_type == Q), None)
    if quantizer is None:
        return Verdict("no-quantizer", f"no QuantizeLinear follows the {node.op_type}")
    if len(scope.readers(node.output[0])) > 1 or scope.is_output(node.output[0]):
        return Verdict("forked-output", f"the {node.op_type}'s output is also read in float")
    quant = quant_of(scope, quantizer)
    if quant.scale is None:
        return Verdict("dynamic-params", f"the quantizer after the {node.op_type} has no constant scale")
    if is_redundant(scope, node, quant):
        return Verdict("unknown", f"the {node.op_type} is redundant, but its producer was not fused")
    zero = int(quant.zero.reshape(-1)[0]) if quant.zero is not None else 0
    if node.op_type == "Relu":
        return Verdict(
            "relu-kept",
            f"the Relu stays, because zero point {zero} is not the least value of {quant.dtype}",
        )
    return Verdict(
        "relu-kept", f"the Clip stays, because the quantized range reaches beyond it (zero point {zero})"
    )


def is_redundant(scope: Scope, node: onnx.NodeProto, quant: Quant) -> bool:
    """Whether rounding into the quantizer's range already does what the Relu or Clip does."""
    if quant.scale is None or quant.dtype is None or quant.dtype.kind not in "iu" or quant.scale.size != 1:
        return False
    info = np.iinfo(quant.dtype)
    zero = int(quant.zero.reshape(-1)[0]) if quant.zero is not None else 0
    if node.op_type == "Relu":
        return zero == info.min
    scale = float(quant.scale.reshape(-1)[0])
    limits = [scope.array(name) if name else None for name in [*node.input[1:3], "", ""][:2]]
    low = float(limits[0].reshape(-1)[0]) if limits[0] is not None else -np.inf
    high = float(limits[1].reshape(-1)[0]) if limits[1] is not None else np.inf
    slack = 1e-6 * max(1.0, abs(scale))
    return low <= scale * (info.min - zero) + slack and high >= scale * (info.max - zero) - slack
