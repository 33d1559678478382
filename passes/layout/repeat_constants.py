# SPDX-License-Identifier: Apache-2.0
"""Constants written out along more axes, where arithmetic would broadcast them in short pieces."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Rewriter, Value, constant
from ...graph_ir.ops import dims, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..fuse.reshape_dims import Dims
from ..pattern import Match, Miss, Op, Rule, op, var

_SHORT = 64  # elements; pieces longer than this take longer than what comes between them
_LONG = 512  # elements from which on a piece is long enough
_PIECES = 64  # fewer take no time that counts
_MOST = 1 << 16  # elements of a constant that is written out
# What the runtime fuses with a constant behind it.
_FUSED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "MatMulNBits", "DynamicQuantizeMatMul")


class ShortPieces(Rule):
    """x [A.., D..] with a constant c = the same with c [..1.., D..] repeated to D, the last axes of x.

    Add, Sub, Mul and Div; Pow is computed in another way where a piece has one exponent. Written out are as
    few of the last axes as give pieces of 512 elements, on which x and c run alike. Not valid where c has
    more than x on one of these axes, or their sizes are not known; below opset 7, where an attribute lines
    operands up. Not done: pieces of more than 64 elements, fewer than 64 of them; more than 65,536 elements
    written out; behind a Conv, Gemm or MatMul, which the runtime fuses with the constant.
    """

    root: ClassVar[Op] = op(("Add", "Sub", "Mul", "Div"), var("a"), var("b"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The same with a longer constant."""
        if rw.opset(m.root) < 7:
            return Miss("needs opset 7")
        found = [index for index, name in enumerate("ab") if constant(m[name]) is not None]
        if len(found) != 1:
            return Miss("not one operand is constant")
        place = found[0]
        x, given = m["ba"[place]], constant(m["ab"[place]])
        assert given is not None
        if is_op(x.producer(), *_FUSED):
            return Miss("fused with what is in front of it")
        sizes = dims(x)
        if sizes is None or given.ndim > len(sizes):
            return Miss("the rank is not known, or the constant's is larger")
        shape = _written_out(sizes, given.shape)
        if isinstance(shape, Miss):
            return shape
        whole = np.ascontiguousarray(np.broadcast_to(given, np.broadcast_shapes(given.shape, shape)))
        operands = [x, x]
        operands[place] = rw.constant(whole, f"{m['ab'[place]].name}_repeated", m.root)
        return rw.node(m.root.op_type, operands, before=m.root, name=m.root.name or "").outputs[0]


def _written_out(sizes: Dims, given: tuple[int, ...]) -> tuple[int, ...] | Miss:
    """The last sizes of x that a constant is written out to."""
    own = (1,) * (len(sizes) - len(given)) + given
    if any(mine not in (1, size) for size, mine in zip(sizes, own, strict=True)):
        return Miss("the constant has more elements, or sizes are not known")
    known = [size for size in sizes if isinstance(size, int)]
    piece = _piece(sizes, own)
    if piece is None or piece > _SHORT or prod(known) < piece * _PIECES:
        return Miss("no short pieces, or few")
    shape: tuple[int, ...] = ()
    for count in range(1, len(sizes) + 1):
        size = sizes[-count]
        if not isinstance(size, int) or size * prod(shape) * prod(own[:-count]) > _MOST:
            break
        shape = (size, *shape)
        if prod(shape) >= _LONG:
            break
    return shape if prod(shape) > piece else Miss("too many elements, or sizes are not known")


def _piece(sizes: Dims, own: tuple[int, ...]) -> int | None:
    """Elements in a row on which both go on, or the constant stands; None where that is all of a sample."""
    piece, alike = 1, None
    for size, mine in zip(reversed(sizes), reversed(own), strict=True):
        if not isinstance(size, int):
            break
        if size != 1 and alike not in (None, mine == size):
            return piece
        if size != 1:
            alike, piece = mine == size, piece * size
    return None


class RepeatConstants(Pass):
    """Write constants of Add, Sub, Mul and Div out along more axes, for longer pieces of arithmetic.

    The algebra and limits stand with the rule `ShortPieces`. It needs shapes (`infer-shapes`).

    onnxruntime's CPU kernels start anew for each piece on which both operands run alike: to take the mean of
    three colours from a channels-last picture costs ten times as much as to take a picture. For the end of a
    pipeline and for that runtime.
    """

    name: ClassVar[str] = "repeat-constants"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [ShortPieces()])
