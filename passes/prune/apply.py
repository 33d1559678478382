# SPDX-License-Identifier: Apache-2.0
"""Remove channels as a plan says: slice weights, mend attributes and shape operands, infer shapes anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from ...analysis.coupling import couple
from ...analysis.shapes import infer_shapes, refined_shape
from ...graph_ir import Model, Node, Rewriter, Shape, UsageError, Value, VerifyError, constant, verify
from ...graph_ir.ops import is_constant, is_op, is_pure, is_read, label, subgraphs, walk_graphs, walk_nodes
from ..base import Context, Exactness, Pass
from ..quantize.facts import forget
from .fixes import mend
from .fixes.cuts import Cuts, Mask, Masks
from .fixes.windows import more_zeros
from .plan import PrunePlan, load_plan

Sizes: TypeAlias = "tuple[int | str | None, ...] | None"


@dataclass(frozen=True)
class ApplyPlan(Pass):
    """Remove the channels that a pruning plan does not keep.

    Weights are sliced; groups of convolutions, heads, hidden sizes, sizes of Split, bounds of Slice, targets
    of Reshape and other operands that hold a number of channels follow. What is left computes what the model
    did, as far as the removed channels were zero where they were summed. Types are inferred on the way.

    Options:
        plan: path of the plan, as `tersor prune` writes it. It must be for this very model.
    """

    name: ClassVar[str] = "apply-plan"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    drops_facts: ClassVar[bool] = True

    plan: str = ""

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply it. Drops what was measured.

        Raises:
            UsageError: no plan is named, it cannot be read, or it is for another model.
        """
        if not self.plan:
            raise UsageError("apply-plan needs a plan; write apply-plan{plan=FILE}")
        changed = apply_plan(model, load_plan(self.plan), ctx)
        if changed:
            forget(ctx)
        return changed


def apply_plan(model: Model, plan: PrunePlan, ctx: Context) -> bool:
    """Remove what a plan does not keep.

    Args:
        model: edited in place; the one the plan is for.
        plan: which atoms of which groups stay.
        ctx: of the run.

    Returns:
        Whether anything was removed.

    Raises:
        UsageError: the plan is for another model.
        VerifyError: a fault in the analysis or here.
    """
    coupling = couple(model, attention=plan.attention)
    plan.check(model, coupling)
    rewriter = ctx.rewriter(model)
    kept = {
        name: mask
        for name, mask in plan.kept().items()
        if rewriter.allowed(ApplyPlan.name, coupling.group(name).producers[0])
    }
    ctx.counters["groups cut"] += sum(not mask.all() for mask in kept.values())
    return apply_masks(model, coupling.masks(kept), ctx)


def apply_masks(model: Model, masks: Masks, ctx: Context) -> bool:
    """Remove positions of axes.

    Args:
        model: with inferred types (as `couple` leaves it); edited in place.
        masks: for every axis that loses positions, of weights and of activations alike, which stay: bool, as
            long as the axis. Only constants are sliced; the others must come out as predicted.
        ctx: of the run.

    Returns:
        Whether anything was removed.

    Raises:
        VerifyError: a mask does not fit or leaves nothing, an operator is not understood where it is cut, or
            the result does not have the shapes predicted.
    """
    masks = {key: mask for key, mask in masks.items() if not mask.all()}
    if not masks:
        return False
    _check(model, masks)
    before = {value: _sizes(value) for value in _values(model)}
    rewriter = ctx.rewriter(model)
    cuts = Cuts(rewriter, masks)
    nodes: set[Node] = set()
    for value, _ in masks:
        producer = value.producer()
        nodes.update(node for node, _ in value.uses())
        if producer is not None and not is_constant(value):
            nodes.add(producer)
    touched = [node for graph in walk_graphs(model) for node in graph if node in nodes]
    read = _inputs(touched)
    names = {label(node) for node in touched}
    for node in touched:
        if is_op(node, "Conv"):
            more_zeros(cuts, node)
    read += _inputs(touched)
    for node in touched:
        mend(cuts, node)
    _sweep(rewriter, read)
    _slice(rewriter, masks, ctx)
    _settle(model, before, cuts.masks, names)
    verify(model)
    return True


def _inputs(nodes: Iterable[Node]) -> list[Value]:
    return [value for node in nodes for value in node.inputs if value is not None]


