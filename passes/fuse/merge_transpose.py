# SPDX-License-Identifier: Apache-2.0
"""Consecutive Transposes become one or none; one between reshapes that moves 1s or matrices joins them."""

from __future__ import annotations

import numpy as np

from ...analysis.shapes import symbolic_data
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


class TransposeOfStack(Rule):
    """Reshape(Transpose(Reshape(x), [0, 2, 1])) = Transpose(x, [..., n-1, n-2]) if the first axes come back.

    x is `[lead..., a, b]`, between are `[stack, a, b]` and `[stack, b, a]`, and the result `[lead..., b, a]`:
    each matrix is turned where it stands. So some exporters turn the keys of attention. Not valid when these
    dimensions are not all known to be equal.
    """

    cut = op("Reshape", var("x"), var("stacked"))
    turned = op("Transpose", cut)
    root = op("Reshape", turned, var("shape"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Transpose."""
        x, cut = m["x"], m.node(self.cut).outputs[0]
        given, between, made = known_dims(x), known_dims(cut), known_dims(m.root.outputs[0])
        wanted = symbolic_data(m["stacked"]) or between  # a target may be a symbol, but only for a 0 a copy
        if given is None or wanted is None or made is None or len(given) < 3 or len(wanted) != 3:
            return Miss("no stack of matrices")
        if ints_attr(m.node(self.turned), "perm") != [0, 2, 1]:
            return Miss("the matrices are not turned")
        *lead, rows, columns = given
        if None in given or tuple(wanted[1:]) != (rows, columns) or made != (*lead, columns, rows):
            return Miss("not known to come back")
        last = len(lead)
        perm = [*range(last), last + 1, last]
        return rw.node("Transpose", [x], {"perm": perm}, before=m.root).outputs[0]


class MergeTransposes(Pass):
    """Merge consecutive Transposes into one or none, and one between reshapes that only moves 1s or matrices.

    The algebra and limits stand with the rules `MergeTranspose`, `TransposeOfOnes` and `TransposeOfStack`.
    Bits are only moved. The last two need shapes (`infer-shapes`); the second leaves the Reshape to
    `merge-reshape`.
    """

    name = "merge-transpose"
    exact = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        return apply_rules(model, ctx, [MergeTranspose(), TransposeOfOnes(), TransposeOfStack()])


def _perm(node: Node, extent: int) -> list[int]:
    """The node's permutation; the reverse of `extent` axes when it says none."""
    perm = ints_attr(node, "perm")
    return list(reversed(range(extent))) if perm is None else perm
