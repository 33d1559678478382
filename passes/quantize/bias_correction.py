# SPDX-License-Identifier: Apache-2.0
"""Correct the mean shift that rounded weights give each output channel.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"
(arXiv:1906.04721), section 4.2: with `e = W_q - W`, the shift of output channel o is `sum over c, k of
e[o, c, k] * E[x_c]`; it is taken off the bias. Borders of padded convolutions see less of it; that is
neglected, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...graph_ir import Model, Node
from ...graph_ir.numerics import QuantParams, dequantize, quantize
from ...graph_ir.ops import is_op, rank
from ..linear.rows import RowView
from .kinds import LINEAR, refuse_linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

Means = Mapping[str, "NDArray[Any]"]
"""By value name, the mean of each channel of the linear nodes that read it."""


def values_for_means(model: Model) -> dict[str, int]:
    """Names of the values whose channel means `insert-qdq` can use, with their channel axis.

    They are the inputs of linear nodes. One that nodes with other channel axes read has no use.
    """
    axes: dict[str, set[int]] = {}
    for node in model.graph:
        x = node.inputs[0] if is_op(node, *LINEAR) and refuse_linear(node) is None else None
        if x is not None and x.name and (node.op_type != "MatMul" or rank(x) is not None):
            last = node.op_type == "MatMul" and rank(x) != 2
            axes.setdefault(x.name, set()).add(-1 if last else 1)
    return {name: min(found) for name, found in axes.items() if len(found) == 1}


def corrected_bias(
    node: Node,
    weights: NDArray[Any],
    params: QuantParams,
    bias: NDArray[Any] | None,
    means: NDArray[Any],
    bits: int = 8,
) -> NDArray[Any] | None:
    """The bias that cancels the mean error of the rounded weights; the given one when the means do not fit.

    Args:
        node: a Conv, Gemm or MatMul.
        weights: its float weights.
        params: their grid.
        bias: one value per output channel, or None for no bias.
        means: one value per input channel.
        bits: of the codes.

    Returns:
        Shape `[out channels]`; a bias is made where there was none, except for a MatMul (it takes none).
    """
    if node.op_type == "MatMul" and bias is None:
        return bias
    read = RowView(node, weights.shape)
    if means.shape != (read.groups * read.inputs,) or not np.isfinite(means).all():
        return bias
    codes = quantize(weights, params)
    if bits < 8:
        codes = np.clip(codes, 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    error = dequantize(codes, params).astype(np.float64) - weights
    rows = read.rows(error).reshape(read.groups, -1, read.inputs, read.taps).sum(axis=3)
    shift = np.einsum("goc,gc->go", rows, means.astype(np.float64).reshape(read.groups, -1)).reshape(-1)
    before = np.zeros_like(shift) if bias is None else bias.astype(np.float64)
    return np.asarray(before - shift, np.float32)
