# SPDX-License-Identifier: Apache-2.0
"""Narrow groups of a convolution, several at a time as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...graph_ir import Model, Rewriter, constant
from ...graph_ir.ops import int_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..layout.blocks import BLOCK
from ..pattern import Match, Miss, Op, Rule, const, maybe, op, var

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Channels up to which one product of int8 is faster than several, measured on x86: of a group, and of all,
# since a convolution of one group copies no patches.
_MOST, _MOST_OF_ALL = 32, 112


@dataclass(frozen=True)
class NarrowGroups(Rule):
    """The convolutions of groups g and h, W_g x_g and W_h x_h, are one of both: [W_g 0; 0 W_h] [x_g; x_h].

    The zeros multiply other groups' channels, so those must be finite. Not done: depthwise convolutions;
    weights that are not constant; in float, groups that do not add up to whole blocks of 16 channels of
    pictures; in int8, groups of more than 16 channels and more than 112 in all.
    """

    int8: bool = False

    root: ClassVar[Op] = op("Conv", var("x"), const("w"), maybe(var("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Miss | None:
        """The same Conv, in place, of fewer and wider groups."""
        groups, filters = int_attr(m.root, "group", 1), constant(m["w"])
        if groups < 2 or filters is None or filters.ndim < 3 or filters.shape[0] % groups:
            return Miss("no groups")
        if filters.dtype != np.float32:
            return Miss("not float32")
        channels, made = filters.shape[1], filters.shape[0] // groups
        if channels == 1:
            return Miss("a depthwise convolution")
        together = _in_int8(groups, channels) if self.int8 else _in_blocks(groups, channels, made)
        if together == 1 or (not self.int8 and filters.ndim != 4):
            return Miss("no groups that are faster together")
        wide = rw.constant(_joined(filters, groups, together), f"{m['w'].name or 'filters'}_together", m.root)
        rw.set_input(m.root, 1, wide)
        rw.set_attribute(m.root, "group", groups // together)
        return None


def _in_int8(groups: int, channels: int) -> int:
    """All groups of few channels, or the most that together are no wider than `_MOST`."""
    if groups * channels <= _MOST_OF_ALL:
        return groups
    return max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * channels <= _MOST))


def _in_blocks(groups: int, channels: int, made: int) -> int:
    """The fewest groups, but not more than a block of channels, that together read and make whole blocks."""
    fits = (
        n
        for n in range(2, min(groups, BLOCK) + 1)
        if groups % n == 0 and n * channels == BLOCK and n * made % BLOCK == 0
    )
    return next(fits, 1)


def _joined(filters: NDArray[Any], groups: int, together: int) -> NDArray[Any]:
    """Weights [M, C, ...] as [M, together C, ...], each group's at its own channels and zeros elsewhere."""
    channels, *kernel = filters.shape[1:]
    made = filters.shape[0] // groups
    apart = filters.reshape(groups // together, together, made, channels, *kernel)
    joined = np.zeros((groups // together, together, made, together, channels, *kernel), filters.dtype)
    for place in range(together):
        joined[:, place, :, place] = apart[:, place]
    return joined.reshape(filters.shape[0], together * channels, *kernel)


@dataclass(frozen=True)
class MergeGroups(Pass):
    """Compute narrow groups of convolutions several at a time, with zeros between them.

    The algebra and limits stand with the rule `NarrowGroups`. The weights grow as the groups do.

    onnxruntime's blocked float convolutions on x86 take groups of whole blocks; others run one by one, as do
    all in int8, where groups of a few channels take up to eight times as long as those of 32. For the end
    of a pipeline and for that runtime.

    Attributes:
        int8: what the convolutions are to become.
    """

    name: ClassVar[str] = "merge-groups"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    int8: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite wherever valid; True if anything changed."""
        return apply_rules(model, ctx, [NarrowGroups(self.int8)])
