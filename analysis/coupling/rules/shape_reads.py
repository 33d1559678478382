# SPDX-License-Identifier: Apache-2.0
"""Shape and Size: the sizes of axes as data, followed to where they are used.

An axis may be cut only if its size ends up nowhere but in operands that the pass that cuts writes anew: sizes
asked of Reshape, Expand, ConstantOfShape, Resize or Split and bounds of Slice, each at a place that stands
for an axis of known size. The size of an axis that is cut there would be wrong in an element that is kept
(one of an axis of unknown size), and as a number in a computation it would change the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ....graph_ir import Node, Value
from ....graph_ir.ops import (
    dims,
    has_subgraph,
    input_at,
    int_attr,
    ints_attr,
    is_standard,
    label,
    static_shape,
)
from ... import data_moves
from ...node_view import MAX_ELEMENTS, Data, NodeView, objects
from ...shapes import symbolic_data
from ...value_types import ValueType
from ..ties import Rule, Ties
from .common import integers, numbers, operand, places, result, table

Marks: TypeAlias = NDArray[np.int64]
"""For each element of a small tensor, the axes whose sizes it depends on: bit a for axis a."""

MAX_STEPS = 2000

_MOVES: dict[str, Callable[[NodeView], Data | list[Data | None] | None]] = {
    "Cast": data_moves.identity,
    "Concat": data_moves.concat,
    "Expand": data_moves.expand,
    "Gather": data_moves.gather,
    "Identity": data_moves.identity,
    "Reshape": data_moves.reshape,
    "Slice": data_moves.slice_,
    "Split": data_moves.split,
    "Squeeze": data_moves.squeeze,
    "Transpose": data_moves.transpose,
    "Unsqueeze": data_moves.unsqueeze,
}
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Add", "And", "Ceil", "Clip", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less"),
        *(
            "LessOrEqual",
            "Max",
            "Min",
            "Mod",
            "Mul",
            "Neg",
            "Not",
            "Or",
            "Pow",
            "Reciprocal",
            "Round",
            "Sign",
        ),
        *("Sqrt", "Sub", "Sum", "Where", "Xor"),
    )
)
_WHOLE = frozenset(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"))


def shape(ties: Ties) -> None:
    """Shape, Size: axes of x are free; pinned where their size is used as more than a size (see above)."""
    x, y = operand(ties, 0), result(ties, 0)
    if x is None:
        return
    ties.free(*ties.axes(x))
    if y is None:
        return
    ties.pin_value(y, "it lists sizes")
    rank = ties.rank(x) or 0
    marks = np.array([1 << a if (ties.size((x, a)) or 1) > 1 else 0 for a in range(rank)], dtype=np.int64)
    if ties.node.op_type == "Size":
        marks = np.asarray(np.bitwise_or.reduce(marks), dtype=np.int64)
    else:
        marks = marks[int_attr(ties.node, "start", 0) : int_attr(ties.node, "end", rank)]
    if not marks.any():
        return  # sizes that are not known, and those of 1, cannot be cut
    for axis, reason in _follow(y, marks).items():
        if axis < rank:
            ties.pin((x, axis), reason)


def _follow(start: Value, marks: Marks) -> dict[int, str]:
    """The axes whose sizes are used as more than sizes, and where."""
    known: dict[Value, Marks] = {start: marks}
    bad: dict[int, str] = {}
    queue, steps = deque([start]), 0

    def blame(found: int, reason: str) -> None:
        for axis in range(found.bit_length()):
            if found >> axis & 1:
                bad.setdefault(axis, reason)

    while queue:
        value = queue.popleft()
        everything = _union(known[value])
        if value.is_graph_output():
            blame(everything, "its size is an output of the model")
        for node, index in value.uses():
            steps += 1
            if steps > MAX_STEPS:
                blame(everything, "its size is used in too many places to follow")
                return bad
            if node.graph is not start.graph or has_subgraph(node) or not is_standard(node):
                blame(everything, f"{label(node)!r} reads its size")
                continue
            end = _ENDS.get((node.op_type, index))
            found = None if end is not None else _outputs(node, index, known)
            if end is not None:
                blame(end(node, known[value]), f"{label(node)!r} computes with its size")
            elif found is None:
                blame(everything, f"{label(node)!r} computes with its size")
            for output, new in zip(node.outputs, found or (), strict=False):
                old = known.get(output)
                if old is None or (old | new != old).any():
                    known[output] = new if old is None else old | new
                    queue.append(output)
    return bad


def _union(marks: Marks) -> int:
    return int(np.bitwise_or.reduce(marks.reshape(-1))) if marks.size else 0


def _outputs(node: Node, index: int, known: dict[Value, Marks]) -> list[Marks] | None:
    """Marks of each output of a node that computes sizes from sizes; None where it does something else."""
    shapes = [static_shape(output) for output in node.outputs]
    sizes = [s for s in shapes if s is not None and int(np.prod(s)) <= MAX_ELEMENTS]
    if node.op_type in ("Shape", "Size"):
        return []  # of what is fixed: how many sizes there are
    if len(sizes) < len(shapes):
        return None
    if node.op_type in _MOVES and (index == 0 or node.op_type == "Concat"):
        moved = _moved(node, known)
        if moved is not None and [m.shape for m in moved] == sizes:
            return moved
    elif node.op_type in _ELEMENTWISE:
        operands = [_marks_of(v, known) for v in node.inputs if v is not None]
        given = [m for m in operands if m is not None]
        if len(given) == len(operands):
            return [_joined(given)]
        return None
    elif node.op_type not in _WHOLE or index != 0:
        return None
    value = node.inputs[index]
    whole = _union(known[value]) if value is not None else 0
    return [np.full(size, whole, dtype=np.int64) for size in sizes]


def _joined(operands: Sequence[Marks]) -> Marks:
    found = operands[0]
    for other in operands[1:]:
        found = np.bitwise_or(found, other)
    return found


def _marks_of(value: Value, known: dict[Value, Marks]) -> Marks | None:
    """Marks of an operand; none set where it does not depend on the sizes followed."""
    if value in known:
        return known[value]
    size = static_shape(value)
    return None if size is None or int(np.prod(size)) > MAX_ELEMENTS else np.zeros(size, dtype=np.int64)


def _moved(node: Node, known: dict[Value, Marks]) -> list[Marks] | None:
    """Marks after an operator that moves elements, by the rules of shape arithmetic."""
    every = node.op_type == "Concat"
    contents: list[NDArray[np.object_] | None] = []
    for i, value in enumerate(node.inputs):
        if value is None:
            contents.append(None)
        elif i == 0 or every:
            marks = _marks_of(value, known)
            contents.append(None if marks is None else marks.astype(np.object_))
        else:
            data = symbolic_data(value)
            items = None if data is None else [d if isinstance(d, int) else None for d in data]
            contents.append(None if items is None else objects(items, [len(items)] if value.shape else []))
    if node.inputs and contents[0] is None:
        return None
    opset = node.graph.opset_imports.get("", 1) if node.graph is not None else 1
    types = [ValueType(0, None if v is None else _numbers_only(v), None) for v in node.inputs]
    view = NodeView(
        node.op_type, opset, types, contents, dict(node.attributes), tuple(node.inputs), len(node.outputs)
    )
    found = _MOVES[node.op_type](view)
    results = found if isinstance(found, list) else [found]
    return [np.array(r, dtype=np.int64) for r in results if r is not None] or None


def _numbers_only(value: Value) -> tuple[int | None, ...] | None:
    found = dims(value)
    return None if found is None else tuple(d if isinstance(d, int) else None for d in found)


# -- where sizes may end: the marks of the elements that are not written anew --------------------------------


def _asked(node: Node, marks: Marks) -> int:
    """Sizes asked of a result, aligned with its axes from the end."""
    return _kept(marks, _numbers_only(node.outputs[0]))


def _kept(marks: Marks, sizes: Sequence[int | None] | None) -> int:
    flat = marks.reshape(-1)
    if sizes is None or len(flat) > len(sizes):
        return _union(flat)
    aligned = sizes[len(sizes) - len(flat) :]
    return _union(
        np.array([m for m, size in zip(flat, aligned, strict=True) if size is None], dtype=np.int64)
    )


def _resized(node: Node, marks: Marks) -> int:
    sizes = _numbers_only(node.outputs[0])
    axes = ints_attr(node, "axes")
    if axes is not None and sizes is not None:
        at = places(axes, len(sizes))
        sizes = None if at is None else tuple(sizes[a] for a in at)
    return _kept(marks, sizes)


def _bounds(node: Node, marks: Marks, index: int) -> int:
    """Bounds of a Slice, where they are known numbers on axes of known size."""
    value, data = input_at(node, index), node.inputs[0]
    bounds, sizes = numbers(value), None if data is None else _numbers_only(data)
    flat = marks.reshape(-1)
    axes = integers(input_at(node, 3)) if input_at(node, 3) is not None else list(range(len(flat)))
    at = None if sizes is None else places(axes, len(sizes))
    if bounds is None or sizes is None or at is None or not len(at) == len(bounds) == len(flat):
        return _union(flat)
    told = [bound is not None and sizes[axis] is not None for bound, axis in zip(bounds, at, strict=True)]
    return _union(np.array([m for m, known in zip(flat, told, strict=True) if not known], dtype=np.int64))


def _pieces(node: Node, marks: Marks) -> int:
    """Sizes of a Split's pieces."""
    pieces = [_numbers_only(output) for output in node.outputs]
    axis = int_attr(node, "axis", 0)
    fits = all(p is not None and -len(p) <= axis < len(p) for p in pieces)
    return 0 if fits and all(p[axis] is not None for p in pieces if p is not None) else _union(marks)


_ENDS: dict[tuple[str, int], Callable[[Node, Marks], int]] = {
    ("Reshape", 1): _asked,
    ("Expand", 1): _asked,
    ("ConstantOfShape", 0): _asked,
    ("Resize", 3): _resized,
    ("Slice", 1): lambda node, marks: _bounds(node, marks, 1),
    ("Slice", 2): lambda node, marks: _bounds(node, marks, 2),
    ("Split", 1): _pieces,
}

RULES: dict[tuple[str, str], Rule] = table(shape, "Shape", "Size")
