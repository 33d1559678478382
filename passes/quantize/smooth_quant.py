# SPDX-License-Identifier: Apache-2.0
"""Move the large channels of activations into the weights behind them.

Xiao, Lin, Seznec, Wu, Demouth, Han 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for
Large Language Models" (arXiv:2211.10438), equation 4: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) for each
input channel j, with the largest magnitudes that were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ...graph_ir import Model, Node, Rewriter, UsageError, Value, constant, is_constant
from ...graph_ir.ops import input_at, int_attr, is_op, only_user, opset_of, rank
from ..base import Context, Exactness, Pass, bounded
from ..fuse.weights import FLOATS, Wide
from ..pattern import Miss
from .facts import MAXIMA, forget
from .places import Layer, fold_together, largest_by_input, layers, peaks, places, replace_layer
from .values import drop_orphans, used_initializers

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 4096.0

Maxima = Mapping[str, "NDArray[Any]"]
"""By value name, the largest magnitude of each channel."""


@dataclass(frozen=True)
class _Spot:
    """A value whose channels can be scaled by the layer, or the constant inputs of the nodes, before it."""

    value: Value
    axis: int
    sinks: tuple[Layer, ...]
    layer: Layer | None = None
    affine: tuple[tuple[Node, int], ...] = ()


@dataclass(frozen=True)
class SmoothQuant(Pass):
    """Move large activation channels of a LayerNormalization into the weights of the layers that read it.

    With n the normalised value and S diagonal and positive:
        W (g n + b) = (W S) ((g / s) n + b / s)
    s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), with the measured largest magnitude of channel j and the
    largest weight that reads it (Xiao et al. 2022, arXiv:2211.10438). A value that others read, too (the
    residual of a post-norm transformer), is multiplied by s for them. Instead of a LayerNormalization, a Mul
    and Add by constants of one value per channel do. Weights are computed in float64 and rounded once.

    Not valid, so left alone: a value that is an output, that bodies read, or without measured maxima; scale
    or shift that are no constants of one value per channel along the last axis; weights that are not constant
    or not finite, or that would overflow or lose digits. Holds for finite results.

    Reads `ctx.facts["channel-maxima"]` (value name -> largest magnitude per channel). What was measured holds
    no longer behind it and is dropped: calibrate again.

    Options:
        alpha: how much of the range moves: 0 none of the activations', 1 all of it.
        restore: also where others read the value, at the price of one Mul.
        between_layers: also between linear layers, through what `equalize` goes through.
    """

    name: ClassVar[str] = "smooth-quant"
    exact: ClassVar[Exactness] = Exactness.ROUNDING
    needs_facts: ClassVar[tuple[str, ...]] = (MAXIMA,)
    drops_facts: ClassVar[bool] = True

    alpha: float = bounded(0.5, 0, 1)
    restore: bool = True
    between_layers: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Scale in the main graph.

        Raises:
            UsageError: without measured maxima.
        """
        if MAXIMA not in ctx.facts:
            raise UsageError("smooth-quant needs the largest magnitudes of channels; calibrate first")
        rewriter, used = ctx.rewriter(model), used_initializers(model)
        maxima = cast("Maxima", ctx.facts[MAXIMA])
        chosen: list[tuple[_Spot, Wide]] = []
        for spot in _spots(model, between_layers=self.between_layers):
            found = self._factors(spot, maxima)
            if isinstance(found, Miss):
                ctx.misses[self.name, found.reason] += 1
            elif rewriter.allowed(self.name, spot.sinks[0].linear.node):
                chosen.append((spot, found))
        self._apply(model, chosen, rewriter, ctx)
        drop_orphans(rewriter, used)
        if rewriter.edits:
            forget(ctx)
        return rewriter.edits > 0

    def _factors(self, spot: _Spot, maxima: Maxima) -> Wide | Miss:
        if spot.value.is_graph_output():
            return Miss("the value is an output")
        others = _others(spot)
        if others and not self.restore:
            return Miss("others read the value")
        if any(node.graph is not spot.sinks[0].linear.node.graph for node in others):
            return Miss("a body reads the value")
        count = spot.sinks[0].linear.inputs
        seen = maxima.get(spot.value.name or "")
        if seen is None or np.shape(seen) != (count,) or not np.isfinite(seen).all():
            return Miss("no maxima of its channels were measured")
        held = [largest_by_input(peaks(s.linear), s.linear.group) for s in spot.sinks]
        weights = np.max(held, axis=0)
        activations = np.asarray(seen, np.float64)
        live = (activations > 0) & (weights > 0)
        x, w = np.where(live, activations, 1.0), np.where(live, weights, 1.0)
        s = np.clip(x**self.alpha / w ** (1 - self.alpha), 1 / MOST, MOST)
        # A common factor changes nothing but the size of the numbers.
        s = np.where(live, s / np.exp(np.mean(np.log(s[live]))) if live.any() else 1.0, 1.0)
        return s if (np.abs(np.log(s)) > 1e-3).any() else Miss("its channels are even")

    def _apply(self, model: Model, chosen: list[tuple[_Spot, Wide]], rw: Rewriter, ctx: Context) -> None:
        done, folded = fold_together(
            chosen,
            lambda left: [(spot.layer, spot.sinks, s) for spot, s in left],
            lambda why: ctx.misses.update([(self.name, why)]),
        )
        order = {node: index for index, node in enumerate(model.graph)}
        for spot, s in done:
            if others := sorted(_others(spot), key=lambda node: order[node]):
                _restore(spot, others, s, rw)
            for node, index in spot.affine:
                _divide(node, index, s, rw)
            ctx.counters[self.name] += 1
        for layer, ready in folded:
            replace_layer(layer, ready, rw)


