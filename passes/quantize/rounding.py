# SPDX-License-Identifier: Apache-2.0
"""What passes that choose the codes of weights by data share: they put rounded float weights in place.

The weights are left float32, but lie on a grid; whoever quantizes them afterwards with the same number of
bits and the same blocks finds the same grid and the same codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ...graph_ir import Model, Node, Rewriter, UsageError, Value, constant
from ...graph_ir.ops import float_attr, input_at, is_op
from ...graph_ir.origins import goes_by
from ..base import Context, Exactness, Pass, bounded
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


@dataclass(frozen=True)
class WeightRounding(Pass):
    """A pass that puts other codes in place of the nearest ones; `solve` chooses them.

    Options:
        bits: of a code; 7 for x86 CPUs without VNNI.
        group: columns per scale of Gemm and MatMul; 0 for one scale per output channel.
        symmetric: codes of a group round 0 (with one scale per channel they always are).
        mse: choose scales by least squared error (one scale per channel only).
        sweeps: over all columns at most.
        exclude: labels or origins of nodes that are left alone.
    """

    exact: ClassVar[Exactness] = Exactness.LOSSY
    needs_facts: ClassVar[tuple[str, ...]] = (MOMENTS,)

    bits: int = bounded(8, 2, 8)
    group: int = bounded(0, 0)
    symmetric: bool = True
    mse: bool = False
    sweeps: int = bounded(1, 0)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group and self.bits not in (4, 8):
            raise UsageError(f"{self.name} with groups takes 4 or 8 bits, not {self.bits}")

    def solve(self, layer: Layer) -> NDArray[np.int64]:
        """Codes of a layer, ``[groups, rows of a group, columns]``."""
        raise NotImplementedError

    def run(self, model: Model, ctx: Context) -> bool:
        """Replace the weights of each linear node of the main graph by rounded ones; True if any were.

        The mean error that is left is taken off the bias where there is one, or where one can be added.

        Raises:
            UsageError: without measured second moments.
        """
        if MOMENTS not in ctx.facts:
            needed = "the second moments of layer inputs; calibrate with data first"
            raise UsageError(f"{self.name} needs {needed}")
        moments = cast("Mapping[Patches, Moments]", ctx.facts[MOMENTS])
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        excluded = frozenset(self.exclude)
        for node in list(model.graph):
            if not is_op(node, *LINEAR):
                continue
            found = self._usable(node, moments, excluded)
            if isinstance(found, str):
                ctx.misses[self.name, found] += 1
            elif rewriter.allowed(self.name, node) and self._rewrite(node, found, rewriter):
                ctx.counters[self.name] += 1
        drop_orphans(rewriter, used)
        return rewriter.edits > 0

    def _grid(self, rows: NDArray[Any]) -> RowGrid:
        if self.group:
            return block_grid(rows, self.bits, self.group, symmetric=self.symmetric)
        return channel_grid(rows, self.bits, mse=self.mse)

    def _usable(
        self, node: Node, moments: Mapping[Patches, Moments], excluded: frozenset[str]
    ) -> Moments | str:
        if goes_by(node, excluded):
            return "`exclude` names it"
        if (reason := refuse_linear(node)) is not None:
            return reason
        weights = node.inputs[1]
        if weights is None or len(weights.uses()) != 1 or weights.is_graph_output():
            return "its weights are shared"
        if self.group and node.op_type == "Conv":
            return "a convolution's weights have no groups of columns"
        patches = patches_of(node)
        found = None if patches is None else moments.get(patches)
        if found is None or not found.count:
            return "its inputs were not measured"
        return found

    def _rewrite(self, node: Node, moments: Moments, rw: Rewriter) -> bool:
        source = node.inputs[1]
        weights = constant(source)
        assert source is not None
        assert weights is not None
        read = RowView(node, weights.shape)
        rows = read.rows(weights).reshape(read.outputs, -1)
        split = rows.reshape(moments.total.shape[0], -1, rows.shape[1])  # by group of a convolution
        slot = _bias_slot(node, len(rows))
        hessian = moments.hessian(centered=slot is not None)
        grid = self._grid(rows)
        codes = self.solve(Layer(split.astype(np.float64), hessian, grid))
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
