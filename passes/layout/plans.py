# SPDX-License-Identifier: Apache-2.0
"""Which operators carry a permutation: f(Transpose_p(x), ...) = Transpose_q(f'(x, ...))."""

from __future__ import annotations

from ...graph_ir import Node
from ...graph_ir.ops import has_reference_attribute, is_standard, rank
from .carry import BROADCAST, CARRIES, VARIADIC, Plan
from .carry_axes import AXIS_CARRIES
from .perms import Perm

_ALL = {**CARRIES, **AXIS_CARRIES}
_MANY = frozenset((*BROADCAST, *VARIADIC, "Concat"))


def may_carry(node: Node) -> bool:
    """Whether nodes of this operator carry permutations at all."""
    return node.op_type in _ALL and is_standard(node)


def plan(node: Node, p: Perm, opset: int) -> Plan | None:
    """What f' is; None for an operator, form or operand not known to carry p: it keeps its layout.

    Args:
        node: any node.
        p: the permutation its operands of that rank come through.
        opset: of ai.onnx there.
    """
    if not may_carry(node) or has_reference_attribute(node) or not node.inputs:
        return None
    if node.op_type not in _MANY and rank(node.inputs[0]) != len(p):
        return None
    return _ALL[node.op_type](node, p, opset)
