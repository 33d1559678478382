# SPDX-License-Identifier: Apache-2.0
"""Even out the ranges of weights between neighbouring layers (cross-layer equalization).

Nagel, van Baalen, Blankevoort, Welling 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction" (arXiv:1906.04721), section 4.1: s = sqrt(r1 / r2), with r1 the largest weight of an output
channel of the first layer and r2 that of the same input channel of the second, repeated over all pairs until
nothing moves. High bias absorption (section 4.1.3) holds only for values that were seen, so it is not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph_ir import Graph, Model, Rewriter
from ...graph_ir.ops import walk_graphs
from ..base import Context, Exactness, Pass, bounded
from ..fuse.weights import Wide
from .facts import forget
from .places import Move, Place, fold_together, largest_by_input, layers, peaks, places, replace_layer
from .values import drop_orphans, used_initializers

MOST = 4096.0  # factors beyond it belong to channels that are as good as dead
_SETTLED = 1e-3  # how far the largest factor of a round may be from 1


@dataclass(frozen=True)
class Equalize(Pass):
    """Even out the weight ranges of each channel between a layer and the layers that read it.

    With f positively homogeneous (Relu, LeakyRelu, PRelu, a Clip of bounds 0 and infinity, max and average
    pools, or nothing between) and S diagonal and positive:
        W2 f(W1 x + b1) + b2 = (W2 S) f(S^-1 W1 x + S^-1 b1) + b2
    S is chosen so that both layers have equal ranges in each channel (Nagel et al. 2019, arXiv:1906.04721).
    Layers are Conv (also depthwise and grouped), ConvTranspose, Gemm and MatMul with constant weights; a
    MatMul's bias is the Add behind it. Weights are computed in float64 and rounded once.

    Not valid, so left alone: a Clip with another bound, as in Relu6 (it would have to clamp each channel at
    another value); a value between that anything but linear layers reads, or that is an output; weights or
    biases that are not constant or not finite, or that would overflow or lose digits; ranks or channel axes
    that are not known. Holds for finite results. Dead channels keep their scale.

    The values between change, so what was measured before is dropped: calibrate behind it. In int8 with one
    weight scale per channel it helps the values, not the first layer's weights.

    Options:
        rounds: how often all pairs are gone through at most.
    """

    name: ClassVar[str] = "equalize"
    exact: ClassVar[Exactness] = Exactness.ROUNDING
    drops_facts: ClassVar[bool] = True

    rounds: int = bounded(40, 1)

    def run(self, model: Model, ctx: Context) -> bool:
        """Equalize in every graph and body."""
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        for graph in walk_graphs(model):
            self._graph(graph, rewriter, ctx)
        drop_orphans(rewriter, used)
        if rewriter.edits:
            forget(ctx)
        return rewriter.edits > 0

    def _graph(self, graph: Graph, rw: Rewriter, ctx: Context) -> None:
        first = next(iter(graph), None)
        if first is None:
            return
        found = [
            place
            for place in places(layers(graph, rw.opset(first)))
            if rw.allowed(self.name, place.source.linear.node)
        ]

        def moves(left: Sequence[Place]) -> list[Move | None]:
            # Already even: another run must find nothing to do.
            factors = zip(left, _factors(left, self.rounds), strict=True)
            return [(place.source, place.sinks, s) if _matters(s) else None for place, s in factors]

        done, folded = fold_together(found, moves, lambda why: ctx.misses.update([(self.name, why)]))
        for layer, ready in folded:
            replace_layer(layer, ready, rw)
        ctx.counters[self.name] += len(done)


def _matters(s: Wide) -> bool:
    return bool((np.abs(np.log(s)) > 2 * _SETTLED).any())


def _factors(found: Sequence[Place], rounds: int) -> list[Wide]:
    """The factor of each place's channels, after rounds over all of them."""
    tables = {layer.linear.node: peaks(layer.linear) for p in found for layer in (p.source, *p.sinks)}
    total = [np.ones(p.source.linear.outputs) for p in found]
    for _ in range(rounds):
        moved = 0.0
        for index, place in enumerate(found):
            known = total[index]
            rows = tables[place.source.linear.node]
            before = rows.max(axis=1)
            behind = np.max(
                [largest_by_input(tables[k.linear.node], k.linear.group) for k in place.sinks], axis=0
            )
            live = (before > 0) & (behind > 0)
            wanted = np.sqrt(np.divide(before, behind, out=np.ones_like(before), where=live))
            s = np.clip(wanted, 1 / (MOST * known), MOST / known)
            total[index] = known * s
            rows /= s[:, None]
            for sink in place.sinks:
                table, group = tables[sink.linear.node], sink.linear.group
                blocks = table.reshape(group, -1, table.shape[1])
                blocks *= s.reshape(group, 1, -1)
            moved = max(moved, float(np.abs(np.log(s)).max(initial=0.0)))
        if moved < _SETTLED:
            break
    return total
