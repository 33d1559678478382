# SPDX-License-Identifier: Apache-2.0
"""Axes that one Reshape merges and the next but one parts again stay apart in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ...analysis.coupling.rules.reshape import shared_factors
from ...analysis.expr import Dim
from ...analysis.shapes import dims_of, symbolic_data
from ...graph_ir import Model, Node, Rewriter
from ...graph_ir.ops import int_attr, ints_attr, is_op, only_user
from ..base import Context, Exactness, Pass


class PartMergedAxes(Pass):
    """Keep apart axes of unknown size that are merged for a Transpose only, as in attention by batch x heads.

    ``Reshape(Transpose(Reshape(x, s), p), t) = Reshape(Transpose(Reshape(x, s'), p'), t)`` where s' lists
    the factors that t shares with the transposed axes instead of their products, and p' moves the factors of
    an axis together: the elements keep their order. Of an axis whose size is not a known number no channels
    can be removed, though they could of a factor of it. Needs `infer-shapes`.

    Not done where all axes between have known sizes, another node reads a tensor between, t copies sizes of
    its input (0), an axis shares no factors with t, or two of them have sizes that are not known.
    """

    name: ClassVar[str] = "part-merged-axes"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        for node in rewriter.nodes(("Transpose",)):
            merge = node.inputs[0].producer() if node.inputs[0] is not None else None
            part = only_user(node.outputs[0])
            if merge is None or part is None or not _are_reshapes(node, merge, part):
                continue
            axes = _factors(node, part)
            if axes is not None and rewriter.allowed(self.name, node):
                _rewrite(rewriter, merge, node, part, axes)
                ctx.counters["parted"] += 1
        return rewriter.edits > 0


def _are_reshapes(node: Node, merge: Node, part: Node) -> bool:
    """Whether the Transpose stands between two Reshapes, and alone."""
    if not is_op(merge, "Reshape") or not is_op(part, "Reshape") or part.inputs[0] is not node.outputs[0]:
        return False
    return only_user(merge.outputs[0]) is node and len(merge.inputs) > 1 and len(part.inputs) > 1


def _factors(node: Node, part: Node) -> list[list[Dim]] | None:
    """Sizes of the factors of each transposed axis; None where nothing is to be done or can be."""
    moved, parted = node.outputs[0], part.outputs[0]
    dims, after = dims_of(moved), dims_of(parted)
    told = None if dims is None or after is None else shared_factors(moved, parted)
    if dims is None or told is None:
        return None
    sizes, factors, apart = told
    axes = [[sizes[i] for i in factors.get((moved, axis), ())] for axis in range(len(dims))]
    merged = [
        found for found, size in zip(axes, dims, strict=True) if not isinstance(size, int) and len(found) > 1
    ]
    unknown = [size for found in axes for size in found if not isinstance(size, int)]
    axes = [found or [1] for found in axes]
    if apart or not merged or len(unknown) > 1 or _copies(part, [size for found in axes for size in found]):
        return None
    return axes


def _copies(part: Node, given: Sequence[Dim]) -> bool:
    """Whether the second Reshape may copy a size of its input (a 0 says so) that would be another then."""
    wanted = symbolic_data(part.inputs[1]) if part.inputs[1] is not None else None
    after = dims_of(part.outputs[0])
    if wanted is None or after is None or len(wanted) != len(after):
        return True
    if int_attr(part, "allowzero", 0):
        return False
    # A size that is not a known number may be 0.
    return any(
        item == 0 or (not isinstance(item, int) and (i >= len(given) or size is None or given[i] != size))
        for i, (item, size) in enumerate(zip(wanted, after, strict=True))
    )


def _rewrite(rewriter: Rewriter, merge: Node, node: Node, part: Node, axes: list[list[Dim]]) -> None:
    perm = ints_attr(node, "perm") or list(range(len(axes)))[::-1]
    before = [axes[perm.index(axis)] for axis in range(len(axes))]  # in the order of the first Reshape
    first = np.cumsum([0, *map(len, before)])
    target = [size if isinstance(size, int) else -1 for found in before for size in found]
    order = [int(first[axis]) + i for axis in perm for i in range(len(before[axis]))]
    with rewriter.standing_for([merge, node]):
        shape = rewriter.constant(np.array(target, np.int64), f"{merge.outputs[0].name}_apart", near=merge)
        apart = rewriter.node(
            "Reshape", [merge.inputs[0], shape], before=node, name=merge.outputs[0].name or ""
        )
        moved = rewriter.node("Transpose", [apart.outputs[0]], {"perm": order}, before=node)
    rewriter.set_input(part, 0, moved.outputs[0])
    rewriter.erase_all([node, merge])
