# SPDX-License-Identifier: Apache-2.0
"""Slice of the rows and columns that a convolution makes, by its padding."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import dims, input_at, ints_attr, is_op, only_user, rank, string_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, maybe, op, var
from .slices import Taken, taken

_CONVOLUTIONS = ("Conv", "ConvTranspose")


class CroppedConv(Rule):
    """A convolution whose first a and last b results along an axis are cut off needs less padding there.

        Conv of stride s          pads (p - s a, q - s b)
        ConvTranspose             pads (p + a, q + b), which cut off its ends

    Results before and behind those kept see other windows and are not computed. Not valid: other axes than
    of pixels; steps; bounds that are not constant; more cut off a Conv than its padding made; automatic
    padding, an `output_shape`; others that read the whole. Where the size is not known: ends counted from the
    front, starts from the back, and a result that might be empty, which the runtime's kernels refuse: so
    causal convolutions of any length stay.
    """

    root: ClassVar[Op] = op(
        "Slice", var("whole"), var("starts"), var("ends"), maybe(var("axes")), maybe(var("steps"))
    )

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The convolution with its new pads."""
        whole, parts = m["whole"], taken(m.root)
        node = whole.producer()
        if node is None or not is_op(node, *_CONVOLUTIONS) or only_user(whole) is not m.root:
            return Miss("no convolution that it alone reads")
        extent = rank(input_at(node, 1))
        if parts is None or extent is None or extent < 3:
            return Miss("bounds are not constant, or the rank is not known")
        if string_attr(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
            return Miss("automatic padding")
        spatial = extent - 2
        pads = ints_attr(node, "pads") or [0] * (2 * spatial)
        if len(pads) != 2 * spatial or len({part.axis % extent for part in parts}) < len(parts):
            return Miss("pads or axes do not fit")
        sizes = dims(whole) or (None,) * extent
        for part in parts:
            axis = part.axis % extent - 2
            if axis < 0 or part.step != 1:
                return Miss("not of pixels side by side")
            size = sizes[axis + 2]
            cut = _cut_off(part, size if isinstance(size, int) else None)
            if cut is None:
                return Miss("what it cuts off is not known")
            sign = -(ints_attr(node, "strides") or [1] * spatial)[axis] if node.op_type == "Conv" else 1
            pads[axis] += sign * cut[0]
            pads[axis + spatial] += sign * cut[1]
            if min(pads[axis], pads[axis + spatial]) < 0:
                return Miss("it cuts off more than padding")
            if not isinstance(size, int) and not _never_empty(node, axis, pads[axis] + pads[axis + spatial]):
                return Miss("nothing might be left")
        rest = [a for a in node.attributes.values() if a.name != "pads"]
        with rw.standing_for([node, m.root]):
            made = rw.node(node.op_type, list(node.inputs), rest, before=m.root, name=node.name or "")
            rw.set_attribute(made, "pads", pads)
        return made.outputs[0]


def _cut_off(part: Taken, size: int | None) -> tuple[int, int] | None:
    """How many results are cut off in front and behind; None where that is not known, or nothing is left."""
    if size is None:
        if part.start < 0 or not (part.end < 0 or part.whole(None)):
            return None
        return part.start, 0 if part.end >= 0 else -part.end
    start, end = (bound + size if bound < 0 else bound for bound in (part.start, part.end))
    start, end = max(0, start), min(size, end)
    return (start, size - end) if start < end else None


def _never_empty(node: Node, axis: int, padding: int) -> bool:
    """Whether something is left of any input, with so much padding on both sides together.

    Of an input of no pixels, too, unless the node as it is makes nothing of that either.
    """
    weights = dims(node.inputs[1]) if node.inputs[1] is not None else None
    taps = weights[axis + 2] if weights is not None else None
    if not isinstance(taps, int):
        return False
    spatial = len(weights or ()) - 2
    own = ints_attr(node, "pads") or [0] * (2 * spatial)
    ones, zeros = [1] * spatial, [0] * spatial
    reach = (ints_attr(node, "dilations") or ones)[axis] * (taps - 1) + 1
    before = own[axis] + own[axis + spatial]
    if node.op_type == "Conv":
        return padding >= reach or (padding + 1 >= reach > before)
    stride = (ints_attr(node, "strides") or ones)[axis]
    more = (ints_attr(node, "output_padding") or zeros)[axis]
    return reach + more - padding > (stride if reach + more - before > stride else 0)


class FoldCrop(Pass):
    """Fold Slices of what Conv and ConvTranspose make into their padding.

    The algebra and limits stand with the rule `CroppedConv`. It needs shapes (`infer-shapes`).

    Causal convolutions are written so, padded on both sides and cut off behind, and decoders of sound, whose
    ConvTranspose overlaps at the ends.
    """

    name: ClassVar[str] = "fold-crop"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Fold wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [CroppedConv()])
