# SPDX-License-Identifier: Apache-2.0
"""Insert Q/DQ so that onnxruntime runs the model in int8 on CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, cast

from ...graph_ir import Model, UsageError
from ...graph_ir.ops import label, opset_of
from ...graph_ir.origins import origins
from ...graph_ir.provenance import note_left_float
from ..base import Context, Exactness, Pass
from .bias_correction import Means
from .emit import Emitter
from .facts import GRIDS, MEANS, RANGES
from .kinds import LINEAR, QUANTIZABLE
from .linear_form import Grids, linear_form
from .plan import PlanOptions, RangeMap, plan
from .values import drop_orphans, used_initializers

SCHEMES = ("u8s8", "u8s8-reduced")
PLAN = "quant-plan"
LEAST_OPSET = 13


@dataclass(frozen=True)
class InsertQdq(Pass):
    """Insert Q/DQ for onnxruntime on CPU: U8 activations, S8 weights per channel, int32 biases.

    Reads `ctx.facts["ranges"]` (value name -> lo, hi, unsafe) and, where given, `ctx.facts["channel-
    means"]` (value name -> mean per channel) for bias correction. Leaves the `QuantPlan`'s decisions in
    `ctx.facts["quant-plan"]`, and in the model's metadata why linear nodes were left float.

    Options:
        scheme: `u8s8`, or `u8s8-reduced` with 7-bit weights for x86 CPUs without VNNI.
        op_types: linear and follower operators that may become int8; empty for all.
        exclude: labels or origins of nodes that stay float.
        float_stem: keep a first convolution of at most 4 channels float.
        float_tail: keep what follows the last linear nodes float.
        join_concats: give what a Concat joins one grid, so that codes are copied and not computed anew, where
            that costs each tensor one bit at most.
        mse_weights: choose weight scales by least squared error instead of the largest weight.
        per_tensor: give each weight one scale, as some other runtimes want it, not one for each output
            channel. No faster in onnxruntime, and less close.
        symmetric: give values of both signs a range as wide on both sides of zero, whose code is 128. As
            `per-tensor`, for other runtimes; values of one sign keep 0 as their first or last code.
    """

    name: ClassVar[str] = "insert-qdq"
    exact: ClassVar[Exactness] = Exactness.LOSSY
    needs_facts: ClassVar[tuple[str, ...]] = (RANGES,)

    scheme: str = "u8s8"
    op_types: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    float_stem: bool = True
    float_tail: bool = True
    join_concats: bool = False
    mse_weights: bool = False
    per_tensor: bool = False
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UsageError(f"insert-qdq knows no scheme {self.scheme!r}; it has {', '.join(SCHEMES)}")
        unknown = sorted(set(self.op_types) - QUANTIZABLE)
        if unknown:
            raise UsageError(
                f"insert-qdq cannot quantise {unknown[0]}; op_types are {', '.join(sorted(QUANTIZABLE))}"
            )

    @property
    def plan_options(self) -> PlanOptions:
        """The options as the planner takes them."""
        return PlanOptions(
            frozenset(self.op_types) or None,
            frozenset(self.exclude),
            self.float_stem,
            self.float_tail,
            self.join_concats,
            self.symmetric,
        )

    @property
    def bits(self) -> int:
        """Of the weights."""
        return 7 if self.scheme.endswith("reduced") else 8

    def _strangers(self, model: Model) -> list[str]:
        """Names to be excluded that fit no node."""
        left = {*self.exclude}
        for node in model.graph if left else ():
            left.difference_update((label(node), *origins(node)))
        return sorted(left)

    def run(self, model: Model, ctx: Context) -> bool:
        """Plan and emit.

        Raises:
            UsageError: without ranges, or below opset 13 (per-channel Q/DQ needs it).
        """
        if RANGES not in ctx.facts:
            raise UsageError("insert-qdq needs calibrated ranges; calibrate the model with data first")
        version = opset_of(model)
        if version < LEAST_OPSET:
            raise UsageError(
                f"insert-qdq needs opset {LEAST_OPSET} and the model has {version}; run raise-opset before it"
            )
        for name in self._strangers(model):
            ctx.note(f"insert-qdq: exclude has {name!r}, which is no node of the model")
        options, allow = self.plan_options, ctx.allow
        if allow is not None:
            # A bisection leaves nodes out one by one; their neighbours must be planned anew.
            barred = {label(n) for n in model.graph if n.op_type in LINEAR and not allow(self.name, n)}
            options = replace(options, exclude=options.exclude | barred)
        decided = plan(model, cast("RangeMap", ctx.facts[RANGES]), options)
        ctx.facts[PLAN] = tuple(decided.decisions)
        note_left_float(model, {d.node: d.reason for d in decided.decisions if not d.int8})
        rewriter = ctx.rewriter(model)
        means = cast("Means | None", ctx.facts.get(MEANS))
        used = used_initializers(model)
        grids = cast("Grids | None", ctx.facts.get(GRIDS))  # spares the search for them
        numbers = partial(
            linear_form,
            bits=self.bits,
            mse=self.mse_weights,
            per_tensor=self.per_tensor,
            means=means,
            grids=grids,
        )
        emitter = Emitter(rewriter, decided, numbers)
        ctx.counters[self.name] += emitter.run(list(model.graph))
        for decision in decided.decisions:
            if not decision.int8:
                ctx.misses[self.name, decision.reason] += 1
        drop_orphans(rewriter, used)
        return rewriter.edits > 0
