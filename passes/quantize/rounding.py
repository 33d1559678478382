# SPDX-License-Identifier: Apache-2.0
"""What passes that choose the codes of weights by data share: they put rounded float weights in place.

The weights are left float32, but lie on a grid; whoever quantizes them afterwards with the same number of
bits and the same blocks finds the same grid and the same codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...graph_ir import Model, Node, Rewriter, UsageError, Value, constant
from ...graph_ir.ops import float_attr, input_at, is_op
from ...graph_ir.origins import goes_by
from ..base import Context
from ..linear.bias import bias_add
from ..linear.patches import Moments, Patches
from ..linear.rows import RowView
from .facts import MOMENTS
from .kinds import LINEAR, refuse_linear
from .layer_error import Layer
from .patches import patches_of
from .row_grid import RowGrid, block_grid, channel_grid
from .values import drop_orphans, used_initializers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Solver = Callable[[Layer], NDArray[np.int64]]
    """Codes of a layer: [groups, rows of a group, columns]."""


@dataclass(frozen=True)
class Rounding:
    """How weights are rounded.

    Attributes:
        bits: of a code.
        group: columns per scale of Gemm and MatMul; 0 for one scale per output channel.
        symmetric: whether the codes of a group lie round 0 (one scale per channel always does).
        mse: choose scales by least squared error (one scale per channel only).
        exclude: labels or origins of nodes that are left alone.
    """

    bits: int = 8
    group: int = 0
    symmetric: bool = True
    mse: bool = False
    exclude: frozenset[str] = frozenset()

    def check(self, name: str) -> None:
        """Refuse what is not possible. Raises UsageError naming the pass."""
        if not 2 <= self.bits <= 8:
            raise UsageError(f"{name} takes 2 to 8 bits, not {self.bits}")
        if self.group < 0 or (self.group and self.bits not in (4, 8)):
            raise UsageError(f"{name} with groups takes 4 or 8 bits and a positive group")

    def grid(self, rows: NDArray[Any]) -> RowGrid:
        """The grid of rows of weights."""
        if self.group:
            return block_grid(rows, self.bits, self.group, symmetric=self.symmetric)
        return channel_grid(rows, self.bits, mse=self.mse)


def round_weights(model: Model, ctx: Context, name: str, rounding: Rounding, solver: Solver) -> bool:
    """Replace the weights of each linear node of the main graph by rounded ones; True if any were.

    The mean error that is left is taken off the bias where there is one, or where one can be added.

    Raises:
        UsageError: without measured second moments.
    """
    if MOMENTS not in ctx.facts:
        raise UsageError(f"{name} needs the second moments of layer inputs; calibrate with data first")
    moments = cast("Mapping[Patches, Moments]", ctx.facts[MOMENTS])
    rewriter, used = ctx.rewriter(model), used_initializers(model)
    for node in list(model.graph):
        if not is_op(node, *LINEAR):
            continue
        found = _usable(node, moments, rounding)
        if isinstance(found, str):
            ctx.misses[name, found] += 1
        elif rewriter.allowed(name, node) and _rewrite(node, found, rounding, solver, rewriter):
            ctx.counters[name] += 1
    drop_orphans(rewriter, used)
    return rewriter.edits > 0


def _usable(node: Node, moments: Mapping[Patches, Moments], rounding: Rounding) -> Moments | str:
    if goes_by(node, rounding.exclude):
        return "`exclude` names it"
    if (reason := refuse_linear(node)) is not None:
        return reason
    weights = node.inputs[1]
    if weights is None or len(weights.uses()) != 1 or weights.is_graph_output():
        return "its weights are shared"
    if rounding.group and node.op_type == "Conv":
        return "a convolution's weights have no groups of columns"
    patches = patches_of(node)
    found = None if patches is None else moments.get(patches)
    if found is None or not found.count:
        return "its inputs were not measured"
    return found


def _rewrite(node: Node, moments: Moments, rounding: Rounding, solver: Solver, rw: Rewriter) -> bool:
    source = node.inputs[1]
    weights = constant(source)
    assert source is not None
    assert weights is not None
    read = RowView(node, weights.shape)
    rows = read.rows(weights).reshape(read.outputs, -1)
    split = rows.reshape(moments.total.shape[0], -1, rows.shape[1])  # by group of a convolution
    slot = _bias_slot(node, len(rows))
    hessian = moments.hessian(centered=slot is not None)
    grid = rounding.grid(rows)
    codes = solver(Layer(split.astype(np.float64), hessian, grid))
    done = grid.dequantize(codes.reshape(rows.shape)).reshape(split.shape)
    ready = np.ascontiguousarray(read.back(done.reshape(rows.shape)))
    if np.array_equal(ready, weights):
        return False
    name = source.name or "weight"
    rw.set_input(node, 1, rw.constant(ready, name, node))
    if slot is not None:
        shift = np.einsum("gok,gk->go", split.astype(np.float64) - done, moments.mean()).reshape(-1)
        _add_bias(*slot, shift, f"{name}_bias", rw)
    return True


def _bias_slot(node: Node, outputs: int) -> tuple[Node, int, Value | None] | None:
    """The node and input that hold the bias of one value per channel, or can; None when there is none."""
    if node.op_type == "MatMul":
        added = bias_add(node)
        if added is None:
            return None
        holder, value = added
        index = next(i for i, v in enumerate(holder.inputs) if v is value)
    else:
        holder, value, index = node, input_at(node, 2), 2
        if float_attr(node, "alpha", 1.0) != 1.0 or float_attr(node, "beta", 1.0) != 1.0:
            return None
        if value is None:
            return holder, index, None
    array = constant(value)
    if array is None or array.shape != (outputs,) or array.dtype != np.float32:
        return None
    return holder, index, value


def _add_bias(
    holder: Node, index: int, value: Value | None, shift: NDArray[np.float64], name: str, rw: Rewriter
) -> None:
    before = constant(value)
    total = shift if before is None else before.astype(np.float64) + shift
    hint = name if value is None else value.name or name
    rw.set_input(holder, index, rw.constant(np.asarray(total, np.float32), hint, holder))
