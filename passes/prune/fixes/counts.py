# SPDX-License-Identifier: Apache-2.0
"""Nodes with an attribute that counts groups, heads or hidden units of a cut axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....graph_ir import Node, Value, constant
from ....graph_ir.ops import float_attr, input_at, int_attr, ints_attr
from .cuts import Cuts, Mask, blocks
from .windows import over_all


def conv(cuts: Cuts, node: Node, weight_at: int = 1) -> None:
    """Conv: groups. Whole ones go, or equally many positions of each; depthwise ones go with their channel.

    One that slides over channels goes on seeing all of them, see `windows`.
    """
    groups = int_attr(node, "group", 1)
    data, weight, out = node.inputs[0], input_at(node, weight_at), node.outputs[0]
    if groups == 1:
        over_all(cuts, node)
        return
    left = _groups_left(cuts, node, groups, (data, out))
    if left * cuts.size(node, weight, 1) != cuts.size(node, data, 1):
        cuts.refuse(node, "its weights are not cut as its input is")
    if left == groups:
        _order_columns(cuts, node, groups, weight_at)
    cuts.set_attribute(node, "group", left)


def _order_columns(cuts: Cuts, node: Node, groups: int, weight_at: int) -> None:
    """Where groups lose other positions than the first, bring their columns to where that loses them."""
    mask, weight = cuts.mask(node.inputs[0], 1), node.inputs[weight_at]
    stays = None if mask is None else mask.reshape(groups, -1)
    if stays is None or (stays == stays[0]).all():
        return
    array, first = constant(weight), cuts.mask(weight, 1)
    alike = first is not None and np.array_equal(first, stays[0])
    if weight is None or array is None or len(weight.uses()) > 1 or not alike:
        cuts.refuse(node, "its groups are not cut alike")
    made: NDArray[Any] = np.array(array, order="C")  # so that what is reshaped is itself
    columns = made.reshape(groups, -1, *made.shape[1:])
    for group, mine in enumerate(stays):
        order = np.empty(len(mine), np.int64)
        order[stays[0]], order[~stays[0]] = np.flatnonzero(mine), np.flatnonzero(~mine)
        columns[group] = columns[group][:, order]
    cuts.rw.set_data(weight, made)


def qlinear_conv(cuts: Cuts, node: Node) -> None:
    """QLinearConv: as Conv."""
    conv(cuts, node, weight_at=3)


def conv_transpose(cuts: Cuts, node: Node) -> None:
    """ConvTranspose: as Conv, but its weight's axis 1 holds the outputs of one group."""
    groups = int_attr(node, "group", 1)
    if groups == 1:
        return
    out = node.outputs[0]
    left = _groups_left(cuts, node, groups, (node.inputs[0], out))
    if left * cuts.size(node, node.inputs[1], 1) != cuts.size(node, out, 1):
        cuts.refuse(node, "its weights are not cut as its output is")
    cuts.set_attribute(node, "group", left)


def _groups_left(cuts: Cuts, node: Node, groups: int, sides: tuple[Value | None, Value | None]) -> int:
    """How many groups stay; both sides lose the same ones, or none does and each loses as many of all."""
    gone: list[list[bool]] = []
    for value in sides:
        mask = cuts.mask(value, 1)
        if mask is None:
            continue
        whole, _ = blocks(mask, groups)
        if whole is not None:
            gone.append(whole.tolist())
        elif len(mask) % groups or len(set(mask.reshape(groups, -1).sum(axis=1).tolist())) > 1:
            cuts.refuse(node, "its groups are not cut alike")
    if not gone:
        return groups
    other = [v for v in sides if cuts.mask(v, 1) is None]
    if other or any(g != gone[0] for g in gone) or len(gone) < 2:
        cuts.refuse(node, "its inputs and outputs do not lose the same groups")
    return sum(gone[0])


