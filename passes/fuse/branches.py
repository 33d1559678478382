# SPDX-License-Identifier: Apache-2.0
"""Convolutions of one tensor whose results are added up, as one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Node, Rewriter, Value
from ...graph_ir.ops import array_of, constant_tensor, int_attr, ints_attr, string_attr
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Rule, commute, const, maybe, op, var
from .batch_norm import scale_and_shift
from .weights import FLOATS, Array, Wide, fold_weights, rounded, wide

_SUMS = ("Add", "Sub")
_CONV = op("Conv", var("x"), const("w"), maybe(const("b")))


@dataclass(frozen=True)
class _Branch:
    """A convolution of x, in float64.

    Attributes:
        w: weights [outputs, inputs of a group, *kernel].
        b: [outputs].
        steps: for each axis of the kernel, how far its places are apart; 0 where there is one.
        before: how far its first place stands before the pixel, for each axis: the padding there.
        behind: the padding behind.
    """

    w: Wide
    b: Wide
    steps: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]

    def plus(self, other: _Branch, sign: int) -> _Branch | Miss:
        """The sum or difference, its kernel wide enough for both."""
        steps = tuple(max(pair) for pair in zip(self.steps, other.steps, strict=True))
        before = tuple(max(pair) for pair in zip(self.before, other.before, strict=True))
        behind = tuple(max(pair) for pair in zip(self.behind, other.behind, strict=True))
        first, second = (branch.widened(steps, before, behind) for branch in (self, other))
        if first is None or second is None or first.shape != second.shape:
            return Miss("the kernels do not lie on one grid")
        kernels = [prod(w.shape[2:]) for w in (first, self.w, other.w)]
        if kernels[0] > kernels[1] + kernels[2]:
            return Miss("one kernel for both would be larger than the two")
        return _Branch(first + sign * second, self.b + sign * other.b, steps, before, behind)

    def widened(
        self, steps: tuple[int, ...], before: tuple[int, ...], behind: tuple[int, ...]
    ) -> Wide | None:
        """The weights with zeros around, so that they need this padding; None where no zeros do that."""
        around = [(0, 0), (0, 0)]
        ends = zip(self.before, self.behind, before, behind, strict=True)
        for own, step, (b, e, wanted_b, wanted_e) in zip(self.steps, steps, ends, strict=True):
            more, last = wanted_b - b, wanted_e - e
            if own not in (0, step) or ((more or last) and (not step or more % step or last % step)):
                return None
            around.append((more // step, last // step) if step else (0, 0))
        return np.pad(self.w, around)


def _branch(node: Node, weight: Value, bias: Value | None) -> tuple[_Branch, DataType] | Miss:
    """A convolution's branch, and the type of its weights."""
    tensor = constant_tensor(weight)
    if tensor is None or tensor.dtype not in FLOATS:
        return Miss("weight is not a float constant")
    w = wide(array_of(tensor))
    groups = int_attr(node, "group", 1)
    if w.ndim < 3 or w.size == 0 or groups < 1 or w.shape[0] % groups:
        return Miss("weight is not shaped as a convolution's")
    spatial = w.ndim - 2
    auto = string_attr(node, "auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID"):
        return Miss("the padding is not written down")
    pads = [0] * 2 * spatial if auto == "VALID" else ints_attr(node, "pads") or [0] * 2 * spatial
    dilations = ints_attr(node, "dilations") or [1] * spatial
    if len(pads) != 2 * spatial or len(dilations) != spatial:
        return Miss("attributes do not fit the kernel")
    added = None if bias is None else constant_tensor(bias)
    b = np.zeros(w.shape[0]) if added is None else wide(array_of(added)).reshape(-1)
    if b.shape != w.shape[:1]:
        return Miss("bias is not one value a channel")
    steps = tuple(d if k > 1 else 0 for d, k in zip(dilations, w.shape[2:], strict=True))
    return _Branch(w, b, steps, tuple(pads[:spatial]), tuple(pads[spatial:])), tensor.dtype


def _each_channel(like: _Branch, s: Wide, t: Wide) -> _Branch:
    """Give s x + t as a convolution of one pixel, in the groups of another of as many channels in and out."""
    outputs, inputs, spatial = *like.w.shape[:2], like.w.ndim - 2
    w = np.zeros((outputs, inputs, *[1] * spatial))
    w[(np.arange(outputs), np.arange(outputs) % inputs, *[0] * spatial)] = s
    nothing = (0,) * spatial
    return _Branch(w, t, nothing, nothing, nothing)


