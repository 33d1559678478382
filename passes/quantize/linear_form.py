# SPDX-License-Identifier: Apache-2.0
"""The numbers of one int8 linear node: its weights' grid, and its bias as the kernel adds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...graph_ir import Model, Node, constant
from ...graph_ir.numerics import QuantParams, raise_scales_for_bias, weight_params
from ...graph_ir.ops import float_attr, input_at, is_op, static_shape
from ..linear.rows import RowView
from .bias_correction import Means, corrected_bias
from .kinds import LINEAR, channel_axis, refuse_linear
from .quant_plan import NodePlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

Grids = Mapping[str, QuantParams]
"""By the name of a linear node's result, the grid of its weights by least squared error."""

Numbers: TypeAlias = "Callable[[Node, NodePlan, QuantParams], LinearForm]"
"""What a planned node with a data input of this grid computes with: `linear_form`, all else decided."""


@dataclass(frozen=True)
class LinearForm:
    """What a linear node computes with in int8.

    Attributes:
        weights: float, Gemm's alpha multiplied in.
        params: their grid.
        bias: float, one value per output channel, Gemm's beta multiplied in and corrected; None for none.
    """

    weights: NDArray[Any]
    params: QuantParams
    bias: NDArray[Any] | None


def linear_form(
    node: Node,
    planned: NodePlan,
    grid: QuantParams,
    *,
    bits: int = 8,
    mse: bool = False,
    per_tensor: bool = False,
    means: Means | None = None,
    grids: Grids | None = None,
) -> LinearForm:
    """The int8 numbers of a planned Conv, Gemm or MatMul.

    Args:
        node: with constant weights.
        planned: what it absorbs.
        grid: of its data input.
        bits: 8, or 7 for CPUs whose int8 kernels saturate at 16 bits.
        mse: choose weight scales by least squared error.
        per_tensor: one scale for all weights, not one for each output channel.
        means: the mean of each channel of a value, by value name; the bias is corrected where it is known.
        grids: from `least_squares_grids`, with as many bits, where they are known.
    """
    weights, bias = _weights(node), _bias(node, planned)
    params = (grids or {}).get(node.outputs[0].name or "") if mse and not per_tensor else None
    if params is None:
        params = weight_params(weights, None if per_tensor else channel_axis(node), bits=bits, mse=mse)
    x = node.inputs[0]
    mean = (means or {}).get("" if x is None else x.name or "")
    if mean is not None:
        bias = corrected_bias(node, weights, params, bias, mean, bits)
    if bias is not None:
        depth = RowView(node, weights.shape).columns
        params = raise_scales_for_bias(bias, float(grid.scale), params, depth)
    return LinearForm(_within(weights, params, bits) if mse else weights, params, bias)


def _within(weights: NDArray[Any], params: QuantParams, bits: int) -> NDArray[Any]:
    """Clamp what a scale of least squared error leaves outside fewer than 8 bits."""
    if bits >= 8:
        return weights
    most = params.scale * np.float32(2 ** (bits - 1) - 1)
    if params.axis is not None:
        most = most.reshape([-1 if i == params.axis else 1 for i in range(weights.ndim)])
    return np.clip(weights, -most, most)


def least_squares_grids(model: Model, bits: int = 8) -> dict[str, QuantParams]:
    """The grids that `linear_form` chooses with `mse`, of all linear nodes of the main graph.

    Args:
        model: with shapes inferred; another one may have the same values and other weights.
        bits: of the weights.
    """
    nodes = [node for node in model.graph if is_op(node, *LINEAR) and refuse_linear(node) is None]
    return {
        node.outputs[0].name or "": weight_params(_weights(node), channel_axis(node), bits=bits, mse=True)
        for node in nodes
    }


def _weights(node: Node) -> NDArray[Any]:
    """A linear node's weights, Gemm's alpha multiplied in."""
    weights = constant(node.inputs[1])
    assert weights is not None
    alpha = float_attr(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
    return weights if alpha == 1.0 else np.asarray(weights * np.float32(alpha))


def _bias(node: Node, planned: NodePlan) -> NDArray[Any] | None:
    """What a linear node adds, one value per channel, Gemm's beta multiplied in."""
    if planned.bias_add is not None:
        return next(a for a in map(constant, planned.bias_add.inputs) if a is not None)
    bias = constant(input_at(node, 2))
    if bias is None:
        return None
    beta = float_attr(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    bias = bias if beta == 1.0 else np.asarray(bias * np.float32(beta))
    channels = int((static_shape(node.inputs[1]) or ())[channel_axis(node)])
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (channels,)))
