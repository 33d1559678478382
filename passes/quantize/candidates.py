# SPDX-License-Identifier: Apache-2.0
"""Which nodes could be int8: each with its own surroundings, before it is asked what that is good for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...graph_ir import Node, Value, constant
from ...graph_ir.numerics import QuantParams, activation_params
from ...graph_ir.ops import dims, input_at, is_op, only_user, rank, static_shape
from ...graph_ir.origins import goes_by
from ..linear.bias import bias_add
from .kinds import (
    BOUNDS,
    FOLLOWERS,
    ISLANDS,
    LINEAR,
    NATIVE,
    PASSING,
    activations_of,
    bounds_of,
    computes_weights,
    data_inputs,
    fits_sum,
    gate_of,
    gated_mul,
    refuse_follower,
    refuse_linear,
    refuse_passing,
)
from .quant_plan import NodePlan, PlanOptions, RangeMap, Role
from .row_convolution import fits_convolution

EXCLUDED = (
    "left float by name: by `build`, for which int8 loses more here than the time it saves is worth, "
    "or by an `exclude` of yours"
)


_ELEMENTWISE = ISLANDS | {"Add", "Mul", "Sigmoid"}


class Candidates:
    """The nodes that could be int8, found in graph order.

    Attributes:
        planned: how each of them would be emitted.
        excluded: followers the user wants float.
        reasons: for each linear node that was looked at, why it stays float (empty when it need not).
    """

    def __init__(self, nodes: Sequence[Node], ranges: RangeMap, options: PlanOptions) -> None:
        self._ranges, self._options = ranges, options
        self.reasons: dict[Node, str] = {}
        self.planned: dict[Node, NodePlan] = {}
        self._taken: set[Node] = set()
        self._coded: set[Value] = set()  # values an int8 node would hand on as codes
        self._wanted: set[Value] = set()  # values some linear node quantises in any case
        for node in nodes:
            if node.op_type in LINEAR and self._refuse(node) is None:
                self._wanted.update(activations_of(node))
        self.excluded = {n for n in nodes if n.op_type in FOLLOWERS and self._excluded(n)}
        for node in nodes:
            if node not in self._taken:
                self._forward(node)

    def grid(self, value: Value) -> QuantParams | str:
        """The grid of a value, or why it has none."""
        found = self._ranges.get(value.name or "")
        if found is None:
            return f"{value.name!r} has no range"
        if found.unsafe:
            return f"the range of {value.name!r} is unsafe: {found.unsafe}"
        try:
            both = self._options.symmetric and found.lo < 0 < found.hi
            return activation_params(found.lo, found.hi, symmetric=both)
        except ValueError as error:
            return f"{value.name!r}: {error}"

    def _excluded(self, node: Node) -> bool:
        return goes_by(node, self._options.exclude)

    def _asked(self, node: Node) -> bool:
        kinds = self._options.op_types
        return kinds is None or node.op_type in kinds

    def _refuse(self, node: Node) -> str | None:
        if node not in self.reasons:
            self.reasons[node] = self._refuse_linear(node) or ""
        return self.reasons[node] or None

    def _refuse_linear(self, node: Node) -> str | None:
        if self._excluded(node):
            return EXCLUDED
        if not self._asked(node):
            return f"{node.op_type} is not among the op types asked for"
        if not computes_weights(node) and (reason := refuse_linear(node)) is not None:
            return reason
        read = activations_of(node)
        if self._options.float_stem and self._is_stem(node, read[0]):
            return "it is the stem: with at most 4 input channels float is faster"
        step = 1.0  # of the sum
        for value in read:
            if isinstance(grid := self.grid(value), str):
                return grid
            step *= float(grid.scale)
        if computes_weights(node) and not fits_sum(constant(input_at(node, 2)), step):
            return "its bias is not finite, or too large for the grids of what it multiplies"
        if node.op_type == "Conv":
            grid = self.grid(self._with_tail(node)[1])
            if isinstance(grid, str):
                return grid
        return None

    def _is_stem(self, node: Node, x: Value) -> bool:
        if node.op_type != "Conv":
            return False
        weights = node.inputs[1]
        shape = static_shape(weights) or ()
        source = x
        while (producer := source.producer()) is not None and producer.op_type in PASSING | NATIVE:
            first = producer.inputs[0]
            if first is None:
                return False
            source = first
        return source.is_graph_input() and len(shape) > 1 and shape[1] <= 4

    def _with_tail(self, node: Node) -> tuple[Node | None, Value]:
        """The Relu or Clip that the grid of its output makes superfluous, and the value that carries Q."""
        out = node.outputs[0]
        user = only_user(out)
        if user is None or not is_op(user, *BOUNDS) or user.inputs[0] is not out or self._excluded(user):
            return None, out
        bounds = bounds_of(user)
        grid = self.grid(user.outputs[0])
        if bounds is None or isinstance(grid, str):
            return None, out
        lo, hi = grid.bounds()
        half = float(grid.scale) / 2
        if lo < bounds[0] - half or hi > bounds[1] + half:
            return None, out
        return user, user.outputs[0]

    def _forward(self, node: Node) -> None:
        if node.op_type in LINEAR:
            if self._refuse(node) is None:
                if computes_weights(node):
                    tail, carrier = self._with_tail(node)
                    self._take(node, NodePlan(Role.FOLLOWER, tail), carrier)
                else:
                    self._linear(node)
        elif node.op_type in PASSING or node.op_type in NATIVE:
            first = node.inputs[0] if node.inputs else None
            if first in self._coded and not self._excluded(node) and refuse_passing(node) is None:
                role = Role.NATIVE if node.op_type in NATIVE else Role.PASSING
                self.planned[node] = NodePlan(role)
                self._coded.update(node.outputs if node.op_type == "Split" else node.outputs[:1])
        elif node.op_type in FOLLOWERS | ISLANDS and gated_mul(node) is None and self._follows(node):
            tail, carrier = self._with_tail(node)
            if isinstance(self.grid(carrier), str):
                return
            self._take(node, NodePlan(Role.FOLLOWER, tail, gate=gate_of(node)), carrier)

    def _take(self, node: Node, planned: NodePlan, carrier: Value) -> None:
        self.planned[node] = planned
        self._taken.update(n for n in (planned.tail, planned.bias_add) if n is not None)
        self._coded.add(carrier)

    def _linear(self, node: Node) -> None:
        if node.op_type == "MatMul":
            add = _bias_add(node)
            if add is not None and not self._excluded(add):
                matrix = rank(node.inputs[0]) == 2
                planned = NodePlan(Role.LINEAR, bias_add=add, quantized_out=matrix)
                self.planned[node] = planned
                self._taken.add(add)
                tail, carrier = self._with_tail(add)
                if not matrix and (tail is None or not fits_convolution(node)):
                    return
                planned.tail = tail
                if tail is not None:
                    self._taken.add(tail)
                planned.quantized_out = not isinstance(self.grid(carrier), str)
                if planned.quantized_out:
                    self._coded.add(carrier)
                return
        tail, carrier = self._with_tail(node)
        if isinstance(self.grid(carrier), str) or (tail is None and _rows_for_sums(node)):
            self.planned[node] = NodePlan(Role.LINEAR, quantized_out=False)
            return
        self._take(node, NodePlan(Role.LINEAR, tail), carrier)

    def _follows(self, node: Node) -> bool:
        # Softmax on int8 saves little and costs accuracy: only where it is asked for by name.
        if node.op_type == "Softmax" and self._options.op_types is None:
            return False
        if not self._asked(node) or self._excluded(node):
            return False
        gate = gate_of(node)
        inputs = data_inputs(node if gate is None else gate)
        if refuse_follower(node) is not None or not any(v in self._coded for v in inputs):
            return False
        widest = max((_elements(v) for v in inputs if v in self._coded), default=0)
        for value in inputs:
            if value in self._coded or constant(value) is not None:
                continue
            if isinstance(self.grid(value), str):
                return False
            # A wide float operand that nobody else quantises: its Q would cost what the kernel gains.
            wide = value not in self._wanted and not _elements(value) < widest
            if node.op_type in {"Add", "Mul"} and wide and not _shared(value):
                return False
        return True


def _bias_add(node: Node) -> Node | None:
    """The Add of one constant per column right behind a MatMul."""
    found = bias_add(node)
    if found is None:
        return None
    add, other = found
    array, weights = constant(other), static_shape(node.inputs[1])
    if array is None or weights is None or array.dtype != np.float32 or not np.isfinite(array).all():
        return None
    return add if array.shape == weights[1:] else None


def _rows_for_sums(node: Node) -> bool:
    """Whether a product of rows is only multiplied, added or gated, which is quicker and closer in float.

    Its kernel that ends in codes takes longer than the one that ends in float, and the int8 kernels behind it
    longer than theirs.
    """
    users = [user for user, _ in node.outputs[0].uses()]
    return is_op(node, "MatMul") and rank(node.inputs[0]) != 2 and all(is_op(u, *_ELEMENTWISE) for u in users)


def _shared(value: Value) -> bool:
    """Whether several followers may read a value's codes, as along a trunk of residuals, or of a mask."""
    return len({user for user, _ in value.uses() if is_op(user, *FOLLOWERS)}) > 1


def _elements(value: Value) -> float:
    """How many a value has. A free batch axis counts as 1 on all operands alike; all else unknown is huge."""
    known = dims(value)
    if known is None or not all(isinstance(d, int) for d in known[1:]):
        return math.inf
    return float(math.prod(d for d in known if isinstance(d, int)))
