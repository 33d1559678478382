# SPDX-License-Identifier: Apache-2.0
"""Identity removal."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Model, Rewriter, Value
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, op, var


class _Identity(Rule):
    """y = Identity(x)  ->  readers of y read x.

    Not valid where y is an output and x cannot take its place: x an input or weight, x itself an output, x
    from an outer graph. Then the Identity is what gives the output its name, and stays.
    """

    root: ClassVar = op("Identity", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        result, source = m.root.outputs[0], m["x"]
        if result.is_graph_output() and not rw.can_take_output(result, source):
            return Miss("names a graph output")
        return source


class EliminateIdentity(Pass):
    """Remove Identity nodes; names, types and order of outputs stay."""

    name: ClassVar[str] = "eliminate-identity"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        return apply_rules(model, ctx, [_Identity()])
