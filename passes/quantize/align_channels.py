# SPDX-License-Identifier: Apache-2.0
"""Channels of zeros beside those of convolutions, up to the width of fast kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd
from typing import ClassVar

import numpy as np

from ...analysis.coupling import Group, couple
from ...graph_ir import Model, Node, Rewriter, Shape, Value, constant
from ...graph_ir.ops import dims, int_attr, is_constant, is_op, rank
from ..base import Context, Exactness, Pass, bounded

# Finite for finite inputs, and one channel at a time; a constant beside is padded with zeros.
_PLAIN = frozenset(
    {
        "Add", "AveragePool", "Celu", "Clip", "Elu", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
        "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Mul", "PRelu", "Relu",
        "Selu", "Sigmoid", "Softplus", "Sub", "Swish", "Tanh",
    }
)  # fmt: skip
_FOURS, _ODD_WASTE = 4, 1 / 4
_STEM, _STEM_WASTE = 4, 2 / 3


@dataclass(frozen=True)
class AlignChannels(Pass):
    """Pad the channels of convolutions with zeros to a multiple of `to`.

    A layer that makes C channels gets filters of zeros behind them, the depthwise convolutions and whatever
    else works on each channel alone run over them too, and the layers that sum over them get weights of zero
    there:

        sum over c < C of W c x c  =  sum over c < C' of W' c x' c,   W' c = 0 for c >= C, x' c finite

    Where convolutions work on wider groups of channels, whole groups of zeros are added, as of one channel
    for a depthwise one.

    Not valid, so left alone: channels in another order or number anywhere (Concat, Split, Reshape); operators
    that mix channels or may give infinities for zeros; channels that are an output. Not done: channels
    without a depthwise convolution, unless `every` is set or a pool reads those of a first convolution, which
    stays float among int8 layers: the pool would leave the blocked layout, at full size.

    onnxruntime's fast depthwise int8 kernel on x86 takes multiples of 16; others take three times as long
    (8 on ARM). That with the convolutions beside it, all from 4 channels up to 40 take 0.3 to 0.7 of their
    time once padded. Its float kernels there work on blocks of 16 channels: others are padded in each
    convolution and cut behind it, in a layout that sums and pools have to leave and the next convolution
    enters again.

    It needs shapes (`infer-shapes`). Vectors that layers share by chance tie them together; `unshare-vectors`
    before it sets them apart.

    Attributes:
        to: what the number of channels becomes a multiple of.
        every: pad for convolutions of pictures of any kind. Numbers of channels that are no fours miss the
            fast float kernels altogether: up to a quarter more is done. Fours they pad themselves: up to
            twice as many, but with fewer than 16 only where no kernel larger than a pixel sums over them.
            Pictures of one pixel, as within squeeze-and-excite, cost nothing: any number is padded.
    """

    name: ClassVar[str] = "align-channels"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    to: int = bounded(16, 2)
    every: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Pad wherever valid; True if anything changed."""
        if not any(self._asked_for(n) for n in model.graph):
            return False
        rw = ctx.rewriter(model)
        ends: dict[Value, dict[int, int]] = {}
        nodes: dict[Node, int] = {}
        for group in couple(model).groups:
            width = _width(group)
            extra, wide = -group.atoms % (self.to // gcd(self.to, width)), _in_groups(group)
            asked = [node for node in wide if _has_one_filter_each(node)]
            first = next(iter(asked or (_convolutions(group) if self.every else _pooled_stem(group))), None)
            if not extra or first is None or not rw.allowed(self.name, first):
                continue
            reason = _refused(group, extra, self._most_waste(group) if asked or self.every else _STEM_WASTE)
            ctx.tally(self.name, reason)
            if reason is not None:
                continue
            nodes.update(dict.fromkeys(wide, extra))
            for axis in group.axes:
                ends.setdefault(axis.value, {})[axis.axis] = extra * width
        for node, extra in nodes.items():
            rw.set_attribute(node, "group", int_attr(node, "group", 1) + extra)
        for value, by_axis in ends.items():
            _widen(value, by_axis, rw)
        return bool(ends)

    def _asked_for(self, node: Node) -> bool:
        if is_op(node, "Conv") and (self.every or _is_stem(node)):
            filters = (dims(node.inputs[1]) or (None,))[0]
            return isinstance(filters, int) and filters % self.to > 0
        return _has_one_filter_each(node) and int_attr(node, "group", 1) % self.to > 0

    def _most_waste(self, group: Group) -> float:
        """How many channels more, as a share: in each case what costs less than the way round it."""
        if not self.every or _of_one_pixel(group):
            return self.to
        channels = group.atoms * _width(group)
        padded_anyway = channels % _FOURS == 0 and (channels > self.to or not _summed_over_patches(group))
        return 1 if padded_anyway else _ODD_WASTE


def _is_stem(node: Node) -> bool:
    """Whether it is a convolution of so few channels that it may stay float among int8 ones."""
    sizes = (dims(node.inputs[1]) or ()) if is_op(node, "Conv") else ()
    return (
        len(sizes) == 4 and isinstance(sizes[1], int) and sizes[1] <= _STEM and not _has_one_filter_each(node)
    )


def _pooled_stem(group: Group) -> list[Node]:
    """The first convolution, if it alone makes the channels and a pool reads them."""
    makers = [
        made for axis in group.axes if (made := axis.value.producer()) is not None and is_op(made, "Conv")
    ]
    pooled = any(is_op(node, "AveragePool", "MaxPool") for node in _readers(group))
    return makers if pooled and all(map(_is_stem, makers)) else []


def _has_one_filter_each(node: Node) -> bool:
    """Whether it is a convolution of several groups, each with one filter, over one channel or more."""
    count = int_attr(node, "group", 1)
    weights = node.inputs[1] if is_op(node, "Conv") and count > 1 else None
    return weights is not None and weights.shape is not None and weights.shape[0] == count


def _readers(group: Group) -> list[Node]:
    """The nodes that read the group's activations or weights, each once."""
    found = dict.fromkeys(node for axis in group.axes for node, _ in axis.value.uses())
    return list(found)


def _width(group: Group) -> int:
    """How many channels go together: one, or those of a group of convolutions."""
    return group.axes[0].atom_of.size // group.atoms


def _in_groups(group: Group) -> list[Node]:
    """Convolutions that work on each atom by itself: depthwise ones, or of as many groups."""
    return [node for node in _readers(group) if _by_atoms(node, group) and _reads(node, group)]


def _by_atoms(node: Node, group: Group) -> bool:
    return is_op(node, "Conv") and int_attr(node, "group", 1) == group.atoms > 1


def _convolutions(group: Group) -> list[Node]:
    """Those of pictures."""
    return [node for node in _readers(group) if is_op(node, "Conv") and rank(node.inputs[1]) == 4]


def _of_one_pixel(group: Group) -> bool:
    """Whether all that the channels are in is pictures of one pixel."""
    return all((dims(axis.value) or ())[2:] == (1, 1) for axis in group.axes if not is_constant(axis.value))


def _summed_over_patches(group: Group) -> bool:
    """Whether a convolution sums over the channels and over more than a pixel."""
    return any(
        max((d for d in (dims(node.inputs[1]) or ())[2:] if isinstance(d, int)), default=1) > 1
        for node in _convolutions(group)
        if _reads(node, group) and not _has_one_filter_each(node)
    )


def _reads(node: Node, group: Group) -> bool:
    return any(axis.value is node.inputs[0] for axis in group.axes)


def _refused(group: Group, extra: int, most_waste: float) -> str | None:
    if extra > group.atoms * most_waste:
        return "too few channels"
    lives = {axis.value for axis in group.axes}
    in_order = np.repeat(np.arange(group.atoms), _width(group))
    for axis in group.axes:
        if not np.array_equal(axis.atom_of, in_order):
            return "channels stand in another order or number somewhere"
        if axis.value.is_graph_output() or axis.value.is_graph_input():
            return "the channels are an input or output"
        if axis.value.shape is None:
            return "a shape is not known"
        if is_constant(axis.value) and constant(axis.value) is None:
            return "a weight cannot be read"
    for node in _makers(group):
        reason = _refused_node(node, group, lives)
        if reason is not None:
            return reason
    return None


def _makers(group: Group) -> Iterable[Node]:
    made = [axis.value.producer() for axis in group.axes]
    return dict.fromkeys([*_readers(group), *(node for node in made if node is not None)])


def _refused_node(node: Node, group: Group, lives: set[Value]) -> str | None:
    """Why a node cannot run over more channels."""
    if is_op(node, "Conv"):
        weights = node.inputs[1]
        if weights is None or not is_constant(weights):
            return "the weights of a convolution are not constant"
        if int_attr(node, "group", 1) == 1 or _by_atoms(node, group):
            return None
        return "a convolution in other groups"
    if not is_op(node, *_PLAIN) or len(node.outputs) > 1:
        return f"reads or makes them: {node.op_type}"
    for value in node.inputs:
        data = constant(value)
        if value not in lives and (data is None or data.size > 1):
            return f"another operand of {node.op_type}"
    return None


def _widen(value: Value, by_axis: dict[int, int], rw: Rewriter) -> None:
    """More positions at the end of these axes: zeros in a weight, another shape of an activation."""
    extent = len(value.shape or ())
    grown = {axis % extent: extra for axis, extra in by_axis.items()}
    data = constant(value)
    if data is None:
        assert value.shape is not None
        sizes = [d + grown.get(i, 0) if isinstance(d, int) else d for i, d in enumerate(value.shape)]
        value.shape = Shape(sizes)
        return
    rw.set_data(value, np.pad(data, [(0, grown.get(i, 0)) for i in range(extent)]))