class _Sum(Rule):
    """What the rules share: the other branch, and one convolution in place of the sum."""

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        """The convolution of both branches."""
        conv = m.node(_CONV)
        found = _branch(conv, m["w"], m.get("b"))
        if isinstance(found, Miss):
            return found
        branch, dtype = found
        other = self.other(m, branch, rw)
        if isinstance(other, Miss):
            return other
        if other.w.shape[:2] != branch.w.shape[:2]:
            return Miss("the branches have other channels")
        if m.root.op_type == "Sub" and m.root.inputs[0] is not conv.outputs[0]:
            both = other.plus(branch, -1)
        else:
            both = branch.plus(other, 1 if m.root.op_type == "Add" else -1)
        return both if isinstance(both, Miss) else _emit(conv, m, both, dtype, rw)

    def other(self, m: Match, branch: _Branch, rw: Rewriter) -> _Branch | Miss:
        """The branch beside the convolution."""
        raise NotImplementedError


def _emit(conv: Node, m: Match, both: _Branch, dtype: DataType, rw: Rewriter) -> Value | Miss:
    """The convolution, before the root."""
    like: Array = m.array("w")
    weight = rounded(both.w, like, dtype, both.b)
    bias = rounded(both.b.reshape(1, -1), like, dtype, np.zeros(1))
    if weight is None or bias is None:
        return Miss("folded weights overflow, underflow or are not finite")
    inputs = [m["x"], rw.constant(weight, m["w"].name or "weight", m.root)]
    if both.b.any() or m.get("b") is not None:
        inputs.append(rw.constant(bias.reshape(-1), f"{m['w'].name or 'weight'}_bias", m.root))
    kept = [a for a in conv.attributes.values() if a.name in ("group", "strides")]
    made = rw.node("Conv", inputs, kept, before=m.root, name=conv.name or "").outputs[0]
    node = made.producer()
    assert node is not None
    rw.set_attribute(node, "kernel_shape", list(weight.shape[2:]))
    rw.set_attribute(node, "pads", [*both.before, *both.behind])
    rw.set_attribute(node, "dilations", [step or 1 for step in both.steps])
    return made


class TwoConvs(_Sum):
    """Conv(x, V, b) + Conv(x, W, c) = Conv(x, V + W, b + c), each kernel at its place in the larger one.

    A kernel with zeros around it, and as much more padding, gives the same; so kernels are added whose places
    relative to the pixel lie on one grid. Not valid: other strides or groups; results of other sizes, which
    the sum would broadcast. Not done: kernels that would together be larger than the two.
    """

    second: ClassVar = op("Conv", var("x"), const("v"), maybe(const("c")))
    root: ClassVar = commute(_SUMS, _CONV, second)

    def other(self, m: Match, branch: _Branch, rw: Rewriter) -> _Branch | Miss:
        """The second convolution."""
        first, second = m.node(_CONV), m.node(self.second)
        ones = [1] * (branch.w.ndim - 2)
        if int_attr(first, "group", 1) != int_attr(second, "group", 1) or (
            (ints_attr(first, "strides") or ones) != (ints_attr(second, "strides") or ones)
        ):
            return Miss("the branches have other strides or groups")
        found = _branch(second, m["v"], m.get("c"))
        return found if isinstance(found, Miss) else found[0]


class ConvAndNorm(_Sum):
    """Conv(x, W, b) + BatchNormalization(x) = Conv(x, W + S, b + t), S each channel's factor at the pixel.

    Not valid: strides; a result of another size than x, or other channels; what `fold-batch-norm` leaves
    alone for the parameters.
    """

    norm: ClassVar = op(
        "BatchNormalization", var("x"), const("scale"), const("shift"), const("mean"), const("var")
    )
    root: ClassVar = commute(_SUMS, _CONV, norm)

    def other(self, m: Match, branch: _Branch, rw: Rewriter) -> _Branch | Miss:
        """The normalization as a convolution of one pixel."""
        node = m.node(self.norm)
        parameters = scale_and_shift(node, rw.opset(node))
        if isinstance(parameters, Miss):
            return parameters
        conv = m.node(_CONV)
        channels = branch.w.shape[1] * int_attr(conv, "group", 1)
        if any(s != 1 for s in ints_attr(conv, "strides") or []):
            return Miss("the branches have other strides or groups")
        if not channels == branch.w.shape[0] == parameters[0].size:
            return Miss("the branches have other channels")
        return _each_channel(branch, *parameters)


class FoldBranches(Pass):
    """Fold convolutions of one tensor that are added up into one.

    The algebra and limits stand with the rules `TwoConvs` and `ConvAndNorm`. These are the blocks of RepVGG,
    MobileOne and other networks that are trained with several branches and meant to be served with one:
    exported as trained they have two or three times the layers, and the sums.

    Weights are added in float64 and rounded once. Left alone: weights, bias or parameters that are no
    constants; padding by `auto_pad` SAME; a branch that others read. Holds for finite results: 0 times
    infinity is not judged.
    """

    name: ClassVar[str] = "fold-branches"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Fold wherever valid; True if anything changed."""
        return fold_weights(model, ctx, [TwoConvs(), ConvAndNorm()])
