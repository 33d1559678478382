# SPDX-License-Identifier: Apache-2.0
"""Poolings, resizing and sampling: channel by channel, over the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

from ....graph_ir import Value, constant
from ....graph_ir.ops import from_front, ints_attr, string_attr
from ..ties import Rule, Ties
from .common import (
    equal_rank,
    numbers,
    operand,
    pin_axes,
    pin_operands,
    pointwise,
    result,
    table,
    tie_except,
    tie_same,
)

_WINDOW = "a window slides over it"


def pool(ties: Ties) -> None:
    """AveragePool, MaxPool, LpPool: batch and channels tied, spatial axes pinned.

    Spatial axes of which every window sees one position are tied, too (`pointwise`).
    Pinned: everything when MaxPool's indices are read, for they count through all channels.
    """
    x, y = operand(ties, 0), result(ties, 0)
    if result(ties, 1) is not None:
        ties.pin_node("the indices it gives count through all channels")
    else:
        _spatial(ties, x, y, ints_attr(ties.node, "kernel_shape") or ())


def _rank(ties: Ties, x: Value | None, y: Value | None) -> int | None:
    """The rank of both; pins the node where they are not those of a pooling."""
    if x is None or y is None:
        return None
    rank = ties.rank(x) or 0
    if rank < 2 or not equal_rank(ties, x, y):
        ties.pin_node("its ranks are not those of a pooling")
        return None
    return rank


def _spatial(ties: Ties, x: Value | None, y: Value | None, window: Sequence[int] = ()) -> None:
    rank = _rank(ties, x, y)
    if x is None or y is None or rank is None:
        return
    alone = pointwise(ties, window, x, y) if len(window) == rank - 2 else []
    over = [axis for axis in range(2, rank) if axis not in alone]
    pin_axes(ties, over, _WINDOW, x, y)
    tie_except(ties, over, x, y)


def global_pool(ties: Ties) -> None:
    """GlobalAveragePool and kin: ReduceMean, ReduceMax or ReduceL2 over the spatial axes, with their rules.

    So what is a mean over channels where they stand last (a LayerNorm in pieces, say) can be cut, whichever
    of the two operators takes it.
    """
    x, y = operand(ties, 0), result(ties, 0)
    rank = _rank(ties, x, y)
    if x is None or y is None or rank is None:
        return
    tie_except(ties, range(2, rank), x, y)
    for axis in range(2, rank):
        if ties.node.op_type == "GlobalLpPool":
            ties.contracts((x, axis))
        else:
            ties.normalises((x, axis))


def regions(ties: Ties) -> None:
    """RoiAlign, MaxRoiPool: channels tied; the results' first axis counts regions. Other axes are pinned."""
    x, rois, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or rois is None or y is None:
        return
    tie_same(ties, (x, 1), (y, 1))
    reason = "regions are cut out of it"
    pin_axes(ties, (0, 2, 3), reason, x)
    pin_axes(ties, (0, 2, 3), reason, y)
    pin_operands(ties, 1)


def grid_sample(ties: Ties) -> None:
    """GridSample: batch of x, grid and y tied, channels of x and y; spatial axes and the grid's pinned.

    The batch counts heads where it is one of them (deformable attention): each has places of its own.
    """
    x, grid, y = operand(ties, 0), operand(ties, 1), result(ties, 0)
    if x is None or grid is None or y is None:
        return
    _spatial(ties, x, y)
    tie_same(ties, (x, 0), (grid, 0))
    ties.heads((x, 0))
    pin_axes(ties, range(1, ties.rank(grid) or 0), "it holds places to sample", grid)


def resize(ties: Ties) -> None:
    """Resize, Upsample: axes whose scale is 1 are tied, for they are copied; the others are pinned.

    The scale is 1 where a constant says so, or where the size asked for is x's. Pinned: every axis whose
    scale is not known, and all in modes that move positions even then (cropping, or half a pixel for
    nearest).
    """
    x, y = operand(ties, 0), result(ties, 0)
    if x is None or y is None:
        return
    pin_operands(ties, 1)
    rank = ties.rank(x) or 0
    mode = string_attr(ties.node, "coordinate_transformation_mode", "half_pixel")
    kept = _kept(ties, x, rank)
    if kept is None or mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn") or not equal_rank(ties, x, y):
        ties.pin_node("how it scales each axis is not known")
        return
    for axis in range(rank):
        if axis in kept:
            tie_same(ties, (x, axis), (y, axis))
        else:
            pin_axes(ties, [axis], "it is resized", x, y)


def _kept(ties: Ties, x: Value, rank: int) -> set[int] | None:
    """Axes whose scale is 1, None when which axes are scaled is not known."""
    axes = from_front(ints_attr(ties.node, "axes") or range(rank), rank)
    if axes is None:
        return None
    kept = set(range(rank)) - set(axes)
    scales, sizes = _scales(ties), numbers(operand(ties, 3)) if ties.opset >= 11 else None
    if scales is not None and len(scales) == len(axes):
        return kept | {axis for axis, scale in zip(axes, scales, strict=True) if scale == 1}
    stretched = string_attr(ties.node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    if sizes is not None and len(sizes) == len(axes) and stretched:
        return kept | {
            a for a, size in zip(axes, sizes, strict=True) if size is not None and size == ties.size((x, a))
        }
    return kept


def _scales(ties: Ties) -> list[float] | None:
    if ties.node.op_type == "Upsample" and ties.opset < 9:
        attribute = ties.node.attributes.get("scales")
        return None if attribute is None else list(attribute.as_floats())
    found = constant(operand(ties, 2 if ties.node.op_type == "Resize" and ties.opset >= 11 else 1))
    return None if found is None or not found.size else [float(s) for s in found.reshape(-1)]


RULES: dict[tuple[str, str], Rule] = {
    **table(pool, "AveragePool", "MaxPool", "LpPool"),
    **table(global_pool, "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
    **table(regions, "RoiAlign", "MaxRoiPool"),
    **table(grid_sample, "GridSample"),
    **table(resize, "Resize", "Upsample"),
}
