# SPDX-License-Identifier: Apache-2.0
"""Pad into the padding of the Conv or pool behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ...graph_ir import Model, Node, Rewriter, Value, constant
from ...graph_ir.ops import float_attr, input_at, int_attr, ints_attr, is_op, rank, string_attr
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Rule, maybe, op, var
from .weights import extra_outputs, fold_weights

_NOT_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp", "Sqrt")
_KEEPS_BOUND = ("MaxPool", "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
_LOOK_BACK = 8


@dataclass(frozen=True)
class Padding:
    """What a Pad adds: `begins` and `ends` for each spatial axis, all of the one `value`."""

    begins: tuple[int, ...]
    ends: tuple[int, ...]
    value: float


def padding_of(pad: Node, ndim: int | None, opset: int) -> Padding | Miss:
    """The Pad as padding of the spatial axes of a tensor of shape [N, C, ...].

    Args:
        pad: the node: pads, value and mode are attributes before opset 11 and inputs from then on, with axes
            from opset 18 on.
        ndim: the rank of its input when known.
        opset: in force there.
    """
    if string_attr(pad, "mode", "constant") != "constant":
        return Miss("pads with something else than a constant")
    if opset < 2:
        return Miss("opset below 2")
    said = _said(pad, opset)
    if isinstance(said, Miss):
        return said
    pads, value, axes = said
    if axes is None:
        ndim = len(pads) // 2
        axes = list(range(ndim))
    if ndim is None:
        return Miss("rank is unknown")
    if ndim < 3 or len(pads) != 2 * len(axes) or any(not -ndim <= a < ndim for a in axes):
        return Miss("pads do not fit a tensor with spatial axes")
    begins, ends = [0] * ndim, [0] * ndim
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[len(axes) + i]
    if any((*begins[:2], *ends[:2])):
        return Miss("pads batch or channels")
    if min(*begins, *ends) < 0:
        return Miss("negative pads crop")
    return Padding(tuple(begins[2:]), tuple(ends[2:]), value)


def _said(pad: Node, opset: int) -> tuple[list[int], float, list[int] | None] | Miss:
    """The pads, the value and the axes, None for all of them, as the opset has them."""
    if opset < 11:
        pads, value, axes = ints_attr(pad, "pads"), float_attr(pad, "value", 0.0), None
    else:
        _, given, fill, among = (input_at(pad, place) for place in range(4))
        pads, filled, axes = _whole(given), constant(fill), _whole(among)
        if fill is not None and (filled is None or filled.size != 1):
            return Miss("the value padded with is not constant")
        if among is not None and axes is None:
            return Miss("axes are not constant")
        value = 0.0 if filled is None else float(filled.reshape(()))
    return Miss("pads are not constant") if pads is None else (pads, value, axes)


def _whole(value: Value | None) -> list[int] | None:
    array = constant(value)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def _own_pads(node: Node, spatial: int) -> list[int] | Miss:
    """The explicit pads of a Conv or pool: begins, then ends."""
    if string_attr(node, "auto_pad", "NOTSET") == "VALID":
        return [0] * (2 * spatial)
    if string_attr(node, "auto_pad", "NOTSET") != "NOTSET":
        return Miss("automatic padding")
    pads = ints_attr(node, "pads") or [0] * (2 * spatial)
    return pads if len(pads) == 2 * spatial else Miss("pads do not fit a tensor with spatial axes")


class _PadRule(Rule):
    """What the three share: the sum of both paddings, put on a copy of the node."""

    pad: ClassVar = op("Pad", var("x"), maybe(var("pads")), maybe(var("value")), maybe(var("axes")))

    def merged(self, m: Match, rw: Rewriter) -> tuple[Padding, list[int], list[int]] | Miss:
        """The Pad, the node's own pads, and their sum."""
        pad, node = m.node(self.pad), m.root
        x_rank = rank(m["x"])
        if x_rank is None:
            kernel = ints_attr(node, "kernel_shape")
            x_rank = rank(input_at(node, 1)) if kernel is None else len(kernel) + 2
        padding = padding_of(pad, x_rank, rw.opset(pad))
        if isinstance(padding, Miss):
            return padding
        own = _own_pads(node, len(padding.begins))
        if isinstance(own, Miss):
            return own
        total = [a + b for a, b in zip(own, (*padding.begins, *padding.ends), strict=True)]
        return padding, own, total

    @staticmethod
    def emit(m: Match, rw: Rewriter, pads: list[int], **attributes: Any) -> Value:
        """The node with these pads, reading what was padded."""
        old, changed = m.root, ("auto_pad", "pads", *attributes)
        made = rw.node(
            old.op_type,
            [m["x"], *old.inputs[1:]],
            [a for a in old.attributes.values() if a.name not in changed],
            before=old,
        )
        for name, value in {"pads": pads, **attributes}.items():
            rw.set_attribute(made, name, value)
        return made.outputs[0]


