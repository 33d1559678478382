# SPDX-License-Identifier: Apache-2.0
"""Zeros in place of the smallest weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...analysis.shapes import infer_shapes
from ...graph_ir import Model, Rewriter, UsageError
from ..base import Context, Exactness, Pass
from ..quantize.facts import forget
from .masks import Mask, Pattern, check_sparsity, count, outside_pattern, read_pattern, smallest
from .sparse_layers import Layer, find_layers, put_weights

SHARE = 0.5
"""Of the weights that become zero when nothing is said."""


@dataclass(frozen=True)
class Sparsify(Pass):
    """Set the weights of least magnitude to zero, in Conv, ConvTranspose, Gemm and MatMul.

    Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks" (arXiv:1506.02626).
    The model runs no faster for it on most runtimes (onnxruntime's kernels multiply zeros like any number;
    TensorRT gains from 2:4 alone), but compresses better. Constants that anything else reads (a tied
    embedding, say), that a caller may override, or that are quantised are left dense, and the reason is
    noted; so are layers whose input channels the pattern does not divide.

    A pattern N:M leaves at most N weights of each M that follow one another along the input channels: axis 1
    of a Conv's weight ``[K, C, R, S]`` at each place of the kernel (the layout TensorRT's sparse kernels
    take), the summed axis of Gemm and MatMul.

    Options:
        sparsity: share of zeros, in (0, 1); 0.5 when neither it nor a pattern is given. Weights that are zero
            already count.
        pattern: N:M instead, as 2:4.
        scope: layer: each constant gets the share; global: one threshold for all, so that layers of small
            weights lose more.
        exclude: what stays dense: globs over labels and origins of nodes and names of weights, or operators
            as op:Gemm.
    """

    name: ClassVar[str] = "sparsify"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    drops_facts: ClassVar[bool] = True

    sparsity: float | None = None
    pattern: str | None = None
    scope: Literal["layer", "global"] = "layer"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pattern is not None:
            if self.sparsity is not None:
                raise UsageError("sparsify takes a sparsity or a pattern, not both: a pattern sets the share")
            if self.scope == "global":
                raise UsageError(f"pattern {self.pattern} holds in each run of weights: no global scope")
            read_pattern(self.pattern)
        elif self.sparsity is not None:
            check_sparsity(self.sparsity)

    def run(self, model: Model, ctx: Context) -> bool:
        """Rewrite the constants of every graph, body and function. Drops what was measured."""
        infer_shapes(model)
        layers, left = find_layers(model, self.exclude)
        for one in left:
            ctx.note(str(one))
        rewriter = ctx.rewriter(model)
        share = SHARE if self.sparsity is None else self.sparsity
        layers = [layer for layer in layers if self._fits(layer, ctx)]
        pattern = None if self.pattern is None else read_pattern(self.pattern)
        if self.scope == "global":
            masks = global_masks(layers, share)
        else:
            masks = (magnitude_mask(layer, share, pattern) for layer in layers)
        for layer, mask in zip(layers, masks, strict=True):
            if zero(layer, mask, rewriter):
                ctx.counters["sparsify"] += 1
        if rewriter.edits:
            forget(ctx)
        return rewriter.edits > 0

    def _fits(self, layer: Layer, ctx: Context) -> bool:
        reason = None if self.pattern is None else layer.why_not(read_pattern(self.pattern))
        reason = reason or why_not_finite(layer)
        if reason is not None:
            ctx.note(f"{layer.name!r} stays dense: {reason}")
        return reason is None


def why_not_finite(layer: Layer) -> str | None:
    """Why the weights cannot be ranked."""
    return None if np.isfinite(layer.array()).all() else "it holds NaN or infinity"


def magnitudes(layer: Layer) -> NDArray[Any]:
    """The weights without their signs, in the constant's shape; float64 for double weights, else float32."""
    array = layer.array()
    return np.abs(array.astype(np.float64 if array.dtype == np.float64 else np.float32))


def magnitude_mask(layer: Layer, share: float, pattern: Pattern | None = None) -> Mask:
    """True where a weight becomes zero, in the constant's shape.

    Args:
        layer: what to rank.
        share: of the weights, rounded to a count; read when there is no pattern.
        pattern: must divide the layer's input channels.
    """
    size = magnitudes(layer)
    if pattern is None:
        return smallest(size, count(share, size.size))
    positions = layer.positions()
    mask: Mask = np.zeros(size.size, np.bool_)
    mask[positions] = outside_pattern(size.reshape(-1)[positions], pattern)
    return mask.reshape(size.shape)


def global_masks(layers: Sequence[Layer], share: float) -> Iterator[Mask]:
    """The masks of one threshold over all layers, in their order."""
    if not layers:
        return
    pooled = np.concatenate([magnitudes(layer).reshape(-1) for layer in layers])
    mask = smallest(pooled, count(share, pooled.size))
    start = 0
    for layer in layers:
        yield mask[start : start + layer.size].reshape(layer.shape)
        start += layer.size


def zero(layer: Layer, mask: Mask, rewriter: Rewriter) -> bool:
    """Set the masked weights to zero; False when all of them were, or a bisection forbids it."""
    if not layer.array()[mask].any() or not rewriter.allowed("sparsify", layer.uses[0].node):
        return False
    made = np.array(layer.array())
    made[mask] = 0
    put_weights(layer, made, rewriter)
    return True
