# SPDX-License-Identifier: Apache-2.0
"""A product of rows that ends in codes, as a convolution of one pixel's width over channels-last pixels.

    x [B, T, K] -> codes -> Unsqueeze [1, B, T, K] -> com.microsoft.QLinearConv -> Squeeze [B, T, N] -> DQ

The kernel refuses pictures without pixels, but not a batch without pictures. So where B is not known, and
may be 0, it counts pictures, [B, 1, T, K]; where T is not, the product ends in float.

onnxruntime requantises within that kernel. QGemm does it in a pass of its own and takes matrices alone, and
behind MatMulIntegerToFloat the Relu and the Q are passes over floats. The codes are the same but for the
rounding of ties and of the bias, so this is no choice of accuracy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...analysis.contrib_rules import MICROSOFT
from ...graph_ir import Node, Value
from ...graph_ir.numerics import QuantParams, quantize_bias
from ...graph_ir.ops import dims, static_shape
from .linear_form import LinearForm
from .values import ValueWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FOURS, _FEWEST = 4, 16  # the fast int8 kernel takes so many channels at once, and makes so many at least


def fits_convolution(node: Node) -> bool:
    """Whether a MatMul of constant weights is one of rows of three axes that the fast kernel takes.

    Of a number that is not known there may be none: a picture without pixels.
    """
    shape, sizes = static_shape(node.inputs[1]) or (), dims(node.inputs[0]) or ()
    if len(sizes) != 3 or len(shape) != 2 or not isinstance(sizes[1], int) or 0 in sizes:
        return False
    channels, filters = shape
    return channels % _FOURS == 0 and filters % _FOURS == 0 and filters >= _FEWEST


def row_convolution(
    node: Node, data: Value | None, form: LinearForm, params: QuantParams, values: ValueWriter, name: str
) -> Value:
    """The DQ of what a MatMul with its bias makes.

    Args:
        node: the MatMul; `fits_convolution`.
        data: what it reads: the output of a DQ.
        form: its numbers.
        params: the grid of the result, which does what a Relu or Clip behind would.
        values: writes codes.
        name: of the kernel.
    """
    found, source, rw = values.codes_of(data), node.inputs[1], values.rw
    assert found is not None
    assert source is not None
    codes, grid = found
    turned: NDArray[Any] = np.moveaxis(form.weights, 0, 1)
    filters = np.ascontiguousarray(turned).reshape(*turned.shape, 1, 1)
    scales = form.params if form.params.axis is None else replace(form.params, axis=0)
    weight, w_scale, w_zero = values.weight_codes(source, filters, scales, node)
    pictures = 0 if isinstance((dims(node.inputs[0]) or (None,))[0], int) else 1
    axis = rw.constant(np.array([pictures], np.int64), f"{name}_axis", node)
    pixels = values.node("Unsqueeze", [codes, axis], node, f"{name}_pixels")
    operands = [pixels, *values.grid(grid, node, name), weight, w_scale, w_zero]
    operands += values.grid(params, node, f"{name}_result")
    if form.bias is not None:
        bias, _ = quantize_bias(form.bias, grid.scale, scales.scale)
        operands.append(rw.constant(bias, f"{name}_bias", node))
    rw.import_domain(node, MICROSOFT)
    attributes = {"channels_last": 1, "kernel_shape": [1, 1]}
    made = rw.node("QLinearConv", operands, attributes, before=node, name=name, domain=MICROSOFT).outputs[0]
    rows = values.node("Squeeze", [made, axis], node, f"{name}_rows")
    return values.dequantized(rows, params, node, f"{name}_rows")
