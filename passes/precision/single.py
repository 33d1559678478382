# SPDX-License-Identifier: Apache-2.0
"""Float32 in place of wider and narrower floats."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, UsageError, Value, constant, is_constant
from ...graph_ir.ops import (
    has_reference_attribute,
    has_subgraph,
    int_attr,
    is_op,
    is_random,
    is_standard,
    label,
    static_shape,
)
from ...graph_ir.origins import goes_by
from ..base import Context, Exactness, Pass
from ..quantize.values import drop_orphans, used_initializers
from .choice import GENERIC, MOVING, UNTYPED, convertible, neighbours
from .convert import Converter

_TYPES = {"fp16": DataType.FLOAT16, "bf16": DataType.BFLOAT16, "fp64": DataType.DOUBLE}
_TYPE_ATTRIBUTES = ("dtype", "output_dtype", "output_datatype", "precision", "to")
# What may need more than the 24 bits of float32.
_LONG = frozenset({DataType.INT32, DataType.INT64, DataType.UINT32, DataType.UINT64, DataType.STRING})
FEW = 8  # elements; what becomes so few integers is a size or an index


@dataclass(frozen=True)
class ToFloat(Pass):
    """Compute in float32 what a model computes in float16, bfloat16 or float64.

    For models exported for GPUs, or in double by chance: onnxruntime on CPU has few kernels for 16 bits and
    for float64, and int8 starts from float32. A value of 16 bits is held exactly, and its weights are; what
    changes is that results are not rounded to 16 bits in between, nor overflow there. Casts to 16 bits
    between nodes in float32 go. float64 is rounded to 24 bits. Inputs and outputs keep their types, with a
    Cast behind or in front.

    A node stays as it is, with the reason in the notes, when
    - a constant of it overflows in float32, or a number other than 0 becomes 0,
    - the operator has no such form at the model's opset, is not known, has a body or draws numbers,
    - an attribute names a type, or the type of an input is not known,
    - it computes in float64 what becomes at most 8 integers, or the limits of a Range, for sizes and indices
      must not be off by one; or it only moves what becomes integers or text.
    Groups of neighbours that only move elements stay, and tables of 16 bits that only Gather reads (what it
    takes out is cast). Bodies are left alone.

    Options:
        types: which of `fp16`, `bf16`, `fp64` become float32.
        exclude: labels or origins of nodes that stay as they are.
    """

    name: ClassVar[str] = "to-float"
    exact: ClassVar[Exactness] = Exactness.LOSSY

    types: tuple[str, ...] = ("fp16", "bf16", "fp64")
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.types if name not in _TYPES]
        if unknown or not self.types:
            said = f"not {unknown[0]!r}" if unknown else "at least one"
            raise UsageError(f"to-float takes types {', '.join(_TYPES)}, {said}")

    def run(self, model: Model, ctx: Context) -> bool:
        """Choose and convert in the main graph."""
        sources = frozenset(_TYPES[name] for name in self.types)
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        chosen: list[Node] = []
        positions = _positions(model)
        for node in model.graph:
            if not _touches(node, sources) or all(is_constant(value) for value in node.outputs):
                continue
            reason = "`exclude` names it" if goes_by(node, self.exclude) else None
            if reason is None and node in positions:
                reason = "sizes and indices are computed there, or integers moved"
            reason = reason or _refuse(node, rewriter.opset(node), sources)
            if reason is None and rewriter.allowed(self.name, node):
                chosen.append(node)
            elif reason:
                ctx.misses[self.name, reason] += 1
                ctx.note(f"to-float: {label(node)} stays as it is: {reason}")
        groups = neighbours(chosen)
        light = {n for group in groups if all(is_op(n, "Cast", *MOVING) for n in group) for n in group}
        chosen = [node for node in chosen if node not in light]
        Converter(rewriter, DataType.FLOAT, sources).run(chosen)
        ctx.counters[self.name] += len(chosen)
        drop_orphans(rewriter, used)
        return rewriter.edits > 0


def _touches(node: Node, sources: Collection[DataType]) -> bool:
    """Whether a node computes in one of the types; a table that is only looked up stays what it is."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    if (
        is_op(node, "Gather")
        and is_constant(values[0])
        and all(is_op(n, "Gather") for n, _ in values[0].uses())
    ):
        return False
    return any(value.dtype in sources for value in values)


def _refuse(node: Node, opset: int, sources: Collection[DataType]) -> str | None:
    if not is_standard(node) and (node.domain, node.op_type) not in GENERIC:
        return f"operator {node.domain}.{node.op_type} is not known"
    if has_subgraph(node) or has_reference_attribute(node) or is_random(node):
        return "it has a body, a caller's attribute, or draws numbers"
    if is_op(node, "Cast"):
        return None
    if (
        any(name in node.attributes for name in _TYPE_ATTRIBUTES)
        or int_attr(node, "stash_type", 1) in sources
    ):
        return "an attribute names a type"
    if any(v is not None and v.name and v.dtype is None for v in (*node.inputs, *node.outputs)):
        return UNTYPED
    inputs, outputs = convertible(node, opset, DataType.FLOAT, sources)
    given = [i for i, v in enumerate(node.inputs) if v is not None and v.dtype in sources]
    made = [i for i, v in enumerate(node.outputs) if v.dtype in sources]
    if not inputs or inputs != given or outputs != made:
        return f"{node.op_type} of opset {opset} has no float32 form"
    if any(not o.name for o in node.outputs[: max(outputs, default=0) + 1]):
        return "it leaves an output out"
    wrong = next((v for i in inputs if not _fits(v := node.inputs[i])), None)
    return None if wrong is None else f"the constant {wrong.name!r} does not fit"


def _fits(value: Value | None) -> bool:
    """Whether float32 holds a constant: nothing overflows, and nothing becomes 0."""
    array = constant(value) if value is not None and value.dtype == DataType.DOUBLE else None
    if array is None:
        return True
    with np.errstate(over="ignore", under="ignore"):
        single = array.astype(np.float32)
    return bool((np.isfinite(single) == np.isfinite(array)).all() and ((single != 0) == (array != 0)).all())


def _positions(model: Model) -> set[Node]:
    """Nodes that compute in float64 what becomes a few integers, or hand on what becomes any."""
    ends = [
        n
        for n in model.graph
        if is_op(n, "Range") or (is_op(n, "Cast", "CastLike") and n.outputs[0].dtype in _LONG)
    ]
    waiting, found = [value for node in ends for value in node.inputs], set[Node]()
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        if value is None or node is None or node in found or value.dtype != DataType.DOUBLE:
            continue
        shape = static_shape(value)
        if is_op(node, *MOVING) or (shape is not None and math.prod(shape) <= FEW):
            found.add(node)
            waiting += node.inputs
    return found.union(n for n in ends if any(map(partial(_stays, found), n.inputs)))


def _stays(found: Collection[Node], value: Value | None) -> bool:
    """Whether a value remains in float64: given so, or computed by a node that was found."""
    if value is None or value.dtype != DataType.DOUBLE:
        return False
    node = value.producer()
    return node is None or node in found
