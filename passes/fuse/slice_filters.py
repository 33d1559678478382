# SPDX-License-Identifier: Apache-2.0
"""Some channels of a convolution, as a convolution of those filters."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..layout.blocks import BLOCK
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .slices import taken
from .split_filters import ALONE, SplitLayer

_MOST_PRODUCTS = 64  # for each element that a Slice of steps copies, at which a second convolution is as fast


class SlicedConv(Rule):
    """act(Conv(x, W, b))[:, channels] = act(Conv(x, W[channels], b[channels])).

    A filter makes its channel alone, so those of the others are left out; `act` is nothing or works on each
    element alone. Where only the Slice reads the channels, less is computed. Where others read them too, the
    ones taken are computed twice; that is done for a Slice of steps, which copies element by element, of
    whole blocks of 16 channels with at most 64 products an element. Not valid: slices of other axes; groups;
    weights that are not constant. Not done: channels of an outer graph, which a body would compute each time.
    """

    root: ClassVar[Op] = op(
        "Slice", var("cut"), var("starts"), var("ends"), maybe(var("axes")), maybe(var("steps"))
    )

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The convolution of these filters, and the activation behind it."""
        act = m["cut"].producer()
        conv = act if act is None or is_op(act, "Conv") else _before(act)
        weight = None if conv is None else constant(input_at(conv, 1))
        if act is None or conv is None or weight is None or int_attr(conv, "group", 1) != 1:
            return Miss("no convolution of constant weights before it")
        if not act.graph is conv.graph is m.root.graph:
            return Miss("the convolution is of another graph")
        bias = constant(input_at(conv, 2))
        if input_at(conv, 2) is not None and bias is None:
            return Miss("no convolution of constant weights before it")
        parts = taken(m.root)
        if parts is None or len(parts) != 1 or parts[0].axis not in (1, 1 - weight.ndim):
            return Miss("not a slice of channels alone")
        chosen = range(weight.shape[0])[parts[0].start : parts[0].end : parts[0].step]
        if not chosen:
            return Miss("it takes nothing")
        if not (_alone(act) and _alone(conv)) and (
            abs(parts[0].step) < 2 or len(chosen) % BLOCK or prod(weight.shape[1:]) > _MOST_PRODUCTS
        ):
            return Miss("others read the channels, and copying some is cheaper")
        rows = np.array(chosen, np.int64)
        inputs = [conv.inputs[0], rw.constant(np.ascontiguousarray(weight[rows]), _name(conv, 1), conv)]
        if bias is not None:
            inputs.append(rw.constant(np.ascontiguousarray(bias[rows]), _name(conv, 2), conv))
        name = m.root.name or ""
        made = rw.node("Conv", inputs, list(conv.attributes.values()), before=m.root, name=conv.name or name)
        if act is conv:
            return made.outputs[0]
        again = [made.outputs[0], *act.inputs[1:]]
        return rw.node(act.op_type, again, list(act.attributes.values()), before=m.root, name=name).outputs[0]


def slices_as_splits(model: Model, rw: Rewriter) -> int:
    """Make Slices side by side that take all of an axis one Split, which `SplitLayer` knows; how many.

    Not valid: an axis of unknown size; steps; bounds that are not constant, or that overlap. Not done: other
    element types than float32; codes, whose Q/DQ stand around each Slice.
    """
    count = 0
    for graph in rw.graphs_within(model.graph):
        asked: set[tuple[Value, int]] = set()
        for node in [n for n in graph if is_op(n, "Slice")]:
            whole, part = input_at(node, 0), _range(node)
            if whole is None or part is None or (whole, part[0]) in asked:
                continue
            asked.add((whole, part[0]))
            users = _side_by_side(whole, part[0], node)
            if users and rw.allowed("slices-as-split", node):
                _split(whole, part[0], users, node, rw)
                count += 1
    return count


def _side_by_side(whole: Value, axis: int, node: Node) -> list[Node]:
    """The Slices that take a value apart along an axis, in order; none where they do not."""
    if whole.dtype != DataType.FLOAT or is_op(whole.producer(), "DequantizeLinear"):
        return []
    found: list[tuple[int, int, Node]] = []
    for user, place in whole.uses():
        part = _range(user) if place == 0 and user.graph is node.graph else None
        if part is not None and part[0] == axis:
            found.append((part[1], part[2], user))
    found.sort(key=lambda item: item[:2])
    size = (dims(whole) or ())[axis]
    seams = [0, *(end for _, end, _ in found)], [*(start for start, _, _ in found), size]
    whole_axis = len(found) > 1 and seams[0] == seams[1] and all(start < end for start, end, _ in found)
    return [user for _, _, user in found] if whole_axis else []


def _split(whole: Value, axis: int, users: list[Node], before: Node, rw: Rewriter) -> None:
    """One Split in place of the Slices, in front of the first of them."""
    sizes: list[int] = []
    for user in users:
        _, start, end = _range(user) or (0, 0, 0)
        sizes.append(end - start)
    name = before.name or "slices"
    inputs: list[Value] = [whole]
    how: dict[str, int | list[int]] = {"axis": axis}
    if rw.opset(before) < 13:
        how["split"] = sizes
    else:
        inputs.append(rw.constant(np.array(sizes, np.int64), f"{name}_sizes", before))
    with rw.standing_for(users):
        made = rw.node("Split", inputs, how, before=before, name=name, outputs=len(users))
    for user, out in zip(users, made.outputs, strict=True):
        rw.replace(user.outputs[0], out)
    rw.erase_all(users)


def _range(node: Node) -> tuple[int, int, int] | None:
    """Axis, first and end of what a Slice takes of one axis of known size, each from the front."""
    parts, first = taken(node), input_at(node, 0)
    sizes = None if first is None else dims(first)
    if parts is None or len(parts) != 1 or sizes is None or parts[0].step != 1:
        return None
    axis = parts[0].axis % len(sizes)
    size = sizes[axis]
    if not isinstance(size, int):
        return None
    start, end, _ = slice(parts[0].start, parts[0].end).indices(size)
    return axis, start, end


def _before(act: Node) -> Node | None:
    """The convolution whose channels an activation works on."""
    first = input_at(act, 0)
    found = None if first is None or not is_op(act, *ALONE) else first.producer()
    return found if is_op(found, "Conv") else None


def _alone(node: Node) -> bool:
    return len(node.outputs[0].uses()) == 1 and not node.outputs[0].is_graph_output()


def _name(conv: Node, place: int) -> str:
    value = input_at(conv, place)
    return f"{value.name if value is not None else 'filters'}_taken"


@dataclass(frozen=True)
class SliceFilters(Pass):
    """Compute channels that a Slice or Split takes of a layer by a layer of their own.

    The algebra and limits stand with the rules `SlicedConv` and `SplitLayer`; Slices side by side that take
    all of an axis of known size become a Split first. They are for onnxruntime on CPU. A Slice of steps
    copies each element by itself there, most slowly in int8; a MaxPool of three dimensions that strides over
    channels is exported as such a Slice (LPRNet). A Split copies what a layer could have made in its place
    (queries, keys and values, gated units), and float convolutions have to leave the blocked layout for both.

    Options:
        int8: what the layers are to become.
    """

    name: ClassVar[str] = "slice-filters"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    int8: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules wherever valid; True if anything changed."""
        rewriter = ctx.rewriter(model)
        if (count := slices_as_splits(model, rewriter)) > 0:
            ctx.counters["slices-as-split"] += count
        return apply_rules(model, ctx, [SlicedConv(), SplitLayer(self.int8)], rewriter)
