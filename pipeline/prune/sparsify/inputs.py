# SPDX-License-Identifier: Apache-2.0
"""What the rows of a weight are multiplied by, over data: the columns of X in ``rows @ X``, summed up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....calibration.moments import second_moments
from ....graph_ir import Model
from ....passes.linear.patches import Moments, patches
from ....passes.prune.sparse_layers import Layer
from ....passes.prune.sparse_rows import Use

Samples = Iterable[Mapping[str, Any]]
Wide = NDArray[np.float64]

ROWS = 1024  # places of one feed and layer that are looked at


def why_not_measured(layer: Layer, model: Model, *, hessian: bool) -> str | None:
    """Why what the layer reads cannot be measured; None when it can."""
    for use in layer.uses:
        if use.node.graph is not model.graph:
            return "its node is in a body or function, where nothing is measured"
        if use.node.op_type == "MatMul" and len(use.read.shape) > 2:
            return "it is a batch of matrices"
        if use.node.op_type == "ConvTranspose" and hessian:
            return "a ConvTranspose sums over other weights at each place of its output"
    return None


def squares(model: Model, feeds: Samples, layers: Sequence[Layer], *, seed: int) -> list[Wide]:
    """Per layer, the sum of squares of what each weight of a row is multiplied by: ``[groups, d]``.

    Of one feed and layer, up to `ROWS` places drawn by the seed.

    Raises:
        DataError: a feed does not fit the model, or a value is not finite.
    """
    return [
        _sum(found.squares[:, use.order()] for use, found in each)
        for each in _moments(model, feeds, layers, seed, widest=0)
    ]


def hessians(model: Model, feeds: Samples, layers: Sequence[Layer], *, seed: int) -> list[Wide]:
    """Per layer, the sum of ``x x'`` over columns x of what a row of d weights reads: ``[groups, d, d]``.

    It is half the Hessian of the squared error of one output with regard to its row. See `squares`.
    """
    return [
        _sum(
            found.outer[:, use.order()[:, np.newaxis], use.order()]
            for use, found in each
            if found.outer is not None
        )
        for each in _moments(model, feeds, layers, seed, widest=None)
    ]


def hessian_bytes(layer: Layer) -> int:
    """What `hessians` holds for the layer."""
    return 8 * layer.uses[0].read.groups * layer.row**2


def _moments(
    model: Model, feeds: Samples, layers: Sequence[Layer], seed: int, widest: int | None
) -> list[list[tuple[Use, Moments]]]:
    """Of what each reader of each layer reads."""
    cut = [[(use, patches(use.read, use.x.name or "")) for use in layer.uses] for layer in layers]
    wanted = [rows for each in cut for _, rows in each]
    found = second_moments(model, feeds, wanted, rows=ROWS, seed=seed, apart=True, widest=widest)
    return [[(use, found[rows]) for use, rows in each] for each in cut]


def _sum(parts: Iterable[Wide]) -> Wide:
    first, *others = parts
    for other in others:
        first = first + other
    return first