def group_norm(cuts: Cuts, node: Node) -> None:
    """GroupNormalization: groups, when whole ones go."""
    mask = cuts.mask(node.inputs[0], 1)
    if mask is None:
        return
    whole, inside = blocks(mask, int_attr(node, "num_groups", 0))
    if whole is not None:
        cuts.set_attribute(node, "num_groups", int(whole.sum()))
    elif inside is None:
        cuts.refuse(node, "its groups are not cut alike")


def recurrent(cuts: Cuts, node: Node) -> None:
    """LSTM, GRU, RNN: hidden units, counted by the recurrence weights `[directions, gates * H, H]`."""
    if cuts.mask(node.inputs[2], 2) is not None:
        cuts.set_attribute(node, "hidden_size", cuts.size(node, node.inputs[2], 2))


def multi_head(cuts: Cuts, node: Node) -> None:
    """com.microsoft MultiHeadAttention: heads, or the width of each where they lie side by side.

    They do in `[batch, length, heads * width]`; by head are `[batch, heads, length, width]`, and packed ones
    are `[batch, length, heads, 2 or 3, width]`.
    """
    heads = int_attr(node, "num_heads", 0)
    left = _heads_left(cuts, node, heads, node.inputs[0])
    for value in (*node.inputs[1:3], node.outputs[0]):
        if value is not None:
            _agree(cuts, node, heads, left, value)
    cuts.set_attribute(node, "num_heads", sum(left))


def attention(cuts: Cuts, node: Node) -> None:
    """ai.onnx Attention: heads of queries and of keys are attributes for inputs of rank 3 alone."""
    query, key = node.inputs[0], node.inputs[1]
    if len(cuts.old(query)) != 3:
        _keep_scale(cuts, node, cuts.old(query)[-1], cuts.mask(query, -1) is not None)
        return
    heads, shared = int_attr(node, "q_num_heads", 0), int_attr(node, "kv_num_heads", 0)
    left = _heads_left(cuts, node, heads, query)
    of_keys = _heads_left(cuts, node, shared, key, scale=False)
    _agree(cuts, node, heads, left, node.outputs[0])
    _agree(cuts, node, shared, of_keys, node.inputs[2])
    _share(cuts, node, left, of_keys)
    cuts.set_attribute(node, "q_num_heads", sum(left))
    cuts.set_attribute(node, "kv_num_heads", sum(of_keys))


def group_query(cuts: Cuts, node: Node) -> None:
    """com.microsoft GroupQueryAttention: heads; all three parts may lie side by side in the first input."""
    heads, shared = int_attr(node, "num_heads", 0), int_attr(node, "kv_num_heads", 0)
    left = _heads_left(cuts, node, heads, node.outputs[0])
    key, value = node.inputs[1], node.inputs[2]
    if key is None:
        whole, _ = blocks(_whole(cuts, node, node.inputs[0]), heads + 2 * shared)
        if whole is None:
            cuts.refuse(node, "its heads are not cut alike")
        parts = whole[:heads], whole[heads : heads + shared], whole[heads + shared :]
        if parts[0].tolist() != left or parts[1].tolist() != parts[2].tolist():
            cuts.refuse(node, "its heads are not cut alike")
        of_keys = parts[1].tolist()
    else:
        of_keys = _heads_left(cuts, node, shared, key, scale=False)
        _agree(cuts, node, heads, left, node.inputs[0])
        _agree(cuts, node, shared, of_keys, value)
    _share(cuts, node, left, of_keys)
    cuts.set_attribute(node, "num_heads", sum(left))
    cuts.set_attribute(node, "kv_num_heads", sum(of_keys))


def rotary(cuts: Cuts, node: Node) -> None:
    """RotaryEmbedding: heads, which are an attribute for an input of rank 3."""
    if len(cuts.old(node.inputs[0])) == 3:
        heads = int_attr(node, "num_heads", 0)
        cuts.set_attribute(node, "num_heads", sum(_heads_left(cuts, node, heads, node.inputs[0])))