class PadConv(_PadRule):
    """Pad with zeros, then Conv: Conv's own padding is zeros too."""

    root: ClassVar = op("Conv", _PadRule.pad, var("w"), maybe(var("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The Conv with both paddings."""
        found = self.merged(m, rw)
        if isinstance(found, Miss):
            return found
        padding, _, total = found
        return self.emit(m, rw, total) if padding.value == 0 else Miss("pads with another value than 0")


def _small_window(node: Node, pads: list[int]) -> Miss | None:
    """Misses where a window might lie in the padding alone, or the result's shape depends on rounding."""
    kernel = ints_attr(node, "kernel_shape") or []
    if len(kernel) * 2 != len(pads):
        return Miss("pads do not fit a tensor with spatial axes")
    if int_attr(node, "ceil_mode", 0):
        return Miss("ceil_mode: a window may start in the padding")
    if any(d != 1 for d in ints_attr(node, "dilations") or []):
        return Miss("dilations: a window may see padding alone")
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        return Miss("padding as wide as the window")
    return None


class PadAveragePool(_PadRule):
    """Pad with zeros, then AveragePool: a pool that counts its padding divides by the same window size."""

    root: ClassVar = op("AveragePool", _PadRule.pad)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The pool with both paddings, counted."""
        if rw.opset(m.root) < 7:
            return Miss("opset below 7")
        found = self.merged(m, rw)
        if isinstance(found, Miss):
            return found
        padding, own, total = found
        if padding.value != 0:
            return Miss("pads with another value than 0")
        if any(own) and not int_attr(m.root, "count_include_pad", 0):
            return Miss("its own padding is not counted")
        return _small_window(m.root, total) or self.emit(m, rw, total, count_include_pad=1)


class PadMaxPool(_PadRule):
    """Pad with a value no window can prefer, then MaxPool: its own padding never wins either."""

    root: ClassVar = op("MaxPool", _PadRule.pad)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The pool with both paddings."""
        if extra_outputs(m.root):
            return Miss("indices count the padding")
        found = self.merged(m, rw)
        if isinstance(found, Miss):
            return found
        padding, _, total = found
        if not padding.value <= lower_bound(m["x"]):
            return Miss("the value padded with may win")
        return _small_window(m.root, total) or self.emit(m, rw, total)


def lower_bound(value: Value) -> float:
    """A number no element is less than (NaN aside), from the few operators before it; -inf when unknown."""
    for _ in range(_LOOK_BACK):
        node = value.producer()
        if node is None or value.index() != 0 or node.inputs[:1] in ((), (None,)):
            break
        if is_op(node, *_NOT_NEGATIVE):
            return 0.0
        if is_op(node, "Clip"):
            return _clip_bound(node)
        first = node.inputs[0]
        if first is None or not is_op(node, *_KEEPS_BOUND):
            break
        value = first
    return -math.inf


def _clip_bound(node: Node) -> float:
    # Where min exceeds max, max is the result.
    if "min" in node.attributes:
        return min(float_attr(node, "min", -math.inf), float_attr(node, "max", math.inf))
    low = constant(input_at(node, 1))
    high = input_at(node, 2)
    top = constant(high)
    if low is None or low.size != 1 or (high is not None and (top is None or top.size != 1)):
        return -math.inf
    bound = float(low.reshape(-1)[0])
    return bound if top is None else min(bound, float(top.reshape(-1)[0]))


class FoldPad(Pass):
    """Fold Pad into the padding of the Conv, AveragePool or MaxPool behind it.

    pads' = pads of the Pad + pads of the operator, because the operator's own padding reads the same value:
        Conv         zeros
        AveragePool  zeros that are counted (count_include_pad becomes 1)
        MaxPool      nothing that can win: the Pad's value must be -inf, or no larger than any input can be

    Not valid, so left alone: reflect, edge and wrap modes; pads, value or axes that are not constant;
    negative pads; padded batch or channel axes; other values; automatic padding; ConvTranspose (its pads
    crop); a pool with ceil_mode or dilations, or whose padding would be as wide as its window; an AveragePool
    with padding of its own that it does not count; MaxPool's indices; a padded tensor that others read or
    that is an output. MaxPool of NaN is not judged.
    """

    name: ClassVar[str] = "fold-pad"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Fold wherever valid; True if anything changed."""
        return fold_weights(model, ctx, [PadConv(), PadAveragePool(), PadMaxPool()])
