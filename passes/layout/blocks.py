# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime computes in its blocked layout of pictures, [N, C / block, H, W, block], on x86."""

from __future__ import annotations

from ...graph_ir import DataType, Node
from ...graph_ir.ops import constant_tensor, int_attr, is_op, static_shape

BLOCK = 16  # channels, with AVX-512; without, half as many


def convolves_blocks(node: Node | None) -> bool:
    """Whether the node is a float convolution of pictures with constant filters in whole blocks of channels.

    One of fewer channels than a block reads them as they are.
    """
    if node is None or not is_op(node, "Conv") or node.inputs[1] is None:
        return False
    sizes, tensor = static_shape(node.inputs[1]), constant_tensor(node.inputs[1])
    if sizes is None or tensor is None or len(sizes) != 4 or tensor.dtype != DataType.FLOAT:
        return False
    filters, channels, groups = sizes[0], sizes[1], int_attr(node, "group", 1)
    if groups == 1:
        return channels % BLOCK == 0 or channels < BLOCK
    if channels == 1:
        return filters == groups and groups % BLOCK == 0
    return channels % BLOCK == 0 and filters // groups % BLOCK == 0
