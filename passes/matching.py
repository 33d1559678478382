# SPDX-License-Identifier: Apache-2.0
"""Matching patterns against nodes: what is bound on a way that leads nowhere is taken back again."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ..graph_ir import Node, Value
from ..graph_ir.ops import array_of, constant_tensor, has_reference_attribute, is_standard
from .pattern import Const, Either, Match, Maybe, Op, Pattern, Var

Goal: TypeAlias = "tuple[Pattern, Value | None, Goal | None]"
"""A pattern, the operand it must match, and the goals that are left after it."""

_UNBOUND = object()


def match(pattern: Op, node: Node) -> Match | None:
    """Match a pattern at a node; None when it does not fit."""
    if node.op_type not in pattern.op_types:
        return None
    inputs = node.inputs
    if not pattern.commutes:  # a look that binds nothing turns most nodes away
        for operand, value in zip(pattern.inputs, inputs, strict=False):
            if not operand.may_fit(value):
                return None
    elif len(inputs) == 2:
        (left, right), (first, second) = pattern.inputs, inputs
        straight = left.may_fit(first) and right.may_fit(second)
        if not straight and not (right.may_fit(first) and left.may_fit(second)):
            return None
    search = _Search(node)
    return search.found if search.at(pattern, node, None) else None


class _Search:
    """Depth first through the operands; only a choice (operand order, alternatives) calls itself."""

    __slots__ = ("_bound", "found")

    def __init__(self, root: Node) -> None:
        self.found = Match(root, {}, {})
        self._bound: list[tuple[dict[Any, Any], Any, Any]] = []  # where, what, and what was there before

    def at(self, pattern: Op, node: Node, rest: Goal | None) -> bool:
        """Match a node, then what is left."""
        if not self._bind_node(pattern, node):
            return False
        inputs = node.inputs
        if not pattern.commutes:
            return self._all(_operands(pattern.inputs, inputs, rest))
        left, right = pattern.inputs
        first, second = inputs if len(inputs) == 2 else (*inputs, None, None)[:2]
        return self._choice((left, first, (right, second, rest))) or self._choice(
            (right, first, (left, second, rest))
        )

    def _all(self, goal: Goal | None) -> bool:
        while goal is not None:
            pattern, value, goal = goal
            if value is None:
                if not isinstance(pattern, Maybe):
                    return False
                if isinstance(pattern.inner, (Var, Const)):
                    self._bind(self.found.values, pattern.inner.name, None)
            elif isinstance(pattern, (Var, Const)):
                if isinstance(pattern, Const) and not _fits_constant(pattern, value):
                    return False
                if pattern.name and not self._bind_value(pattern.name, value):
                    return False
            elif isinstance(pattern, Op):
                producer = value.producer()
                if producer is None or producer.op_type not in pattern.op_types or value.index() != 0:
                    return False
                if pattern.commutes:
                    return self.at(pattern, producer, goal)
                if not self._bind_node(pattern, producer):
                    return False
                goal = _operands(pattern.inputs, producer.inputs, goal)
            elif isinstance(pattern, Either):
                rest, options = goal, [option for option in pattern.options if option.may_fit(value)]
                return any(self._choice((option, value, rest)) for option in options)
            elif isinstance(pattern, Maybe):
                goal = (pattern.inner, value, goal)
            else:
                return False
        return _closed(self.found)

    def _choice(self, goal: Goal) -> bool:
        """Try one way; what it bound is taken back if it fails."""
        mark = len(self._bound)
        if self._all(goal):
            return True
        while len(self._bound) > mark:
            where, what, before = self._bound.pop()
            if before is _UNBOUND:
                del where[what]
            else:
                where[what] = before
        return False

    def _bind(self, where: dict[Any, Any], what: object, to: object) -> None:
        self._bound.append((where, what, where.get(what, _UNBOUND)))
        where[what] = to

    def _bind_value(self, name: str, value: Value) -> bool:
        values = self.found.values
        before = values.get(name, _UNBOUND)
        if before is _UNBOUND:
            self._bound.append((values, name, _UNBOUND))
            values[name] = value
            return True
        return before is value

    def _bind_node(self, pattern: Op, node: Node) -> bool:
        """Bind a node of one of the pattern's types, if it has no operands beyond the pattern's."""
        inputs, most = node.inputs, len(pattern.inputs)
        if len(inputs) > most and any(v is not None for v in inputs[most:]):
            return False
        if not is_standard(node) or has_reference_attribute(node):
            return False
        nodes = self.found.nodes
        before = nodes.get(pattern)
        if before is None:
            self._bound.append((nodes, pattern, _UNBOUND))
            nodes[pattern] = node
        elif before is not node:
            return False
        if pattern.name:
            self._bind(self.found.values, pattern.name, node.outputs[0])
        return True


def _operands(patterns: tuple[Pattern, ...], inputs: Any, rest: Goal | None) -> Goal | None:
    """Goals for a node's operands, the first one first."""
    count = len(inputs)
    for index in range(len(patterns) - 1, -1, -1):
        rest = (patterns[index], inputs[index] if index < count else None, rest)
    return rest


def _fits_constant(pattern: Const, value: Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None:
        return False
    if pattern.value is None:
        return True
    if tensor.size != 1:
        return False
    try:
        data = float(array_of(tensor).reshape(()))
    except (TypeError, ValueError):
        return False
    return bool(np.abs(data - pattern.value) <= pattern.tolerance * np.abs(pattern.value))


def _closed(found: Match) -> bool:
    """Whether every result inside the match is read only by matched nodes and is no graph output."""
    if len(found.nodes) == 1:
        return True
    root = found.root
    matched = set(found.nodes.values())
    for inner, node in found.nodes.items():
        if node is root or inner.is_shared:
            continue
        for output in node.outputs:
            if output.is_graph_output() or any(user not in matched for user, _ in output.uses()):
                return False
        if node.graph is not root.graph:
            return False
    return True