def packed_attention(cuts: Cuts, node: Node) -> None:
    """com.microsoft Attention: weights `[in, q + k + v]`, the sizes of which may be an attribute."""
    heads = int_attr(node, "num_heads", 0)
    weight, mask = node.inputs[1], cuts.mask(node.inputs[1], 1)
    if mask is None:
        return
    sizes = ints_attr(node, "qkv_hidden_sizes") or [len(mask) // 3] * 3
    ends = np.cumsum(sizes).tolist()
    if ends[-1] != len(mask):
        cuts.refuse(node, f"{'' if weight is None else weight.name!r} is not as wide as its attributes say")
    parts = [mask[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    found = [blocks(part, heads) for part in parts]
    whole = [w.tolist() for w, _ in found if w is not None]
    if any(w is None and inside is None for w, inside in found) or any(w != whole[0] for w in whole):
        cuts.refuse(node, "its heads are not cut alike")
    kept = [int(part.sum()) for part in parts]
    by_head = bool(whole) and not all(whole[0])
    if by_head and len(whole) < 3:
        cuts.refuse(node, "its heads are not cut alike")
    if not by_head:
        _keep_scale(cuts, node, sizes[0] // heads if heads else None, kept[0] != sizes[0])
    cuts.set_attribute(node, "num_heads", sum(whole[0]) if by_head else heads)
    if len(set(kept)) > 1 or ints_attr(node, "qkv_hidden_sizes") is not None:
        cuts.set_attribute(node, "qkv_hidden_sizes", kept)


def _heads_left(cuts: Cuts, node: Node, heads: int, value: Value | None, *, scale: bool = True) -> list[bool]:
    """Which heads stay of a value; a head that only becomes narrower keeps its scale."""
    rank = len(cuts.old(value))
    mask = cuts.mask(value, {4: 1, 5: 2}.get(rank, -1))
    if mask is None:
        return [True] * heads
    whole, inside = blocks(mask, heads)
    if whole is not None:
        return whole.tolist()
    if inside is None:
        cuts.refuse(node, "its heads are not cut alike")
    if scale:
        _keep_scale(cuts, node, len(inside), changed=True)
    return [True] * heads


def _whole(cuts: Cuts, node: Node, value: Value | None) -> Mask:
    """What stays of a last axis, all of it when it is not cut."""
    mask = cuts.mask(value, -1)
    return np.ones(cuts.size(node, value, -1), dtype=np.bool_) if mask is None else mask


def _share(cuts: Cuts, node: Node, left: list[bool], of_keys: list[bool]) -> None:
    """Each head of keys goes with the heads of queries that share it, or these lose the same of each share.

    A single head of keys serves whatever heads of queries there are.
    """
    heads, shared = len(left), len(of_keys)
    share = heads // shared if shared and not heads % shared else 0
    shares = [left[i : i + share] for i in range(0, heads, share)] if share else []
    with_keys = shares == [[stays] * share for stays in of_keys]
    alike = all(of_keys) and all(each == shares[0] for each in shares)
    if not shares or not (with_keys or alike):
        cuts.refuse(node, "its heads of queries and keys are not cut alike")


def _agree(cuts: Cuts, node: Node, heads: int, left: list[bool], value: Value | None) -> None:
    if _heads_left(cuts, node, heads, value, scale=False) != left:
        cuts.refuse(node, f"{'' if value is None else value.name!r} does not lose the same heads")


def _keep_scale(cuts: Cuts, node: Node, width: int | None, changed: bool) -> None:
    """Queries are scaled by 1 / sqrt(width) unless told otherwise; the old width counts."""
    if not changed or float_attr(node, "scale", 0.0):
        return
    if not width:
        cuts.refuse(node, "the width of its heads is not known")
    cuts.set_attribute(node, "scale", 1.0 / math.sqrt(width))
