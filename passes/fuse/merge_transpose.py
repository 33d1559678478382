# SPDX-License-Identifier: Apache-2.0
"""Consecutive Transposes become one or none; a Transpose between reshapes that only moves 1s joins them."""

from __future__ import annotations

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import ints_attr, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, op, var
from .reshape_dims import FAMILY, known_dims, reshape_spec


class MergeTranspose(Rule):
    """Transpose(Transpose(x, p), q) = Transpose(x, p[q]), or x when p[q] is the identity.

    Output axis i of the second is axis q[i] of the first's result, which is axis p[q[i]] of x. Without `perm`
    a Transpose reverses the axes; two such give x whatever its rank. When others read the first Transpose
    too, only the identity is worth it. Not valid when the rank cannot be told or the lists disagree on it.
    """

    inner = op("Transpose", var("x")).shared()
    root = op("Transpose", inner)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """Give x, or one Transpose of it."""
        inner, x = m.node(self.inner), m["x"]
        first, second = ints_attr(inner, "perm"), ints_attr(m.root, "perm")
        stated = second if first is None else first
        if stated is None:
            return x
        extent = len(stated)
        p, q = _perm(inner, extent), _perm(m.root, extent)
        if len(p) != len(q) or sorted(p) != sorted(q) or sorted(p) != list(range(extent)):
            return Miss("permutations of different ranks")
        both = [p[i] for i in q]
        if both == list(range(extent)):
            return x
        between = inner.outputs[0]
        if between.is_graph_output() or len(between.uses()) > 1 or inner.graph is not m.root.graph:
            return Miss("the first is read by others")
        return rw.node("Transpose", [x], {"perm": both}, before=m.root).outputs[0]


class TransposeOfOnes(Rule):
    """Transpose(x) = Reshape(x) when it keeps the order of all dimensions that are not 1.

    Moving a dimension of size 1 moves no element. Done only beside another reshape, which it then merges
    with: alone, a Transpose is what runtimes push through a graph and cancel. Not valid when a moved
    dimension is not known to be 1, or the result's shape cannot be written as one constant.
    """

    root = op("Transpose", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """A Reshape to the transposed shape."""
        x, out = m["x"], m.root.outputs[0]
        users = out.uses()
        beside = is_op(x.producer(), *FAMILY) or (
            bool(users) and not out.is_graph_output() and all(is_op(u, *FAMILY) and i == 0 for u, i in users)
        )
        if not beside:
            return Miss("no reshape beside it")
        given = known_dims(x)
        if given is None:
            return Miss("shape not known")
        perm = _perm(m.root, len(given))
        if sorted(perm) != list(range(len(given))):
            return Miss("not a permutation of the input's axes")
        kept = [i for i in perm if given[i] != 1]
        if kept != sorted(kept) or perm == sorted(perm):
            return Miss("moves more than ones")
        spec = reshape_spec(given, [given[i] for i in perm])
        if spec is None or rw.opset(m.root) < 5:
            return Miss("no one target fits every input")
        shape = rw.constant(np.array(spec, np.int64), f"{m.root.outputs[0].name}_shape", m.root)
        return rw.node("Reshape", [x, shape], before=m.root).outputs[0]


class MergeTransposes(Pass):
    """Merge consecutive Transposes into one or none, and one that only moves 1s into a reshape beside it.

    The algebra and limits stand with the rules `MergeTranspose` and `TransposeOfOnes`. Bits are only moved.
    The second rule needs shapes (`infer-shapes`) and leaves the Reshape to `merge-reshape`.
    """

    name = "merge-transpose"
    exact = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        return apply_rules(model, ctx, [MergeTranspose(), TransposeOfOnes()])


def _perm(node: Node, extent: int) -> list[int]:
    """The node's permutation; the reverse of `extent` axes when it says none."""
    perm = ints_attr(node, "perm")
    return list(reversed(range(extent))) if perm is None else perm
