# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding from its parts (Su and others, RoFormer, 2021, arXiv:2104.09864)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, int_attr, is_op
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Op, commute, op, var
from .activations import Fusion, float_type, fuse_all
from .reshape_dims import Dims, axes_of
from .slices import taken

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SWAPPED = op("Concat", op("Neg", var("right")), var("left"))
_TURNED = commute("Mul", _SWAPPED, var("sine"))
_KEPT = commute("Mul", var("a"), var("b"))
_DEPTH = 6  # nodes between a cosine and what is doubled, at most
_BY_ELEMENT = ("Cos", "Sin", "Identity", "Neg")


@dataclass(frozen=True)
class _Parts:
    """What the operator takes.

    Attributes:
        x: `[batch, heads, tokens, size]`.
        cosine: `[batch, tokens, size]`, both halves of size equal.
        sine: likewise.
    """

    x: Value
    cosine: Value
    sine: Value


class RotaryOf(Fusion):
    """x c + Concat(-x2, x1) s = RotaryEmbedding(x, c1, s1), with first and second halves x1, x2, c1 and s1.

    Halves are those of the last axis. c and s are the same for all heads and have equal halves: they are made
    element by element of one value beside itself, or are rows of a constant. Half by half that is
        x1 c1 - x2 s1  and  x2 c1 + x1 s1.

    Valid where batch, tokens and size of x, c and s are provably the same. Not valid: halves that are not
    known to be equal; types other than float; a part read elsewhere; below opset 23.
    """

    since: ClassVar[int] = 23
    root: ClassVar[Op] = commute("Add", _KEPT, _TURNED)

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        found = self.parts(m)
        return found if isinstance(found, Miss) else None

    def parts(self, m: Match) -> _Parts | Miss:
        """What the operator takes."""
        dtype = float_type(m["left"], m.root.outputs[0], DataType.FLOAT)
        if isinstance(dtype, Miss):
            return dtype
        left, right = m["left"].producer(), m["right"].producer()
        x = None if left is None or not left.inputs else left.inputs[0]
        given = dims(x)
        if x is None or right is None or right.inputs[:1] != (x,) or x not in (m["a"], m["b"]):
            return Miss("not two parts of what is turned")
        if given is None or len(given) != 4 or None in given or not isinstance(given[3], int):
            return Miss("not known to be heads")
        half, odd = divmod(given[3], 2)
        if int_attr(m.node(_SWAPPED), "axis", 0) not in (-1, 3) or odd:
            return Miss("not the last axis")
        if not _takes(left, 0, half, given[3]) or not _takes(right, half, given[3], given[3]):
            return Miss("not the halves")
        both = m["b"] if m["a"] is x else m["a"]
        wanted = (given[0], given[2], given[3])
        cosine, sine = _over_heads(both, wanted), _over_heads(m["sine"], wanted)
        if cosine is None or sine is None:
            return Miss("factors are not known to be the same for all heads")
        if not _doubled(cosine) or not _doubled(sine):
            return Miss("halves of the factors are not known to be equal")
        return _Parts(x, cosine, sine)

    def fuse(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One RotaryEmbedding."""
        found = self.parts(m)
        if isinstance(found, Miss):
            return found
        near, made = m.root, dict[Value, Value]()
        inputs = [found.x, *(_half(value, near, rw, made) for value in (found.cosine, found.sine))]
        return rw.node("RotaryEmbedding", inputs, before=near).outputs[0]


@dataclass(frozen=True)
class FuseRotary(Pass):
    """Fuse rotary position embedding into the operator RotaryEmbedding, from opset 23 on.

    The algebra and limits stand with the rule `RotaryOf`. It needs shapes (`infer-shapes`). On onnxruntime's
    CPU that part takes 0.35 to 0.55 of the time.

    Attributes:
        raise_opset: raise the opset to 23, if that is safe (`raise-opset`).
    """

    name: ClassVar[str] = "fuse-rotary"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return fuse_all(model, ctx, [RotaryOf()], raising=self.raise_opset)


def _takes(node: Node | None, start: int, end: int, size: int) -> bool:
    """Whether a Slice takes these elements of the last of four axes, and no other axis."""
    found = taken(node)
    if found is None or len(found) != 1:
        return False
    (part,) = found
    first = part.start + size if part.start < 0 else part.start
    last = part.end + size if part.end < 0 else min(part.end, size)
    return part.axis in (3, -1) and part.step == 1 and (first, last) == (start, end)


def _over_heads(value: Value, wanted: Dims) -> Value | None:
    """The `[batch, tokens, size]` that is set beside all heads; None for another value."""
    node = value.producer()
    if node is None or not is_op(node, "Unsqueeze") or axes_of(node) not in ([1], [-3]):
        return None
    source = node.inputs[0]
    return source if source is not None and dims(source) == wanted and None not in wanted else None


def _doubled(value: Value, depth: int = _DEPTH) -> bool:
    """Whether both halves of the last axis are known to be equal."""
    data = constant(value)
    if data is not None:
        return data.ndim > 0 and _equal_halves(data)
    node = value.producer()
    if node is None or not depth:
        return False
    if is_op(node, "Concat"):
        last = len(dims(value) or ()) - 1
        return (
            len(node.inputs) == 2
            and node.inputs[0] is node.inputs[1]
            and int_attr(node, "axis", 0) in (-1, last)
        )
    if is_op(node, "Gather"):
        table = constant(node.inputs[0])
        return (
            table is not None and table.ndim > 1 and int_attr(node, "axis", 0) == 0 and _equal_halves(table)
        )
    if is_op(node, "Mul") and _factor(node) is not None:
        return any(_doubled(v, depth - 1) for v in node.inputs if v is not None and v is not _factor(node))
    return is_op(node, *_BY_ELEMENT) and node.inputs[0] is not None and _doubled(node.inputs[0], depth - 1)


def _equal_halves(data: NDArray[Any]) -> bool:
    half, odd = divmod(data.shape[-1], 2)
    return not odd and bool(np.array_equal(data[..., :half], data[..., half:]))


def _factor(node: Node) -> Value | None:
    """The one number that a Mul multiplies by."""
    for value in node.inputs:
        data = constant(value)
        if data is not None and data.size == 1 and data.ndim <= 1:
            return value
    return None


def _half(value: Value, near: Node, rw: Rewriter, made: dict[Value, Value]) -> Value:
    """The first half of a value that `_doubled` knows, made anew; `cse` finds what several rewrites make."""
    if value in made:
        return made[value]
    data, node = constant(value), value.producer()
    name = f"{value.name}_half"
    if data is not None:
        found = rw.constant(np.ascontiguousarray(data[..., : data.shape[-1] // 2]), name, near)
    else:
        assert node is not None
        if is_op(node, "Concat"):
            found = node.inputs[0]
        else:
            whole = [v for v in node.inputs if v is not None]
            inner = [v if _stays(node, v) else _half(v, near, rw, made) for v in whole]
            found = rw.node(node.op_type, inner, [*node.attributes.values()], before=near, name=name).outputs[
                0
            ]
    assert found is not None
    made[value] = found
    return found


def _stays(node: Node, value: Value) -> bool:
    """Whether an operand is no part of what is halved: a number, or the rows a Gather takes."""
    return value is _factor(node) if is_op(node, "Mul") else is_op(node, "Gather") and value is node.inputs[1]
