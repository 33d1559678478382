# SPDX-License-Identifier: Apache-2.0
"""A Transpose to channels-last behind an enlarging Resize goes in front of it."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import INFERRED, Model, Node, Rewriter, Shape, Value, constant
from ...graph_ir.ops import input_at, ints_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..fuse.reshape_dims import Dims, known_dims
from ..linear_resize import not_plainly_linear
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .perms import perm_of

_LAST = (0, 2, 3, 1)
_SCALES, _SIZES = 2, 3


class ChannelsLastResize(Rule):
    """Transpose_p(Resize(x)) = Resize'(Transpose_p(x)), p = (0, 2, 3, 1), scales and sizes in the order of p.

    Valid as each axis is interpolated for itself. Done for linear interpolation of float that leaves batch
    and channels as they are and makes more elements of fewer. Not done: sizes not known; cropping;
    antialiasing; keeping the aspect ratio; a result that others read; below opset 11.
    """

    resize: ClassVar[Op] = op(
        "Resize", var("x"), maybe(var("roi")), maybe(var("scales")), maybe(var("sizes"))
    )
    root: ClassVar[Op] = op("Transpose", resize)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Resize of the transposed x."""
        node, x = m.node(self.resize), m["x"]
        if perm_of(m.root) != _LAST:
            return Miss("not a transpose to channels-last")
        reason = _declined(node, x, rw.opset(node))
        if reason is not None:
            return reason
        inputs: list[Value | None] = [None, None, None, None]
        attributes = [a for a in node.attributes.values() if a.name != "axes"]
        axes = ints_attr(node, "axes")
        for place in (_SCALES, _SIZES):
            given = input_at(node, place)
            if given is not None:
                inputs[place] = given if axes is not None else _reordered(given, node, rw)
        moved = rw.node("Transpose", [x], {"perm": _LAST}, before=m.root, name=m.root.name or "").outputs[0]
        before = known_dims(x)
        if before is not None:
            moved.type, moved.shape = x.type, Shape([before[i] for i in _LAST])
            moved.meta[INFERRED] = True
        inputs[0] = moved
        while inputs[-1] is None:
            inputs.pop()
        made = rw.node("Resize", inputs, attributes, before=m.root, name=node.name or "")
        if axes is not None:
            rw.set_attribute(made, "axes", [_LAST.index(a % 4) for a in axes])
        return made.outputs[0]


def _declined(node: Node, x: Value, opset: int) -> Miss | None:
    if (reason := not_plainly_linear(node, x, opset)) is not None:
        return reason
    before, after = known_dims(x), known_dims(node.outputs[0])
    if before is None or after is None or len(before) != 4:
        return Miss("sizes are not known")
    if not _leaves_channels(node, before, after):
        return Miss("batch or channels are not known to stay")
    spatial = [[d for d in dims[2:] if isinstance(d, int)] for dims in (before, after)]
    if len(spatial[0]) < 2 or len(spatial[1]) < 2 or prod(spatial[1]) <= prod(spatial[0]):
        return Miss("it does not enlarge")
    return None


def _leaves_channels(node: Node, before: Dims, after: Dims) -> bool:
    """Whether the factors of batch and channels are 1, not only near enough to keep their sizes."""
    axes = ints_attr(node, "axes")
    if axes is not None:
        return all(a % 4 > 1 for a in axes)
    if None in before[:2] or before[:2] != after[:2]:
        return False
    data = constant(input_at(node, _SCALES))
    if input_at(node, _SCALES) is None or (data is not None and not data.size):
        return True
    return data is not None and data.size == 4 and bool((data[:2] == 1).all())


def _reordered(given: Value, node: Node, rw: Rewriter) -> Value | None:
    data = constant(given)
    if data is not None:
        if not data.size:
            return None
        return rw.constant(np.ascontiguousarray(data[list(_LAST)]), given.name or "resize", node)
    order = rw.constant(np.array(_LAST, np.int64), f"{given.name}_order", node)
    return rw.node("Gather", [given, order], before=node, name=f"{given.name}_last").outputs[0]


class ResizeChannelsLast(Pass):
    """Move a Transpose to channels-last from behind an enlarging linear Resize to in front of it.

    The algebra and limits stand with the rule `ChannelsLastResize`. It needs shapes (`infer-shapes`).

    Fewer elements are transposed, and onnxruntime interpolates channels-last several times as fast as
    channels-first on CPU. It is for the end of a pipeline and for that runtime: `sink-transpose` brings
    networks to channels-first, and others may not know this form.
    """

    name: ClassVar[str] = "resize-channels-last"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [ChannelsLastResize()])
