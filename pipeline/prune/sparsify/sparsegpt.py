# SPDX-License-Identifier: Apache-2.0
"""Zeros whose error the remaining weights of the row make up for.

Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot"
(arXiv:2301.00774): where `passes.linear.feedback` settles column j at zero, at a cost of ``w_j^2 / U_jj^2``,
the cheapest weights go.

Columns that were passed cannot answer what goes later, and where inputs go together closely that costs more
than it saves. So once the mask stands, all weights that stay are fitted once more, row by row, by conjugate
gradients on the same error (Hestenes & Stiefel 1952); each step lowers it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ....passes.linear.feedback import BLOCK, damped, diagonal, feed_back, inverse_root
from ....passes.prune.masks import Mask, Pattern, count, outside_pattern, smallest

Wide = NDArray[np.float64]

STEPS = 20
"""Of conjugate gradients, each as much work as one product with the Hessian."""


def prune_rows(
    rows: Wide, hessian: Wide, *, share: float = 0.0, pattern: Pattern | None = None, damping: float = 0.01
) -> Wide:
    """Rows with zeros, and the weights that make up for them.

    Args:
        rows: ``[rows, d]``.
        hessian: ``X X'``, ``[d, d]``, symmetric, semidefinite.
        share: of zeros, met exactly over all rows (and per block of columns, by rounding); without a pattern.
        pattern: of each run along d, a multiple of `pattern.of`, instead.
        damping: what is added to the diagonal, as a share of its mean; positive.

    Returns:
        ``[rows, d]``; the chosen weights are exactly zero.
    """
    work: Wide = np.array(rows)
    steadied = damped(hessian, damping)
    upper = inverse_root(steadied)
    scale = diagonal(upper)
    mask: Mask = np.zeros(rows.shape, np.bool_)

    def settle(j: int, block: slice) -> Wide:
        # A block's weights are chosen together; a run's late, with what the columns before have handed on.
        chosen = block if pattern is None else slice(j - j % pattern.of, j - j % pattern.of + pattern.of)
        if j == chosen.start:
            costs = np.square(work[:, chosen] / scale[chosen])
            if pattern is None:
                wanted = count(share, len(rows) * block.stop) - int(np.count_nonzero(mask))
                mask[:, chosen] = smallest(costs, wanted)
            else:
                mask[:, chosen] = outside_pattern(costs, pattern)
        return np.where(mask[:, j], 0.0, work[:, j])

    feed_back(
        work, upper, settle, block=BLOCK if pattern is None else max(1, BLOCK // pattern.of) * pattern.of
    )
    return refit(rows, work, steadied)


def refit(rows: Wide, sparse: Wide, hessian: Wide, steps: int = STEPS) -> Wide:
    """The weights that are not zero, moved towards the least ``(v - w) H (v - w)'`` of each row.

    Args:
        rows: w, ``[rows, d]``.
        sparse: v to begin with, ``[rows, d]``; its zeros stay.
        hessian: H, ``[d, d]``, positive definite.
        steps: of conjugate gradients, scaled by the diagonal; fewer when nothing is left to gain.
    """
    keep = sparse != 0.0
    scale = np.diagonal(hessian)
    found: Wide = np.array(sparse)
    left: Wide = ((rows - sparse) @ hessian) * keep  # the gradient with its sign turned
    way: Wide = left / scale
    gain: Wide = (left * way).sum(axis=1, keepdims=True)
    floor = 1e-24 * float(gain.max(initial=0.0))
    for _ in range(steps):
        if not gain.max(initial=0.0) > floor:
            break
        curve = (way @ hessian) * keep
        bend = (way * curve).sum(axis=1, keepdims=True)
        step = np.divide(gain, bend, out=np.zeros_like(gain), where=bend > 0)
        found += step * way
        left -= step * curve
        turned = left / scale
        before, gain = gain, (left * turned).sum(axis=1, keepdims=True)
        way = turned + np.divide(gain, before, out=np.zeros_like(gain), where=before > 0) * way
    return found


def output_error(before: Wide, after: Wide, hessian: Wide) -> float:
    """Squared error of the outputs as a share of their squares; ``[groups, rows, d]`` and Hessians."""
    change = after - before
    total = float(((before @ hessian) * before).sum())
    error = float(((change @ hessian) * change).sum())
    return max(error, 0.0) / total if total > 0 else 0.0
