# SPDX-License-Identifier: Apache-2.0
"""Raise a model's ai.onnx opset without changing what it computes."""

from __future__ import annotations

from functools import cache

from ..graph_ir import Function, Graph, Model, Node, Rewriter
from ..graph_ir.ops import (
    STANDARD_DOMAINS,
    graphs_within,
    has_reference_attribute,
    is_standard,
    label,
    opset_in,
)
from .opset_steps import STEPS, dtype_of
from .opset_table import COMPATIBLE, NEWEST, OLDEST, UNRUN


def opset_blockers(model: Model, target: int) -> list[str]:
    """Why the model's ai.onnx opset cannot be raised to `target`, a line each; empty when it can.

    A node is in the way when its operator was redefined in between and that redefinition is neither one that
    only allows more (`opset_table`) nor one this node can be rewritten for (`opset_steps`), when it is no
    ai.onnx operator that is known, or when onnxruntime would not run it any more.
    """
    if target > NEWEST:
        return [f"opset {target} is newer than {NEWEST}, the last one known here"]
    found: list[str] = []
    for graph, imports in _scopes(model):
        current = opset_in(imports)
        if not 0 < current < target:
            continue
        if current < OLDEST:
            return [f"opset {current} is older than {OLDEST}, from where on operators can be followed"]
        for inner in graphs_within(graph):
            for node in inner:
                reason = _blocked(node, current, target) if is_standard(node) else None
                if reason is not None:
                    found.append(f"node {label(node)!r} ({node.op_type}): {reason}")
    return found


def raise_opset(model: Model, rw: Rewriter, target: int) -> bool:
    """Raise the ai.onnx opset of model and functions to `target`; False (and no edit) if that is not safe.

    Nodes whose form changed are rewritten (attributes to inputs, Upsample to Resize, the old Softmax to
    Flatten, Softmax, Reshape); bodies and functions too. The IR version is raised to what the opset asks for,
    no higher. Nothing is done, and False returned, when the model is there already.

    Args:
        model: edited in place.
        rw: the rewriter on the model.
        target: the opset wanted.
    """
    if opset_blockers(model, target):
        return False
    changed = False
    for graph, imports in _scopes(model):
        current = opset_in(imports)
        if not 0 < current < target:
            continue
        for inner in graphs_within(graph):
            for node in [n for n in inner if is_standard(n)]:
                for version in _redefinitions(node.op_type, current, target) or ():
                    step = STEPS.get((node.op_type, version))
                    if step is not None and node.graph is not None:
                        step.apply(node, rw, target)
        for domain in STANDARD_DOMAINS:
            if domain in imports:
                imports[domain] = target
        changed = True
    if changed:
        model.ir_version = max(model.ir_version, _ir_version(target))
        rw.edits += 1
    return changed


def _scopes(model: Model) -> list[tuple[Graph, dict[str, int]]]:
    functions: list[Function] = list(model.functions.values())
    return [(model.graph, model.opset_imports), *((f.graph, f.opset_imports) for f in functions)]


def _blocked(node: Node, current: int, target: int) -> str | None:
    versions = _redefinitions(node.op_type, current, target)
    if versions is None:
        return f"not an operator of opset {current}"
    if (since := _unrun(node, current, target)) is not None:
        return f"onnxruntime runs it on CPU no more from opset {since} on"
    for version in versions:
        if (node.op_type, version) in COMPATIBLE:
            continue
        step = STEPS.get((node.op_type, version))
        if step is None:
            return f"was redefined in opset {version}"
        if has_reference_attribute(node):
            return f"was redefined in opset {version}, and its attributes are the caller's"
        reason = step.check(node, target)
        if reason is not None:
            return f"was redefined in opset {version}: {reason}"
    return None


def _unrun(node: Node, current: int, target: int) -> int | None:
    for since in range(current + 1, target + 1):
        lost = UNRUN.get((node.op_type, since))
        if lost is not None and (not lost or dtype_of(node) in lost):
            return since
    return None


@cache
def _redefinitions(op_type: str, current: int, target: int) -> tuple[int, ...] | None:
    """The opsets in (current, target] that define the operator anew; None when `current` has none."""
    from onnx.defs import SchemaError, get_schema

    versions: list[int] = []
    try:
        limit = target
        while limit > current:
            limit = get_schema(op_type, limit, "").since_version
            if limit > current:
                versions.append(limit)
                limit -= 1
        get_schema(op_type, current, "")
    except SchemaError:
        return None
    return tuple(reversed(versions))


def _ir_version(opset: int) -> int:
    from onnx.helper import OP_SET_ID_VERSION_MAP

    return OP_SET_ID_VERSION_MAP["ai.onnx", opset]
