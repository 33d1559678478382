# SPDX-License-Identifier: Apache-2.0
"""Matching patterns against nodes: a quick look first, then backtracking over the order of operands."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..graph_ir import Node, Value
from ..graph_ir.ops import constant_tensor, has_reference_attribute, is_constant, is_standard
from .pattern import Const, Either, Match, Maybe, Op, Pattern, Var


def match(pattern: Op, node: Node) -> Match | None:
    """Match a pattern at a node; None when it does not fit."""
    if not _could_match(pattern, node):
        return None
    for found in _match_node(pattern, node, Match(node)):
        if _closed(found):
            return found
    return None


def _could_match(pattern: Op, node: Node) -> bool:
    """A quick look, without binding anything, that turns most nodes away."""
    inputs = node.inputs
    if pattern.commutes:
        return len(inputs) == len(pattern.inputs) and (
            (_fits(pattern.inputs[0], inputs[0]) and _fits(pattern.inputs[1], inputs[1]))
            or (_fits(pattern.inputs[0], inputs[1]) and _fits(pattern.inputs[1], inputs[0]))
        )
    count = len(inputs)
    return all(_fits(p, inputs[i] if i < count else None) for i, p in enumerate(pattern.inputs))


def _fits(pattern: Pattern, value: Value | None) -> bool:
    if isinstance(pattern, Op):
        producer = None if value is None else value.producer()
        return producer is not None and producer.op_type in pattern.op_types
    if isinstance(pattern, Const):
        return is_constant(value)
    return value is not None or isinstance(pattern, (Maybe, Either))


def _match_node(pattern: Op, node: Node, so_far: Match) -> Iterator[Match]:
    if node.op_type not in pattern.op_types or not is_standard(node) or has_reference_attribute(node):
        return
    if so_far.nodes.get(pattern, node) is not node:
        return
    given = len(node.inputs)
    while given and node.inputs[given - 1] is None:
        given -= 1
    if given > len(pattern.inputs):
        return
    orders = [pattern.inputs]
    if pattern.commutes:
        orders.append((pattern.inputs[1], pattern.inputs[0]))
    for order in orders:
        start = so_far.copy()
        start.nodes[pattern] = node
        if pattern.name:
            start.values[pattern.name] = node.outputs[0]
        yield from _match_inputs(order, node, 0, start)


def _match_inputs(order: tuple[Pattern, ...], node: Node, index: int, so_far: Match) -> Iterator[Match]:
    if index == len(order):
        yield so_far
        return
    value = node.inputs[index] if index < len(node.inputs) else None
    for found in _match_value(order[index], value, so_far):
        yield from _match_inputs(order, node, index + 1, found)


def _match_value(pattern: Pattern, value: Value | None, so_far: Match) -> Iterator[Match]:
    if isinstance(pattern, Maybe):
        if value is None:
            found = so_far.copy()
            if isinstance(pattern.inner, (Var, Const)):
                found.values[pattern.inner.name] = None
            yield found
            return
        yield from _match_value(pattern.inner, value, so_far)
        return
    if value is None:
        return
    if isinstance(pattern, Either):
        for option in pattern.options:
            yield from _match_value(option, value, so_far)
        return
    if isinstance(pattern, Op):
        producer = value.producer()
        if producer is not None and value.index() == 0:
            yield from _match_node(pattern, producer, so_far)
        return
    if isinstance(pattern, Const):
        if not _fits_constant(pattern, value):
            return
        if not pattern.name:
            yield so_far
            return
    if isinstance(pattern, (Var, Const)):
        if so_far.values.get(pattern.name, value) is not value:
            return
        found = so_far.copy()
        found.values[pattern.name] = value
        yield found


def _fits_constant(pattern: Const, value: Value) -> bool:
    tensor = constant_tensor(value)
    if tensor is None:
        return False
    if pattern.value is None:
        return True
    if tensor.size != 1:
        return False
    try:
        data = float(tensor.numpy().reshape(()))
    except (TypeError, ValueError):
        return False
    return bool(np.abs(data - pattern.value) <= pattern.tolerance * np.abs(pattern.value))


def _closed(found: Match) -> bool:
    """Whether every result inside the match is read only by matched nodes and is no graph output."""
    matched = set(found.nodes.values())
    for inner, node in found.nodes.items():
        if node is found.root or inner.is_shared:
            continue
        for output in node.outputs:
            if output.is_graph_output() or any(user not in matched for user, _ in output.uses()):
                return False
        if node.graph is not found.root.graph:
            return False
    return True
