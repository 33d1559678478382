# SPDX-License-Identifier: Apache-2.0
"""Where the bias of a linear operator stands."""

from __future__ import annotations

from ...graph_ir import Node, Value, is_constant
from ...graph_ir.ops import is_op, only_user


def bias_add(node: Node) -> tuple[Node, Value] | None:
    """The Add of a constant that alone reads a MatMul, and the constant."""
    out = node.outputs[0]
    user = only_user(out)
    if user is None or not is_op(user, "Add"):
        return None
    other = user.inputs[1] if user.inputs[0] is out else user.inputs[0]
    return None if other is None or not is_constant(other) else (user, other)
