# SPDX-License-Identifier: Apache-2.0
"""Nodes that take tensors apart or pad them: positions are counted anew among those that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ....graph_ir import Node, Value, constant
from ....graph_ir.ops import input_at, ints_attr, string_attr
from .cuts import Cuts, Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray


def split(cuts: Cuts, node: Node) -> None:
    """Split: the sizes, written out unless equal shares still give them."""
    axis = cuts.axis(node, 0)
    mask = cuts.mask(node.inputs[0], axis)
    if mask is None:
        return
    sizes = _split_sizes(cuts, node, len(mask))
    ends = np.cumsum(sizes)
    kept = [_count(mask[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    for output, (end, size) in zip(node.outputs, zip(ends, sizes, strict=True), strict=True):
        part = cuts.mask(output, axis)
        if output.name and not _same(part, mask[end - size : end]):
            cuts.refuse(node, f"{output.name!r} is not cut as its source is")
    has_input = input_at(node, 1) is not None
    if ints_attr(node, "split") is not None or (cuts.rw.opset(node) < 13 and len(set(kept)) > 1):
        cuts.set_attribute(node, "split", kept)
    elif has_input or len(set(kept)) > 1:
        cuts.constant(node, 1, kept)
        cuts.set_attribute(node, "num_outputs", None)


def _split_sizes(cuts: Cuts, node: Node, total: int) -> list[int]:
    told = ints_attr(node, "split") or cuts.data(input_at(node, 1))
    if told is None:
        share = -(-total // len(node.outputs))
        told = [min(share, total - i * share) for i in range(len(node.outputs))]
    known = [size for size in told if size is not None]
    if len(known) != len(node.outputs) or sum(known) != total:
        cuts.refuse(node, "its sizes are not known")
    return known


def slice_(cuts: Cuts, node: Node) -> None:
    """Slice along a cut axis: start, end and step among what stays.

    Where that lies at no regular distances any more, a Gather in front takes it out.
    """
    data, out = node.inputs[0], node.outputs[0]
    rank = len(cuts.old(data))
    places = {(a + rank) % rank: i for i, a in enumerate(_slice_axes(cuts, node))}
    for axis in range(rank):
        mask = cuts.mask(data, axis)
        if axis not in places:
            continue
        if mask is None:
            if cuts.mask(out, axis) is not None:
                cuts.refuse(node, f"only its result is cut along axis {axis}")
            continue
        at = places[axis]
        start, end, step = (_slice_item(cuts, node, k, at) for k in range(3))
        taken = np.arange(len(mask))[slice(start, end, step)]
        if not _same(cuts.mask(out, axis), mask[taken]):
            cuts.refuse(node, f"its result is not cut as its source is along axis {axis}")
        _slice_write(cuts, node, at, *_taken_now(cuts, node, axis, mask, taken))


def _taken_now(
    cuts: Cuts, node: Node, axis: int, mask: Mask, taken: NDArray[np.intp]
) -> tuple[int, int, int]:
    """Start, end and step that take what stays of the positions taken before."""
    size = _count(mask)
    places = (np.cumsum(mask) - 1)[taken[mask[taken]]]
    if not len(places):
        first = _count(mask[: taken[0]]) if len(taken) else 0
        return first, first, 1
    first, last = int(places[0]), int(places[-1])
    steps = np.unique(np.diff(places))
    step = int(steps[0]) if len(steps) else 1
    if len(steps) < 2:
        end = last + step
        return first, end if end >= 0 else -size - 1, step  # before the first, counted from the end
    with cuts.rw.standing_for([node]):
        name = f"{node.outputs[0].name}_taken"
        at = cuts.rw.constant(places.astype(np.int64), f"{name}_at", near=node)
        picked = cuts.rw.node("Gather", [node.inputs[0], at], {"axis": axis}, before=node, name=name)
        cuts.rw.set_input(node, 0, picked.outputs[0])
    return 0, len(places), 1


def _slice_axes(cuts: Cuts, node: Node) -> list[int]:
    if len(node.inputs) == 1:
        return ints_attr(node, "axes") or list(range(len(ints_attr(node, "starts") or [])))
    axes = input_at(node, 3)
    if axes is None:
        length = cuts.old(node.inputs[1])
        if len(length) != 1 or length[0] is None:
            cuts.refuse(node, "its axes are not known")
        return list(range(length[0]))
    known = cuts.data(axes)
    found = [a for a in known or () if a is not None]
    if known is None or len(found) != len(known):
        cuts.refuse(node, "its axes are not known")
    return found


def _slice_item(cuts: Cuts, node: Node, which: int, at: int) -> int:
    """Start, end or step of the entry at a place."""
    if len(node.inputs) == 1:
        name = ("starts", "ends", "steps")[which]
        return 1 if which == 2 else (ints_attr(node, name) or [])[at]
    value = input_at(node, (1, 2, 4)[which])
    if value is None and which == 2:
        return 1
    known = cuts.data(value)
    found = known[at] if known is not None and at < len(known) else None
    if found is None:
        cuts.refuse(node, "where it starts and ends is not known")
    return found


def _slice_write(cuts: Cuts, node: Node, at: int, start: int, end: int, step: int) -> None:
    if len(node.inputs) == 1:
        for name, item in (("starts", start), ("ends", end)):
            items = ints_attr(node, name) or []
            items[at] = item
            cuts.set_attribute(node, name, items)
        return
    cuts.write(node, 1, {at: start})
    cuts.write(node, 2, {at: end})
    if input_at(node, 4) is not None:
        cuts.write(node, 4, {at: step})


def gather(cuts: Cuts, node: Node) -> None:
    """Gather along a cut axis by constant positions: those that stay, counted anew."""
    data, indices, out = node.inputs[0], node.inputs[1], node.outputs[0]
    axis = cuts.axis(node, 0)
    mask = cuts.mask(data, axis)
    rank = None if indices is None or indices.shape is None else len(indices.shape)
    after = cuts.mask(out, axis) if rank == 1 else None
    if mask is None and after is None:
        return
    known = constant(indices)
    length = cuts.old(data)[axis]
    if known is None or rank is None or rank > 1 or length is None:
        cuts.refuse(node, "its positions are not a constant vector")
    wanted = np.where(known < 0, known + length, known)
    mask = np.ones(length, dtype=np.bool_) if mask is None else mask
    stays = np.ones(wanted.shape, dtype=np.bool_) if after is None else after
    if not mask[wanted[stays]].all():
        cuts.refuse(node, "it takes a position that is removed")
    made = (np.cumsum(mask) - 1)[wanted[stays] if rank else wanted].astype(known.dtype)
    with cuts.rw.standing_for([node]):
        name = f"{'' if indices is None else indices.name}_cut"
        cuts.rw.set_input(node, 1, cuts.rw.constant(np.asarray(made), name, near=node))


def pad(cuts: Cuts, node: Node) -> None:
    """Pad along a cut axis: as many positions before and after as stay of those it made (or took away)."""
    data, out = node.inputs[0], node.outputs[0]
    rank = len(cuts.old(out))
    name = "pads" if ints_attr(node, "pads") is not None else "paddings"
    attribute = ints_attr(node, name)
    listed = cuts.data(input_at(node, 3)) if attribute is None else None
    axes = list(range(rank)) if listed is None else [((a or 0) + rank) % rank for a in listed]
    pads = attribute or cuts.data(input_at(node, 1)) or []
    items: dict[int, int] = {}
    for i, axis in enumerate(axes):
        before, after = cuts.mask(data, axis), cuts.mask(out, axis)
        if before is None and after is None:
            continue
        first, last = (pads[i], pads[i + len(axes)]) if len(pads) == 2 * len(axes) else (None, None)
        if first is None or last is None:
            cuts.refuse(node, "its pads are not known")
        if (first or last) and string_attr(node, "mode", "constant") != "constant":
            cuts.refuse(node, "what it pads with depends on the channels")
        items[i], items[i + len(axes)] = _padding(cuts, node, axis, first, last)
    if attribute is None:
        cuts.write(node, 1, items)
    else:
        cuts.set_attribute(node, name, [items.get(i, p) for i, p in enumerate(attribute)])


def _padding(cuts: Cuts, node: Node, axis: int, first: int, last: int) -> tuple[int, int]:
    """How much to pad (or, negative, to crop) an axis before and after, given how much it was."""

    def whole(value: Value | None) -> Mask:
        found = cuts.mask(value, axis)
        size = cuts.old(value)[axis]
        if found is None and size is None:
            cuts.refuse(node, f"axis {axis} has no known size")
        return np.ones(size or 0, dtype=np.bool_) if found is None else found

    source, result = whole(node.inputs[0]), whole(node.outputs[0])
    n = len(source)
    inner = result[max(first, 0) : len(result) - max(last, 0)]
    if not np.array_equal(inner, source[max(-first, 0) : n - max(-last, 0)]):
        cuts.refuse(node, f"its result is not cut as its source is along axis {axis}")
    return (
        _count(result[:first]) if first >= 0 else -_count(source[:-first]),
        _count(result[len(result) - last :]) if last >= 0 else -_count(source[n + last :]),
    )


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _same(mask: Mask | None, other: Mask) -> bool:
    return bool(other.all()) if mask is None else np.array_equal(mask, other)