def values_for_maxima(model: Model, *, between_layers: bool = True) -> dict[str, int]:
    """Names of the values whose channel maxima `smooth-quant` can use, with their channel axis."""
    found = _spots(model, between_layers=between_layers)
    return {spot.value.name: spot.axis for spot in found if spot.value.name}


def _spots(model: Model, *, between_layers: bool) -> Iterator[_Spot]:
    found = layers(model.graph, opset_of(model))
    readers: dict[Value, list[Layer]] = {}
    for layer in found.values():
        if (layer.linear.in_axis, layer.linear.weight_on_left) == (-1, False):
            readers.setdefault(layer.linear.x, []).append(layer)
    for value, sinks in readers.items():
        count = sinks[0].linear.inputs
        affine = _affine(value, count)
        if affine and all(sink.linear.inputs == count for sink in sinks):
            yield _Spot(value, -1, tuple(sinks), affine=affine)
    if between_layers:
        for place in places(found):
            yield _Spot(place.value, place.axis, place.sinks, place.source)


def _affine(value: Value, count: int) -> tuple[tuple[Node, int], ...]:
    """The constant inputs that scale and shift the last axis of a value; none when it is not of that form."""
    node = value.producer()
    if node is None or value.dtype not in FLOATS or value is not node.outputs[0]:
        return ()
    if is_op(node, "LayerNormalization"):
        axis, known = int_attr(node, "axis", -1), rank(value)
        if axis != -1 and (known is None or axis != known - 1):
            return ()
        indices = [1] if input_at(node, 2) is None else [1, 2]
        return tuple((node, i) for i in indices) if all(_row(node, i, count) for i in indices) else ()
    terms: tuple[tuple[Node, int], ...] = ()
    if is_op(node, "Add") and (index := _constant_side(node, count)) is not None:
        terms = ((node, index),)
        product = node.inputs[1 - index]
        node = None if product is None or only_user(product) is None else product.producer()
    if node is None or not is_op(node, "Mul") or (index := _constant_side(node, count)) is None:
        return ()
    return ((node, index), *terms)


def _constant_side(node: Node, count: int) -> int | None:
    """Which operand of an Add or Mul is a constant of one value per channel."""
    return next((i for i in (1, 0) if _row(node, i, count) and not is_constant(node.inputs[1 - i])), None)


def _row(node: Node, index: int, count: int) -> bool:
    array = constant(node.inputs[index])
    return array is not None and array.shape == (count,) and bool(np.isfinite(array).all())


def _others(spot: _Spot) -> list[Node]:
    sinks = {sink.linear.node for sink in spot.sinks}
    return [user for user in dict.fromkeys(user for user, _ in spot.value.uses()) if user not in sinks]


def _restore(spot: _Spot, others: list[Node], s: Wide, rw: Rewriter) -> None:
    name = spot.value.name or "value"
    with rw.standing_for(others[:1]):
        like = constant(spot.affine[0][0].inputs[spot.affine[0][1]])
        assert like is not None
        factor = rw.constant(s.astype(like.dtype), f"{name}_smoothing", others[0])
        whole = rw.node("Mul", [spot.value, factor], before=others[0], name=f"{name}_restored").outputs[0]
    whole.type, whole.shape = spot.value.type, spot.value.shape
    for node in others:
        for index, value in enumerate(node.inputs):
            if value is spot.value:
                rw.set_input(node, index, whole)


def _divide(node: Node, index: int, s: Wide, rw: Rewriter) -> None:
    source = node.inputs[index]
    array = constant(source)
    assert source is not None
    assert array is not None
    ready = np.asarray(array.astype(np.float64) / s).astype(array.dtype)
    rw.set_input(node, index, rw.constant(ready, source.name or "scale", node))
