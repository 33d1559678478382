# SPDX-License-Identifier: Apache-2.0
"""Nodes that are told sizes: the operand that holds a number of channels is rewritten.

Sizes that are not known numbers stay computed: what computes them goes on seeing the sizes of the original
model, because a Shape of a cut tensor is made to answer as before the cut.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ....graph_ir import Node, constant
from ....graph_ir.ops import input_at, int_attr, ints_attr
from .cuts import Cuts


def reshape(cuts: Cuts, node: Node) -> None:
    """Reshape: the target; 0 (copy) and -1 (the rest) stay where they still say what they said."""
    data, out = node.inputs[0], node.outputs[0]
    if len(node.inputs) < 2:
        _reshape_attribute(cuts, node)
        return
    rank = len(cuts.old(out))
    target = cuts.data(node.inputs[1], rank)
    if target is None or len(target) != rank:
        cuts.refuse(node, "the rank of its result is not known")
    is_constant = constant(node.inputs[1]) is not None
    copies = not int_attr(node, "allowzero", 0)
    items: dict[int, int] = {}
    for i, asked in enumerate(target):
        size = cuts.new(out, i)
        if asked == 0 and copies:
            if _follows(cuts, node, i):
                continue
        elif asked == -1:
            continue
        if size is None:
            if cuts.mask(data, i) is not None and asked == 0:
                cuts.refuse(node, f"axis {i} of its result has no known size")
        elif cuts.mask(out, i) is not None or not is_constant or asked == 0:
            items[i] = size
    cuts.write(node, 1, items)


def _follows(cuts: Cuts, node: Node, axis: int) -> bool:
    """Whether copying the input's dimension still gives the output's."""
    data, out = node.inputs[0], node.outputs[0]
    if cuts.mask(data, axis) is None and cuts.mask(out, axis) is None:
        return True
    return cuts.new(data, axis) == cuts.new(out, axis)


def _reshape_attribute(cuts: Cuts, node: Node) -> None:
    target = ints_attr(node, "shape") or []
    for i, asked in enumerate(target):
        if asked != -1 and not (asked == 0 and _follows(cuts, node, i)):
            target[i] = cuts.size(node, node.outputs[0], i)
    cuts.set_attribute(node, "shape", target)


def expand(cuts: Cuts, node: Node) -> None:
    """Expand: the sizes wanted of cut axes, other than 1 (which takes the input's)."""
    out = node.outputs[0]
    length = cuts.old(node.inputs[1])
    if len(length) != 1 or length[0] is None:
        cuts.refuse(node, "the length of its shape operand is not known")
    first = len(cuts.old(out)) - length[0]
    wanted = cuts.data(node.inputs[1], length[0]) or []
    items: dict[int, int] = {}
    for i, asked in enumerate(wanted):
        if cuts.mask(out, first + i) is not None and asked != 1:
            items[i] = cuts.size(node, out, first + i)
    cuts.write(node, 1, items)


def constant_of_shape(cuts: Cuts, node: Node) -> None:
    """ConstantOfShape: the sizes of cut axes."""
    out = node.outputs[0]
    axes = [i for i in range(len(cuts.old(out))) if cuts.mask(out, i) is not None]
    cuts.write(node, 0, {i: cuts.size(node, out, i) for i in axes})


def resize(cuts: Cuts, node: Node) -> None:
    """Resize by sizes: those of cut axes. By scales there is nothing to do: theirs is 1."""
    sizes = input_at(node, 3)
    if sizes is None or cuts.old(sizes) == (0,):
        return
    out = node.outputs[0]
    rank = len(cuts.old(out))
    axes = ints_attr(node, "axes") or list(range(rank))
    places = {(a + rank) % rank: i for i, a in enumerate(axes)}
    items = {i: cuts.size(node, out, axis) for axis, i in places.items() if cuts.mask(out, axis) is not None}
    cuts.write(node, 3, items)


def tile(cuts: Cuts, node: Node) -> None:
    """Tile: an axis of length 1 is repeated as often as wanted now; copies of a cut axis are cut alike."""
    data, out = node.inputs[0], node.outputs[0]
    items: dict[int, int] = {}
    for i, size in enumerate(cuts.old(out)):
        after = cuts.mask(out, i)
        if after is None:
            continue
        before = cuts.mask(data, i)
        if before is not None and size is not None and not size % len(before):
            if not np.array_equal(np.tile(before, size // len(before)), after):
                cuts.refuse(node, "its copies are not cut alike")
        elif cuts.old(data)[i] == 1:
            items[i] = cuts.size(node, out, i)
        else:
            cuts.refuse(node, "its copies are not cut alike")
    if items and len(node.inputs) > 2:
        cuts.refuse(node, "its old form repeats a single axis")
    cuts.write(node, 1, items)


def shape_of(cuts: Cuts, node: Node) -> None:
    """Shape of a cut tensor: it goes on saying the old sizes, for the arithmetic behind it.

    What the arithmetic leads to is mended where it is used as a size; anything else (the square root of a
    width that scales attention, say) must not change.
    """
    data, out = node.inputs[0], node.outputs[0]
    sizes = cuts.old(data)
    first, last, _ = slice(int_attr(node, "start", 0), int_attr(node, "end", len(sizes))).indices(len(sizes))
    said = sizes[first:last]
    if all(cuts.mask(data, first + i) is None for i in range(len(said))):
        return
    static = {i: size for i, size in enumerate(said) if size is not None}
    with cuts.rw.standing_for([node]):
        if len(static) == len(said):
            made = cuts.rw.constant(np.asarray(said, dtype=np.int64), out.name or "shape", near=node)
            cuts.rw.replace(out, made)
        else:
            attributes = list(node.attributes.values())
            asked = cuts.rw.node("Shape", [data], attributes, before=node, name=out.name or "")
            asked.outputs[0].type = out.type
            cuts.rw.replace(out, cuts.patched(asked.outputs[0], len(said), static, node))
    cuts.rw.erase(node)


def size_of(cuts: Cuts, node: Node) -> None:
    """Size of a cut tensor: it goes on saying the old number of elements.

    Where that is not known, it is what there is now, times the old number of channels, over the new one.
    """
    data, out = node.inputs[0], node.outputs[0]
    sizes = cuts.old(data)
    known = [size for size in sizes if size is not None]
    after = [cuts.size(node, data, i) for i, size in enumerate(sizes) if size is not None]
    name = out.name or "size"
    with cuts.rw.standing_for([node]):
        made = cuts.rw.constant(np.asarray(prod(known), dtype=np.int64), name, near=node)
        if len(known) < len(sizes):
            count = cuts.rw.node("Size", [data], before=node, name=name)
            whole = cuts.rw.node("Mul", [count.outputs[0], made], before=node, name=name)
            left = cuts.rw.constant(np.asarray(prod(after), dtype=np.int64), name, near=node)
            made = cuts.rw.node("Div", [whole.outputs[0], left], before=node, name=name).outputs[0]
        cuts.rw.replace(out, made)
    cuts.rw.erase(node)
