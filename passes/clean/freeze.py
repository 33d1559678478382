# SPDX-License-Identifier: Apache-2.0
"""Freezing of inputs that have defaults."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Model
from ..base import Context, Exactness, Pass


class FreezeDefaultInputs(Pass):
    """Make initializers that are also listed as inputs plain constants.

    Old exporters list every weight as an input; a caller could override it, so no rewrite may touch it. Once
    frozen it can no longer be overridden: the one pass that changes the signature, and only asked for by
    name.
    """

    name: ClassVar[str] = "freeze-default-inputs"
    exact: ClassVar[Exactness] = Exactness.BITWISE
    changes_signature: ClassVar[bool] = True

    def run(self, model: Model, ctx: Context) -> bool:
        rewriter = ctx.rewriter(model)
        frozen = [v for v in model.graph.inputs if v.is_initializer()]
        for value in frozen:
            rewriter.freeze_default(value)
        if frozen:
            ctx.note(f"{len(frozen)} inputs with defaults were frozen: callers can no longer override them")
        ctx.counters["frozen"] += len(frozen)
        return bool(frozen)
