# SPDX-License-Identifier: Apache-2.0
"""What a quantisation plan says: roles, decisions, options, and the grid of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ...graph_ir import Node, Value
from ...graph_ir.numerics import QuantParams


class HasRange(Protocol):
    """The calibrated range of one value; `unsafe` says why it must not be used, empty when it may."""

    @property
    def lo(self) -> float:
        """Lower end."""
        ...

    @property
    def hi(self) -> float:
        """Upper end."""
        ...

    @property
    def unsafe(self) -> str | None:
        """Why the value must not be quantised; None or empty when it may."""
        ...


RangeMap = Mapping[str, HasRange]


class Role(Enum):
    """What an int8 node does with the codes."""

    LINEAR = "linear"
    FOLLOWER = "follower"
    PASSING = "passing"
    NATIVE = "native"


@dataclass(frozen=True)
class Decision:
    """What became of a linear node, and why it was left float (empty when int8)."""

    node: str
    op_type: str
    int8: bool
    reason: str = ""


@dataclass(frozen=True)
class PlanOptions:
    """What the user asks for.

    Attributes:
        op_types: linear and follower operators that may become int8; None for all there are.
        exclude: labels or origins of nodes that stay float.
        float_stem: keep a convolution of at most 4 input channels that reads a graph input float.
        float_tail: keep followers behind the last linear nodes float.
        join_concats: see `joined`.
        symmetric: give values of both signs the same range on both sides of zero.
    """

    op_types: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    float_stem: bool = True
    float_tail: bool = True
    join_concats: bool = False
    symmetric: bool = False


@dataclass
class NodePlan:
    """How one int8 node is emitted.

    Attributes:
        role: what it does.
        tail: the Relu or Clip its output grid absorbs.
        bias_add: the Add of a constant row behind a MatMul, taken in as its bias.
        gate: the Sigmoid or HardSigmoid of a Mul that computes `x * gate(x)`, taken in.
        quantized_out: whether its output carries Q/DQ (otherwise it ends in float).
    """

    role: Role
    tail: Node | None = None
    bias_add: Node | None = None
    gate: Node | None = None
    quantized_out: bool = True

    def absorbed(self, node: Node) -> list[Node]:
        """The source nodes that the emitted node stands for, last one first."""
        return [n for n in (self.tail, self.bias_add, node, self.gate) if n is not None]

    def handed(self, node: Node) -> list[Value]:
        """The values the emitted node hands on."""
        if self.role in (Role.PASSING, Role.NATIVE):
            return list(node.outputs)
        return [(self.tail or self.bias_add or node).outputs[0]]


@dataclass
class QuantPlan:
    """The decisions for one model, valid until it is edited.

    Attributes:
        decisions: one for each linear node of every graph and body, in graph order.
        nodes: the int8 nodes, in graph order.
        kept: followers the user excluded; the runtime must not fuse them either.
        params: the grid of each value that carries Q/DQ.
    """

    decisions: list[Decision] = field(default_factory=list[Decision])
    nodes: dict[Node, NodePlan] = field(default_factory=dict[Node, NodePlan])
    kept: set[Node] = field(default_factory=set[Node])
    params: dict[Value, QuantParams] = field(default_factory=dict["Value", QuantParams])

    def carrier(self, node: Node) -> Value:
        """The value that holds what an int8 node computes, behind what it absorbs."""
        return self.nodes[node].handed(node)[0]