def _check(model: Model, masks: Masks) -> None:
    branches = {
        v for node in walk_nodes(model) if is_op(node, "If") for g in subgraphs(node) for v in g.outputs
    }
    kept = {*model.graph.outputs, *(f for function in model.functions.values() for f in function.outputs)}
    for (value, axis), mask in masks.items():
        where = f"axis {axis} of {value.name!r}"
        sizes = _sizes(value) or ()
        if not 0 <= axis < len(sizes) or sizes[axis] != len(mask):
            raise VerifyError(f"cannot cut {where}: the mask is for {len(mask)} positions, it is {sizes}")
        if not mask.any():
            raise VerifyError(f"cannot cut {where}: nothing would be left")
        handed_on = value.is_graph_output() and (value in kept or value not in branches)
        if value.is_graph_input() or handed_on:
            raise VerifyError(f"cannot cut {where}: the signature of a graph must stay")


def _values(model: Model) -> Iterator[Value]:
    for graph in walk_graphs(model):
        for node in graph:
            yield from node.outputs


def _slice(rewriter: Rewriter, masks: Masks, ctx: Context) -> None:
    """Keep of each constant what the masks say; one that is shared is sliced once for all its readers."""
    by_value: dict[Value, list[tuple[int, Mask]]] = {}
    for (value, axis), mask in masks.items():
        if is_constant(value) and value.uses():
            by_value.setdefault(value, []).append((axis, mask))
    for value, cut in by_value.items():
        array = constant(value)
        if array is None:
            raise VerifyError(f"cannot cut {value.name!r}: it holds text")
        # The axis that loses most goes first: the data may be a view of a file much larger than what stays.
        for axis, mask in sorted(cut, key=lambda c: float(np.mean(c[1]))):
            array = np.compress(mask, array, axis)
        ctx.counters["weights sliced"] += 1
        rewriter.set_data(value, array)


def _sweep(rewriter: Rewriter, read: Iterable[Value]) -> None:
    """Remove what computed or held the sizes that nothing reads any more."""
    stack = list(dict.fromkeys(read))
    while stack:
        value = stack.pop()
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        producer = value.producer()
        if producer is None:
            if value.is_initializer() and value.graph is not None:
                rewriter.drop_initializer(value)
        elif producer.graph is not None and is_pure(producer) and not any(map(is_read, producer.outputs)):
            stack += [v for v in producer.inputs if v is not None]
            rewriter.erase(producer)


def _settle(model: Model, before: Mapping[Value, Sizes], masks: Masks, touched: Collection[str]) -> None:
    """Infer types anew; shapes must come out as the masks predict, and as before where nothing was cut."""
    predicted = {value: sizes for value, sizes in before.items() if sizes is not None}
    for (value, axis), mask in masks.items():
        if value.shape is None or is_constant(value):
            predicted.pop(value, None)
            continue
        items = list(value.shape)
        sizes = list(predicted.get(value) or _sizes(value) or ())
        items[axis] = sizes[axis] = int(np.count_nonzero(mask))
        value.shape = Shape(items)
        predicted[value] = tuple(sizes)
    refused = {place: reason for place, reason in infer_shapes(model).notes if place in touched}
    for value in _values(model):
        now, then, producer = _sizes(value), predicted.get(value), value.producer()
        if then is None or producer is None or not is_read(value):
            continue  # of results nobody reads nothing is predicted
        place = label(producer)
        if now is None and place in refused:
            raise VerifyError(f"cutting channels broke {producer.op_type} {place!r}: {refused[place]}")
        if now is not None and (len(now) != len(then) or not all(map(_agree, now, then))):
            raise VerifyError(
                f"cutting channels made {value.name!r} at {producer.op_type} {place!r} {now}, "
                f"where {then} was predicted"
            )


def _sizes(value: Value) -> Sizes:
    """What inference found, also of outputs whose declared shape stays."""
    shape = refined_shape(value)
    return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)


def _agree(now: int | str | None, then: int | str | None) -> bool:
    """Whether two sizes may be the same; names made up for sizes nobody knows say nothing."""
    known = [d for d in (now, then) if d is not None and not (isinstance(d, str) and "?" in d)]
    return len(known) < 2 or now == then
