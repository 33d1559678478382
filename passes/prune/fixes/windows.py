# SPDX-License-Identifier: Apache-2.0
"""Convolutions that slide over channels, as ECA's do: they go on seeing zeros where channels were."""

from __future__ import annotations

import numpy as np

from ....graph_ir import Node, Value, constant
from ....graph_ir.ops import float_attr, input_at, ints_attr, is_op, string_attr
from .cuts import Cuts, Mask


def more_zeros(cuts: Cuts, node: Node) -> None:
    """Where an earlier cut put zeros in front of a Conv already, let these be more; the Conv is not cut then.

    ``Conv(Gather(Pad(x), i))`` with a zero at the end of the padded x: what goes is read from there. Without
    this, every round of pruning would add a Pad and two Gathers. To be called before any node is mended.
    """
    x, y = node.inputs[0], node.outputs[0]
    axes = _slid_over(cuts, node)
    front = None if x is None or len(axes) != 1 else x.producer()
    if x is None or front is None or len(x.uses()) > 1 or x.is_graph_output() or y.is_graph_output():
        return
    ((axis, mask),) = axes
    picked = _picked(cuts, front, axis)
    behind = [reader for reader, index in y.uses() if index or _picked(cuts, reader, axis) is None]
    size = cuts.old(front.inputs[0])[axis] if picked is not None else None
    if picked is None or size is None or behind or not _ends_in_zero(front, axis, cuts):
        return
    cuts.constant(front, 1, np.where(mask, picked % size, size - 1).tolist())
    del cuts.masks[x, axis], cuts.masks[y, axis]


def _slid_over(cuts: Cuts, node: Node) -> list[tuple[int, Mask]]:
    """Axes that lose positions and that a Conv slides over, and what stays: one of width one does not."""
    if not is_op(node, "Conv"):
        return []
    sizes, rank = cuts.old(input_at(node, 1)), len(cuts.old(node.inputs[0]))
    pads = ints_attr(node, "pads") or [0] * (2 * rank - 4)
    wide = (axis for axis in range(2, rank) if sizes[axis] != 1 or pads[axis - 2])
    return [(axis, mask) for axis in wide if (mask := cuts.mask(node.inputs[0], axis)) is not None]


def _picked(cuts: Cuts, node: Node, axis: int) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """The positions of an axis that a Gather picks; None where it is none, or they are not constant."""
    if not is_op(node, "Gather") or cuts.axis(node, 0) != axis:
        return None
    found = constant(node.inputs[1])
    return None if found is None or found.ndim != 1 else found.astype(np.int64)


def _ends_in_zero(front: Node, axis: int, cuts: Cuts) -> bool:
    """Whether what a Gather reads comes from a Pad that put a zero behind an axis."""
    padded = front.inputs[0]
    pad = None if padded is None else padded.producer()
    if pad is None or not is_op(pad, "Pad") or string_attr(pad, "mode", "constant") != "constant":
        return False
    if cuts.rw.opset(pad) < 11:
        if float_attr(pad, "value", 0.0):
            return False
        pads, value = ints_attr(pad, "pads"), None
    else:
        given, value = constant(pad.inputs[1]), input_at(pad, 2)
        pads = None if given is None or input_at(pad, 3) is not None else given.tolist()
    filled = 0 if value is None else constant(value)
    return pads is not None and pads[len(pads) // 2 + axis] > 0 and filled is not None and not np.any(filled)


def over_all(cuts: Cuts, node: Node) -> None:
    """Put zeros where channels were in front of a Conv that slides over them; take them out behind it."""
    x, y = node.inputs[0], node.outputs[0]
    masks = _slid_over(cuts, node)
    if x is None or not masks:
        return
    read, name = x, x.name or "x"
    with cuts.rw.standing_for([node]):
        for axis, mask in masks:
            read = _with_zeros(cuts, node, read, axis, mask)
        attributes = list(node.attributes.values())
        whole = cuts.rw.node("Conv", [read, *node.inputs[1:]], attributes, before=node, name=name)
        made = whole.outputs[0]
        for axis, mask in masks:  # the same of both, as the rule ties them
            at = cuts.rw.constant(np.flatnonzero(mask), f"{name}_left", near=node)
            made = cuts.rw.node("Gather", [made, at], {"axis": axis}, before=node, name=name).outputs[0]
        cuts.replace(y, made)
    cuts.rw.erase(node)


def _with_zeros(cuts: Cuts, node: Node, x: Value, axis: int, stays: Mask) -> Value:
    """The channels that are left at their old places, and zeros between."""
    rank, name = len(cuts.old(node.inputs[0])), f"{x.name}_spread"
    pads = [0] * (rank + axis) + [1] + [0] * (rank - axis - 1)
    if cuts.rw.opset(node) < 11:
        padded = cuts.rw.node("Pad", [x], {"pads": pads}, before=node, name=name)
    else:
        one = cuts.rw.constant(np.asarray(pads, np.int64), name, near=node)
        padded = cuts.rw.node("Pad", [x, one], before=node, name=name)
    count = np.count_nonzero(stays)
    places = np.where(stays, np.cumsum(stays) - 1, count)  # the zero stands at the end
    at = cuts.rw.constant(places.astype(np.int64), name, near=node)
    inputs = [padded.outputs[0], at]
    return cuts.rw.node("Gather", inputs, {"axis": axis}, before=node, name=name).outputs[0]
