# SPDX-License-Identifier: Apache-2.0
"""Time of a whole model as a function of how many atoms each group keeps, from measured layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...analysis.cost import working_nodes
from ...graph_ir import Model
from .layers import Sizes, linear_layers
from .products import Axes, Axis, Products
from .table import Grid, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...analysis.coupling import Coupling


class Predictor:
    """Predicts the share of a model's time that is left.

    The linear layers that groups reach go by the table; what the whole model takes beyond all its layers is
    taken to shrink with the elements that its other nodes write.

    Args:
        model: shapes inferred.
        coupling: of it.
        table: measured layers; missing ones are measured now.
        bindings: sizes of named dims.
        whole_ms: the whole model, measured.
        align: channels that widths are multiples of.
    """

    def __init__(
        self,
        model: Model,
        coupling: Coupling,
        table: Table,
        *,
        bindings: Mapping[str, int],
        whole_ms: float,
        align: int,
    ) -> None:
        self._axes = Axes(coupling)
        placed = list(linear_layers(model, bindings))
        grids = table.grids([p.layer for p in placed], align)
        self._layers: list[tuple[Grid, Axis, Axis, int, int]] = [
            (grid, p.input_axis, p.output_axis, p.layer.inputs, p.layer.outputs)
            for p, grid in zip(placed, grids, strict=True)
            if grid is not None
        ]
        timed = {p.node for p, grid in zip(placed, grids, strict=True) if grid is not None}
        sizes = Sizes(bindings)
        moved: list[tuple[float, list[Axis]]] = []
        for node in working_nodes(model.graph):
            for output in node.outputs if node not in timed else ():
                shape = sizes.of(output)
                if shape:
                    elements = 1.0
                    for size in shape:
                        elements *= size
                    moved.append((elements, [(output, axis) for axis in range(len(shape))]))
        self._moved = Products(self._axes, moved)
        full = self._linear_ms(self._axes.original)
        # Layers by themselves also reorder their inputs; together they cannot take more than the model.
        self._scale = min(1.0, whole_ms / full) if full else 0.0
        self._rest = max(0.0, whole_ms - full * self._scale)
        self._whole = whole_ms
        self._full: NDArray[np.int64] = np.array([group.atoms for group in coupling.groups], np.int64)
        self._elements = self._moved.total(self._full)

    def left(self, kept: NDArray[np.int64]) -> float:
        """The share of the time left when group i of the coupling keeps `kept[i]` atoms."""
        linear = self._linear_ms(self._axes.sizes(kept)) * self._scale
        moved = self._moved.total(kept) / self._elements if self._elements else 1.0
        return (linear + self._rest * moved) / self._whole if self._whole else 1.0

    def costs(self) -> NDArray[np.float64]:
        """The share of the time that an atom of each group takes, of the half that goes first; [groups]."""
        found = np.zeros(self._full.size)
        for index, atoms in enumerate(self._full):
            kept = np.array(self._full, np.int64)
            kept[index] = max(1, atoms // 2)
            found[index] = max(0.0, 1.0 - self.left(kept)) / max(1, atoms - kept[index])
        return found

    def _linear_ms(self, sizes: NDArray[np.float64]) -> float:
        index = self._axes.index
        total = 0.0
        for grid, input_axis, output_axis, inputs, outputs in self._layers:
            i, o = index.get(input_axis), index.get(output_axis)
            total += grid.at(
                inputs if i is None else float(sizes[i]), outputs if o is None else float(sizes[o])
            )
        return total
