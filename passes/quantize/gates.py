# SPDX-License-Identifier: Apache-2.0
"""Activations that multiply a value by a gate of itself, and hard gates alone, in the runtime's fastest form.

    x sigmoid(a x)      DQ -> com.microsoft.QuickGelu -> Q; the runtime splits a standard Swish, and its int8
                        Sigmoid and Mul take longer than the float form with its Q and DQ
    clip(a x + b)       DQ with a times x's scale -> Add(b) -> Q of a grid in [0, 1], which clips
    x clip(a x + b)     that, then Mul with x

The last two are int8 kernels throughout. Their gate has 8 bits: off by 1/510 at most; 0 and 1 are exact.
"""

from __future__ import annotations

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...graph_ir import Node, Rewriter, Value
from ...graph_ir.numerics import QuantParams, activation_params, quantize
from ...graph_ir.ops import float_attr
from .values import ValueWriter

_UNIT = QuantParams(np.array(1 / 255, np.float32), np.array(0, np.uint8))


def gated(node: Node, gate: Node, values: ValueWriter, rw: Rewriter) -> Value:
    """`x * gate(x)` in place of a Mul and its Sigmoid or HardSigmoid; the result is float still."""
    x = values.operand(gate.inputs[0], node)
    if gate.op_type == "Sigmoid":
        return swish(x, 1.0, node, rw)
    alpha, beta = hard_parameters(gate)
    return _hard_product(x, alpha, beta, node, values, rw)


def hard_swish(node: Node, values: ValueWriter, rw: Rewriter) -> Value:
    """`x clip(x / 6 + 1 / 2)` in place of a HardSwish; the result is float still."""
    return _hard_product(values.operand(node.inputs[0], node), 1 / 6, 0.5, node, values, rw)


def hard_parameters(node: Node) -> tuple[float, float]:
    """Alpha and beta of a HardSigmoid."""
    return float_attr(node, "alpha", 0.2), float_attr(node, "beta", 0.5)


def hard_sigmoid(node: Node, grid: QuantParams, values: ValueWriter, rw: Rewriter) -> Value | None:
    """`a x + b` in place of a HardSigmoid, for a Q of this grid to clip; None where the grid does not."""
    low, high = grid.bounds()
    if low < 0 or high > 1 + 1e-6:
        return None
    x = values.operand(node.inputs[0], node)
    return None if x is None else _line(x, *hard_parameters(node), node, values, rw)


def swish(x: Value | None, alpha: float, node: Node, rw: Rewriter) -> Value:
    """`x * sigmoid(alpha x)` as the one operator the runtime has for it."""
    rw.import_domain(node, MICROSOFT)
    name = node.name or node.outputs[0].name or "swish"
    made = rw.node("QuickGelu", [x], {"alpha": alpha}, before=node, name=name, domain=MICROSOFT)
    return made.outputs[0]


def _hard_product(
    x: Value | None, alpha: float, beta: float, node: Node, values: ValueWriter, rw: Rewriter
) -> Value:
    assert x is not None
    name = node.name or node.outputs[0].name or "hard"
    line = _line(x, alpha, beta, node, values, rw)
    if line is None:
        hard = {"alpha": alpha, "beta": beta}
        gate = rw.node("HardSigmoid", [x], hard, before=node, name=f"{name}_gate").outputs[0]
    else:
        gate = values.quantized(line, _UNIT, node, f"{name}_gate")
    return rw.node("Mul", [x, gate], before=node, name=name).outputs[0]


def _line(x: Value, alpha: float, beta: float, node: Node, values: ValueWriter, rw: Rewriter) -> Value | None:
    """`alpha x + beta` of codes, by a second DQ of them; None for numbers no grid says."""
    found = values.codes_of(x)
    if found is None or alpha <= 0 or beta <= 0:
        return None
    codes, params = found
    name = node.name or node.outputs[0].name or "hard"
    steeper = QuantParams(np.asarray(params.scale * np.float32(alpha), np.float32), params.zero_point)
    one = activation_params(0.0, beta)
    scaled = values.dequantized(codes, steeper, node, f"{name}_scaled")
    shift = rw.constant(quantize(np.array(beta, np.float32), one), f"{name}_shift", node)
    return values.node("Add", [scaled, values.dequantized(shift, one, node, f"{name}_shift")], node, name)
