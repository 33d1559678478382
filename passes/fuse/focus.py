# SPDX-License-Identifier: Apache-2.0
"""A picture taken apart into its even and odd pixels, and the convolution behind, as one convolution.

The first layer of YOLOv5 and YOLOX ("Focus"); later YOLOv5 writes the convolution itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import dims, input_at, int_attr, ints_attr, is_op, string_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, const, maybe, op, var

_SPATIAL = (2, 3)
_WHOLE = 2**31 - 1

Phase = tuple[int, int]


@dataclass(frozen=True)
class _Taken:
    """A value that is every `step`-th row and column of x, for each of the phases one after the other."""

    x: Value
    step: int
    phases: tuple[Phase, ...]


class ConvOfPhases(Rule):
    """Conv(parts of x) = Conv'(x) with stride s, where part (i, j) is x[:, :, i::s, j::s].

        sum over a, b of W[(i, j), c, a, b] part_ij[c, u + a - p, v + b - p]
      = sum over a, b of W'[c, s a + i, s b + j] x[c, s u + (s a + i) - s p, s v + (s b + j) - s p]

    as part_ij[c, t, r] = x[c, s t + i, s r + j]; each weight moves to its place and none is added. The parts
    are all s^2 of x's, as Slices into a Concat, in any order, or as SpaceToDepth. They are equally large, so
    x's sizes are multiples of s and the padding meets its border. Not valid: groups, strides or dilations of
    the convolution; padding not given in numbers; slices that begin or end elsewhere. Not done: parts that
    others read.
    """

    root: ClassVar = op("Conv", var("parts"), const("w"), maybe(const("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The convolution of x."""
        maker = m["parts"].producer()
        if maker is None or not is_op(maker, "Concat", "SpaceToDepth"):
            return Miss("reads no parts")
        if len(m["parts"].uses()) > 1 or m["parts"].is_graph_output():
            return Miss("others read the parts")
        node, w = m.root, m.array("w")
        pads = ints_attr(node, "pads") or [0, 0, 0, 0]
        if w.ndim != 4 or int_attr(node, "group", 1) != 1 or len(pads) != 4:
            return Miss("not a plain convolution of pictures")
        steps = [*(ints_attr(node, "strides") or [1]), *(ints_attr(node, "dilations") or [1])]
        if set(steps) != {1} or string_attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return Miss("not a plain convolution of pictures")
        taken = _together(maker) if is_op(maker, "Concat") else _taken_at_once(maker)
        if taken is None or w.shape[1] % len(taken.phases):
            return Miss("not all parts of one picture")
        s, (outputs, inputs, rows, columns) = taken.step, w.shape
        whole = np.zeros((outputs, inputs // len(taken.phases), s * rows, s * columns), w.dtype)
        for place, (i, j) in enumerate(taken.phases):
            count = whole.shape[1]
            whole[:, :, i::s, j::s] = w[:, place * count : (place + 1) * count]
        attributes = {
            "kernel_shape": list(whole.shape[2:]),
            "strides": [s, s],
            "pads": [s * p for p in pads],
        }
        weight = rw.constant(whole, m["w"].name or "weight", node)
        made = [taken.x, weight, *([m["b"]] if m.get("b") is not None else [])]
        return rw.node("Conv", made, attributes, before=node, name=node.name or "").outputs[0]


def _taken_at_once(node: Node) -> _Taken | None:
    step, x = int_attr(node, "blocksize", 0), node.inputs[0]
    if x is None or step < 2:
        return None
    return _Taken(x, step, tuple((i, j) for i in range(step) for j in range(step)))


def _together(node: Node) -> _Taken | None:
    """All parts of one picture, each once."""
    if int_attr(node, "axis", 0) not in (1, -3):
        return None
    parts = [_part(value) for value in node.inputs]
    first = parts[0] if parts else None
    if first is None or any(p is None or (p.x, p.step) != (first.x, first.step) for p in parts):
        return None
    phases = tuple(p.phases[0] for p in parts if p is not None)
    complete = len(set(phases)) == len(phases) == first.step**2
    return _Taken(first.x, first.step, phases) if complete else None


def _part(value: Value | None) -> _Taken | None:
    """One part of a picture, taken by one Slice for each axis or for both."""
    found: dict[int, tuple[int, int]] = {}
    while value is not None and len(found) < len(_SPATIAL):
        node = value.producer()
        if node is None or not is_op(node, "Slice") or input_at(node, 4) is None:
            return None
        value = node.inputs[0]
        given = [constant(input_at(node, i)) for i in range(1, 5)]
        if value is None or any(g is None for g in given):
            return None
        rows = [np.asarray(g).reshape(-1).tolist() for g in given]
        for start, end, axis, step in zip(*rows, strict=True):
            place = axis + 4 if axis < 0 else axis
            if place not in _SPATIAL or place in found or not 0 <= start < step:
                return None
            if end < _WHOLE and end < _size(value, place):
                return None
            found[place] = (start, step)
    if value is None or len(found) < 2 or found[2][1] != found[3][1] or found[2][1] < 2:
        return None
    extent = dims(value)
    if extent is not None and len(extent) != 4:
        return None
    return _Taken(value, found[2][1], ((found[2][0], found[3][0]),))


def _size(value: Value, axis: int) -> int:
    extent = dims(value)
    size = None if extent is None or len(extent) != 4 else extent[axis]
    return size if isinstance(size, int) else _WHOLE


class FoldFocus(Pass):
    """Fold the taking apart of a picture into rows and columns of a step into the convolution behind it.

    The algebra and limits stand with the rule `ConvOfPhases`. The products are the same, summed in another
    order. Slices of steps touch each cache line several times; on onnxruntime's CPU they take half of the
    convolution's time.
    """

    name: ClassVar[str] = "fold-focus"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule wherever valid; True if anything changed."""
        rewriter = ctx.rewriter(model)
        if not (rewriter.occurs("Slice") or rewriter.occurs("SpaceToDepth")):
            return False  # no parts of anything, and Convs are many
        return apply_rules(model, ctx, [ConvOfPhases()], rewriter)
