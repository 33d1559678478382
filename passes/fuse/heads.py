# SPDX-License-Identifier: Apache-2.0
"""How exporters cut rows into heads, read backwards: from a product's operand to the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...graph_ir import Node, Value, constant
from ...graph_ir.ops import input_at, int_attr, ints_attr, is_op
from .reshape_dims import Dim, Dims, known_dims

BY_HEAD = (0, 2, 1, 3)  # [batch, tokens, heads, size] -> [batch, heads, tokens, size], and back
_OF_ONE, _OF_ONE_TURNED = (1, 0, 2), (1, 2, 0)  # [tokens, heads, size] -> [heads, tokens, size], or turned
_LAST_TURNED = (0, 2, 1)
BACK_FIRST = (_OF_ONE, (2, 0, 1, 3))  # what puts heads side by side, tokens first
_BY_HEAD_TURNED = (0, 2, 3, 1)
_TURNED = (0, 1, 3, 2)
_PACKED_BY_HEAD = (
    2,
    0,
    3,
    1,
    4,
)  # [batch, tokens, parts, heads, size] -> [parts, batch, heads, tokens, size]


@dataclass(frozen=True)
class Heads:
    """Rows cut into heads and multiplied by a number.

    Attributes:
        rows: `[batch, tokens, parts * heads * size]`, or `[tokens, batch, parts * heads * size]`.
        heads: their number.
        size: of one head.
        part: which of the parts, for rows that hold queries, keys and values side by side.
        parts: how many there are.
        factor: what they are multiplied by.
        tokens_first: see `rows`.
    """

    rows: Value
    heads: int
    size: int
    part: int = 0
    parts: int = 1
    factor: float = 1.0
    tokens_first: bool = False

    @property
    def outer(self) -> Dims:
        """Batch and tokens."""
        outer = (known_dims(self.rows) or ())[:2]
        return outer[::-1] if self.tokens_first else outer


def heads_of(value: Value | None, *, turned: bool = False) -> Heads | None:
    """The heads `[batch, heads, tokens, size]` (turned: the last two the other way round) a value holds.

    Those of one sample may also be `[heads, tokens, size]`.
    """
    scaled = _scaled(value)
    if scaled is not None:
        found = heads_of(scaled[0], turned=turned)
        return None if found is None else replace(found, factor=found.factor * scaled[1])
    node = None if value is None else value.producer()
    if node is None:
        return None
    perm = ints_attr(node, "perm") if is_op(node, "Transpose") else None
    if perm is not None:
        if turned and tuple(perm) in (_TURNED, _LAST_TURNED):
            return heads_of(node.inputs[0])
        if tuple(perm) == (_OF_ONE_TURNED if turned else _OF_ONE):
            found = known_dims(node.inputs[0]) or (None, None)
            return _tokens_first(node.inputs[0], 1, found[1])
        wanted = _BY_HEAD_TURNED if turned else BY_HEAD
        cut = _cut(node.inputs[0], 4) if tuple(perm) == wanted else None
        return None if cut is None else Heads(cut[0], cut[1][2], cut[1][3])
    if is_op(node, "Reshape"):
        return None if turned else _stacked(node.inputs[0], known_dims(value))
    return None if turned else _part(node)


def scale_of(node: Node | None, operand: Value) -> float | None:
    """The number a Mul or Div multiplies one operand by; None when it is no constant number."""
    if node is None or not is_op(node, "Mul", "Div") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    other = right if left is operand else left
    data = constant(other)
    if data is None or data.size != 1 or data.ndim > 4 or data.dtype != np.float32:
        return None
    number = float(data.reshape(-1)[0])
    if node.op_type == "Mul":
        return number
    return 1 / number if other is right and number != 0 else None


def unscaled(value: Value) -> tuple[Value, float]:
    """The value that numbers are multiplied into, and their product."""
    factor, deeper = 1.0, _scaled(value)
    while deeper is not None:
        value, factor = deeper[0], factor * deeper[1]
        deeper = _scaled(value)
    return value, factor


def _scaled(value: Value | None) -> tuple[Value, float] | None:
    node = None if value is None else value.producer()
    for operand in () if node is None or not is_op(node, "Mul", "Div") else node.inputs:
        factor = None if operand is None or constant(operand) is not None else scale_of(node, operand)
        if operand is not None and factor is not None:
            return operand, factor
    return None


def _cut(value: Value | None, rank: int) -> tuple[Value, tuple[int, ...]] | None:
    """The rows a Reshape cuts, behind batch and tokens, and the sizes of the result (0 where not known)."""
    node = None if value is None else value.producer()
    rows = node.inputs[0] if node is not None and is_op(node, "Reshape") else None
    before, after = known_dims(rows), known_dims(value)
    if rows is None or before is None or after is None or len(before) != 3 or len(after) != rank:
        return None
    sizes = tuple(d if isinstance(d, int) else 0 for d in after)
    if None in before[:2] or before[:2] != after[:2] or 0 in sizes[2:]:
        return None
    return (rows, sizes) if before[2] == int(np.prod(sizes[2:])) else None


def _stacked(value: Value | None, made: Dims | None) -> Heads | None:
    """The heads of all samples, `[batch * heads, tokens, size]`, made `[batch, heads, tokens, size]`."""
    given, turn = known_dims(value), None if value is None else value.producer()
    if given is None or made is None or turn is None or len(given) != 3 or len(made) != 4:
        return None
    perm = tuple(ints_attr(turn, "perm") or ()) if is_op(turn, "Transpose") else ()
    if made[2:] != given[1:] or perm != _OF_ONE:
        return None
    return _tokens_first(turn.inputs[0], made[0], made[1])


def _tokens_first(value: Value | None, batch: Dim, heads: Dim) -> Heads | None:
    """The rows `[tokens, batch, heads * size]` that are cut into `[tokens, batch * heads, size]`."""
    node = None if value is None else value.producer()
    rows = node.inputs[0] if node is not None and is_op(node, "Reshape") else None
    before, after = known_dims(rows), known_dims(value)
    if rows is None or before is None or after is None or len(before) != 3 or len(after) != 3:
        return None
    tokens, size = before[0], after[2]
    if None in (tokens, batch) or before[1] != batch or tokens != after[0]:
        return None
    if not isinstance(heads, int) or not isinstance(size, int) or before[2] != heads * size:
        return None
    packed = _packed(rows)
    if packed is None:
        return Heads(rows, heads, size, tokens_first=True)
    return Heads(packed[0], heads, size, packed[1], packed[2], tokens_first=True)


def _packed(value: Value) -> tuple[Value, int, int] | None:
    """Of a part `[tokens, batch, width]` of rows: the rows with all parts, which part, and how many."""
    node = value.producer()
    if node is None or not is_op(node, "Gather") or int_attr(node, "axis", 0) not in (2, -2):
        return None
    cut, index = node.inputs[0], constant(node.inputs[1])
    reshape = None if cut is None else cut.producer()
    if index is None or index.ndim != 0 or reshape is None or not is_op(reshape, "Reshape"):
        return None
    rows, before, after = reshape.inputs[0], known_dims(reshape.inputs[0]), known_dims(cut)
    if rows is None or before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    parts, width = after[2:]
    if None in before[:2] or before[:2] != after[:2]:
        return None
    if not isinstance(parts, int) or not isinstance(width, int) or before[2] != parts * width:
        return None
    part = int(index) + (parts if index < 0 else 0)
    return (rows, part, parts) if 0 <= part < parts else None


def _part(node: Node) -> Heads | None:
    """Queries, keys or values out of rows that hold them side by side."""
    if is_op(node, "Gather"):
        index = constant(node.inputs[1])
        packed = node.inputs[0]
        if int_attr(node, "axis", 0) != 0 or index is None or index.ndim != 0:
            return None
        part = int(index)
    elif is_op(node, "Squeeze"):
        chunk = node.inputs[0]
        split = None if chunk is None else chunk.producer()
        axes = constant(input_at(node, 1))
        if chunk is None or split is None or axes is None or axes.reshape(-1).tolist() not in ([0], [-5]):
            return None
        if not is_op(split, "Split") or int_attr(split, "axis", 0) not in (0, -5):
            return None
        if any((known_dims(out) or (0,))[0] != 1 for out in split.outputs):
            return None
        packed, part = split.inputs[0], list(split.outputs).index(chunk)
    else:
        return None
    transpose = None if packed is None else packed.producer()
    if (
        transpose is None
        or not is_op(transpose, "Transpose")
        or tuple(ints_attr(transpose, "perm") or ()) != _PACKED_BY_HEAD
    ):
        return None
    cut = _cut(transpose.inputs[0], 5)
    if cut is None:
        return None
    parts, heads, size = cut[1][2:]
    part += parts if part < 0 else 0
    return Heads(cut[0], heads, size, part, parts) if 0 <= part < parts else None
