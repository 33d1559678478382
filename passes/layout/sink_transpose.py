# SPDX-License-Identifier: Apache-2.0
"""Transposes pushed through the operators between them, to their inverses or the graph's ends."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Graph, Model, Node, Rewriter
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..fuse.merge_transpose import MergeTranspose
from .borders import Borders, Region, anchored
from .move import move
from .perms import Perm, inverse, is_identity, perm_of
from .region import best_parts, grow

RULE = "SinkTranspose"
MAX_ROUNDS = 8


class SinkTransposes(Pass):
    """Push Transposes through whole regions of operators, where that leaves fewer of them.

    f(Transpose_p(x), ...) = Transpose_q(f'(x, ...)) for elementwise and broadcasting operators (constants
    are transposed, lower ranks padded), and for those that name axes: Concat, Split, Slice, Pad, Reduce*,
    ArgMax, Softmax, Squeeze, Unsqueeze, Resize, Tile, Expand, Gather and their like (axis a becomes axis
    p[a]; q lacks what the operator removes). Shape(Transpose_p(x)) = Gather(Shape(x), p).

    The region that a Transpose's permutation reaches is moved at once, if the Transposes at its border become
    fewer, or stay as many and more operators with a layout of their own (Conv, pools, MatMul) come to stand
    directly beside it; a part of it at the border that costs more than it saves stays behind. So the pair
    (Transposes, minus such neighbours) falls with each move.

    Not valid, so left alone: unknown ranks; axes, pads or scales that are not constant; Softmax below opset
    13, broadcasting below opset 7; Dropout in training; Resize of other than the trailing axes; operators not
    named here. Not worth it: what an outer graph made, read in a body. Bits are only moved, but a reduction
    over several axes and the runtime's kernels may sum in another order.
    """

    name: ClassVar[str] = "sink-transpose"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Move regions until none is worth it; True if anything changed."""
        changed = apply_rules(model, ctx, [MergeTranspose()])
        for _ in range(MAX_ROUNDS):
            rewriter = ctx.rewriter(model)
            if not rewriter.occurs("Transpose"):
                break
            for graph in rewriter.graphs():
                _sweep(graph, rewriter, ctx)
            if not rewriter.edits:
                break
            changed = True
        return changed


def _sweep(graph: Graph, rw: Rewriter, ctx: Context) -> None:
    """Move what is worth it once; each node is looked at once for each permutation that reaches it."""
    transposes = [node for node in graph if node.op_type == "Transpose"]
    if not transposes:
        return
    order = {node: i for i, node in enumerate(graph)}
    here = frozenset(order)
    known: set[tuple[Node, Perm]] = set()

    def is_new(node: Node, perm: Perm) -> bool:
        # The next sweep looks at what is made in this one.
        if node not in here or (node, perm) in known:
            return False
        known.add((node, perm))
        return True

    for node in transposes:
        perm = perm_of(node)
        if node.graph is not graph or perm is None or is_identity(perm):
            continue
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        seeds = [(user, perm) for user, _ in node.outputs[0].uses()]
        for start in (seeds, [] if producer is None else [(producer, inverse(perm))]):
            region = grow(start, graph, rw.opset, is_new)
            for part in best_parts(region) if region else ():
                _try(part, order, rw, ctx)


def _try(part: Region, order: dict[Node, int], rw: Rewriter, ctx: Context) -> None:
    borders = Borders(part)
    saved = -borders.cost()
    if saved < 0 or (saved == 0 and anchored(borders) <= 0):
        ctx.misses[RULE, "no fewer Transposes"] += 1
        return
    first = min(part, key=order.__getitem__)
    if rw.allowed(RULE, first):
        move(part, order, rw)
        ctx.counters[RULE] += 1
