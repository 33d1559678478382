# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate counts per operator, from the ONNX specification of each.

A rule gets the node with every dim as a number and gives its count, or raises `Uncountable` with the
reason.  Biases, activations, pooling and data movement count as nothing, as is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from ..graph_ir import Node
from ..graph_ir.ops import int_attr, string_attr

Sizes: TypeAlias = tuple[int, ...]


class Uncountable(Exception):  # noqa: N818  (an answer, not an error)
    """Why a node has no count."""


@dataclass(frozen=True)
class Case:
    """A node with the sizes of its inputs (None where left out) and outputs."""

    node: Node
    inputs: Sequence[Sizes | None]
    outputs: Sequence[Sizes]

    def at(self, index: int) -> Sizes:
        """Sizes of a given input."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise Uncountable(f"input {index} is left out")
        return found


def _conv(case: Case) -> int:
    """Each output element sums over (channels / group) * kernel."""
    return prod(case.outputs[0]) * prod(case.at(3 if case.node.op_type == "QLinearConv" else 1)[1:])


def _conv_transpose(case: Case) -> int:
    """Each input element is spread over (output channels / group) * kernel."""
    return prod(case.at(0)) * prod(case.at(1)[1:])


def _matmul(case: Case) -> int:
    left = case.at(0)
    if not left:
        raise Uncountable("a scalar operand")
    return prod(case.outputs[0]) * left[-1]


def _gemm(case: Case) -> int:
    left = case.at(0)
    if len(left) != 2:
        raise Uncountable("Gemm of rank other than 2")
    return prod(case.outputs[0]) * left[0 if int_attr(case.node, "transA", 0) else 1]


def _einsum(case: Case) -> int:
    """Two operands: one product per combination of all labels."""
    equation = string_attr(case.node, "equation", "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) != 2 or "." in equation:
        raise Uncountable(f"Einsum {equation!r} is not one product of two operands without an ellipsis")
    extents: dict[str, int] = {}
    for index, term in enumerate(terms):
        for letter, size in zip(term, case.at(index), strict=True):
            extents[letter] = max(extents.get(letter, 1), size)
    return prod(extents.values())


def _recurrent(case: Case) -> int:
    """Steps * batch * directions * gates * hidden * (input + hidden), the gates of W and R at each step."""
    steps_and_batch = prod(case.at(0)[:2])
    return steps_and_batch * (prod(case.at(1)) + prod(case.at(2)))


def _attention(case: Case) -> int:
    """Q K^T and the product with V: heads * queries * keys, past ones too, * (key size + value size)."""
    query, key, value = (case.at(index) for index in range(3))
    past = case.at(4)[2] if any(size is not None for size in case.inputs[4:5]) else 0
    if len(query) == 4:
        heads, q_len, k_len, sizes = query[1], query[2], key[2], query[3] + value[3]
    elif len(query) == 3:
        heads, kv_heads = int_attr(case.node, "q_num_heads", 0), int_attr(case.node, "kv_num_heads", 0)
        if not heads or not kv_heads:
            raise Uncountable("Attention of rank 3 without its numbers of heads")
        q_len, k_len, sizes = query[1], key[1], query[2] // heads + value[2] // kv_heads
    else:
        raise Uncountable(f"Attention of rank {len(query)}")
    return query[0] * heads * q_len * (past + k_len) * sizes


RULES: dict[str, Callable[[Case], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _conv,
    "DeformConv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}

UNCOUNTED = frozenset({"DFT", "STFT", "Det", "GridSample", "RoiAlign", "MelWeightMatrix", "AffineGrid"})
"""Standard operators with real arithmetic but no rule: reported as uncounted, not as nothing."""
