# SPDX-License-Identifier: Apache-2.0
"""How elementwise and broadcasting operators carry a permutation, and what every such answer says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ...graph_ir import Node, constant, is_constant
from ...graph_ir.ops import constant_tensor, input_at, int_attr, rank
from .perms import Perm


@dataclass(frozen=True)
class Plan:
    """What f' is in f(Transpose_p(x), ...) = Transpose_q(f'(x, ...)): the node, but for what is said here.

    Attributes:
        perm: p, the layout of the operands that are moved.
        moved: indices of the operands read before p.
        outs: for each output its q.
        attributes: attributes that change; None removes one.
        operands: new constants by operand index.
        turned: indices of constants to be padded to the rank of p and transposed back.
        stretched: by operand index, the axes to unsqueeze an operand of lower rank at.
    """

    perm: Perm
    moved: tuple[int, ...]
    outs: tuple[Perm, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    operands: Mapping[int, NDArray[Any]] = field(default_factory=dict[int, Any])
    turned: tuple[int, ...] = ()
    stretched: Mapping[int, tuple[int, ...]] = field(default_factory=dict[int, Any])


Carry = Callable[[Node, Perm, int], "Plan | None"]


def words(text: str) -> tuple[str, ...]:
    """The words of a text: a list of operators that can be read at a glance."""
    return tuple(text.split())


UNARY = words(
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Elu Erf Exp Floor "
    "Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu "
    "Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
BROADCAST = words(
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Mod "
    "Mul Or PRelu Pow Sub Where Xor"
)
VARIADIC = ("Max", "Mean", "Min", "Sum")
_BROADCASTS_FROM = {**dict.fromkeys(BROADCAST, 7), **dict.fromkeys(VARIADIC, 8)}


def same_layout(node: Node, p: Perm, **changes: Any) -> Plan:
    """A plan in which only the first operand and all outputs move."""
    return Plan(p, (0,), (p,) * len(node.outputs), **changes)


def _unary(node: Node, p: Perm, _opset: int) -> Plan | None:
    return same_layout(node, p)


def _dropout(node: Node, p: Perm, opset: int) -> Plan | None:
    training = input_at(node, 2)
    if training is not None:
        data = constant(training)
        if data is None or data.any():
            return None
    return same_layout(node, p) if opset >= 7 else None


def _quantize(node: Node, p: Perm, opset: int) -> Plan | None:
    """Per tensor as it is; per axis with the axis moved."""
    if int_attr(node, "block_size", 0):
        return None
    scale = input_at(node, 1)
    extent = rank(scale)
    tensor = constant_tensor(scale)
    if extent == 0 or (tensor is not None and tensor.size == 1):
        return same_layout(node, p)
    axis = int_attr(node, "axis", 1)
    if extent != 1 or opset < 13 or not -len(p) <= axis < len(p):
        return None
    return same_layout(node, p, attributes={"axis": p[axis]})


def _broadcast(node: Node, p: Perm, opset: int) -> Plan | None:
    """Every operand of full rank moves; constants are transposed; lower ranks get their 1s elsewhere."""
    if opset < _BROADCASTS_FROM[node.op_type]:
        return None
    moved: list[int] = []
    turned: list[int] = []
    stretched: dict[int, tuple[int, ...]] = {}
    full = len(p)
    for i, value in enumerate(node.inputs):
        extent = rank(value)
        if value is None or extent is None or extent > full:
            return None
        tensor = constant_tensor(value)
        if extent == 0 or (tensor is not None and tensor.size == 1):
            continue
        if tensor is not None and constant(value) is not None:
            turned.append(i)
        elif extent == full:
            moved.append(i)
        else:
            places = p[full - extent :]
            if list(places) != sorted(places):
                return None
            stretched[i] = tuple(a for a in range(full) if a not in places)
    if not moved or (node.op_type == "PRelu" and moved[0] != 0):
        return None
    return Plan(p, tuple(moved), (p,), turned=tuple(turned), stretched=stretched)


def _concat(node: Node, p: Perm, _opset: int) -> Plan | None:
    axis = int_attr(node, "axis", len(p))
    if not -len(p) <= axis < len(p) or any(rank(v) != len(p) for v in node.inputs):
        return None
    turned = tuple(i for i, v in enumerate(node.inputs) if is_constant(v) and constant(v) is not None)
    moved = tuple(i for i in range(len(node.inputs)) if i not in turned)
    return Plan(p, moved, (p,), attributes={"axis": p[axis]}, turned=turned) if moved else None


CARRIES: dict[str, Carry] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys((*BROADCAST, *VARIADIC), _broadcast),
    "Dropout": _dropout,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _quantize,
    "Concat": _concat,
}
