# SPDX-License-Identifier: Apache-2.0
"""Consecutive reshapes become one; reshapes to the same shape go."""

from __future__ import annotations

import numpy as np

from ...graph_ir import Model, Node, Rewriter, Value
from ...graph_ir.ops import input_at, int_attr, is_op
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Rule, maybe, op, var
from .reshape_dims import (
    FAMILY,
    Dims,
    axes_of,
    known_dims,
    reshape_spec,
    shape_operand,
    target_dims,
)


class SameShape(Rule):
    """A reshape to the shape the tensor has already: x.

    Proved by position: each target dimension is a copy (0), or the same number; one more may be -1 or a
    number standing for a symbol, since the number of elements then leaves one answer (a number only if no
    other dimension can be 0). `Reshape(x, Shape(x))` is x. Not valid when two dimensions are unknown, or the
    target is computed. Not done for a vector of open length that gets a known one: it may be the rank of
    another tensor, which runtimes want to know.
    """

    root = op(FAMILY, var("x"), maybe(var("how")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """Give back x."""
        node, x = m.root, m["x"]
        given = known_dims(x)
        if node.op_type == "Reshape":
            shape = input_at(node, 1)
            if shape is not None and _is_shape_of(shape.producer(), x):
                return x
            wanted = shape_operand(node)
            if given is None or wanted is None:
                return Miss("shape not known")
            same = _lands_on(given, wanted, int_attr(node, "allowzero", 0) != 0)
            return x if same else Miss("another shape")
        if given is None:
            return Miss("shape not known")
        if node.op_type == "Flatten":
            axis = int_attr(node, "axis", 1)
            axis = axis + len(given) if axis < 0 else axis
            same = len(given) == 2 and (axis == 1 or given[axis // 2] == 1)
            return x if same else Miss("another shape")
        if node.op_type == "Squeeze" and len([i for i in node.inputs if i is not None]) == 1:
            same = "axes" not in node.attributes and all(isinstance(d, int) and d != 1 for d in given)
            return x if same else Miss("another shape")
        return Miss("another shape")


class InverseAxes(Rule):
    """Squeeze(Unsqueeze(x, a), a) = Unsqueeze(Squeeze(x, a), a) = x.

    Both count their axes in the tensor between them resp. in x, which have the same rank, so equal lists name
    equal places whatever the signs. Not valid for a Squeeze without axes, or axes that are not constant.
    """

    inner = op(("Squeeze", "Unsqueeze"), var("x"), maybe(var("first"))).shared()
    root = op(("Squeeze", "Unsqueeze"), inner, maybe(var("second")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """Give back x."""
        inner = m.node(self.inner)
        first, second = axes_of(inner), axes_of(m.root)
        if inner.op_type == m.root.op_type or first is None or second is None:
            return Miss("not inverse")
        return m["x"] if sorted(first) == sorted(second) else Miss("other axes")


class MergeAxes(Rule):
    """Squeeze(Squeeze(x, a), b) and Unsqueeze(Unsqueeze(x, a), b) are one node, whatever the rank of x.

    Squeeze: the places left by a, in order, carry b; the union is squeezed. Unsqueeze: b are places of the
    result, and a take the a-th places b leaves. Only for non-negative axes: a negative one needs the rank.
    """

    inner = op(("Squeeze", "Unsqueeze"), var("x"), maybe(var("first")))
    root = op(("Squeeze", "Unsqueeze"), inner, maybe(var("second")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One node with both lists of axes."""
        first, second = axes_of(m.node(self.inner)), axes_of(m.root)
        if m.node(self.inner).op_type != m.root.op_type:
            return Miss("different operators")
        if first is None or second is None or min(first) < 0 or min(second) < 0:
            return Miss("axes not known from the front")
        outer, rest = (first, second) if m.root.op_type == "Squeeze" else (second, first)
        free = [i for i in range(len(first) + len(second) + max(*first, *second)) if i not in outer]
        axes = sorted([*outer, *(free[i] for i in rest)])
        if rw.opset(m.root) < 13:
            return rw.node(m.root.op_type, [m["x"]], {"axes": axes}, before=m.root).outputs[0]
        operand = rw.constant(np.array(axes, np.int64), f"{m.root.outputs[0].name}_axes", m.root)
        return rw.node(m.root.op_type, [m["x"], operand], before=m.root).outputs[0]


class MergeReshape(Rule):
    """B(A(x)) = Reshape(x, s), for A and B among Reshape, Flatten, Squeeze and Unsqueeze.

    All keep elements and order, so only B's shape counts. s is B's shape with each number kept, a symbol x
    has in the same place copied (0), and one other inferred (-1). A 0 in B copies a dimension of A(x), not of
    x: it is kept only when the two are the same symbol, else it becomes that dimension's number, or the one
    -1. Not valid (and not done): two dimensions that are neither; a -1 beside a dimension that may be 0 where
    B had no -1; a result with a literal 0 dimension; B's target not constant, unless `allowzero` makes it
    free of copies. A must be read by reshapes only, else the node count would not fall.
    """

    inner = op(FAMILY, var("x"), maybe(var("first"))).shared()
    root = op(FAMILY, inner, maybe(var("second")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """One Reshape of x."""
        inner, root, x = m.node(self.inner), m.root, m["x"]
        between = inner.outputs[0]
        if inner.graph is not root.graph:
            return Miss("the first is outside this body")
        if between.is_graph_output() or not all(is_op(u, *FAMILY) and i == 0 for u, i in between.uses()):
            return Miss("the first is read by others")
        if root.op_type == "Reshape" and _copies_nothing(root):
            return rw.node(
                "Reshape", [x, root.inputs[1]], list(root.attributes.values()), before=root
            ).outputs[0]
        given = known_dims(x)
        target = target_dims(root, known_dims(between))
        if target is None:
            return Miss("target shape not known")
        spec = reshape_spec(given, target)
        if spec is None:
            return Miss("no one target fits every input")
        if rw.opset(root) < 5:
            return Miss("Reshape takes no shape input below opset 5")
        if root.op_type == "Reshape" and shape_operand(root) == spec:
            shape = root.inputs[1]
        else:
            shape = rw.constant(np.array(spec, np.int64), f"{root.outputs[0].name}_shape", root)
        return rw.node("Reshape", [x, shape], before=root).outputs[0]


class MergeReshapes(Pass):
    """Merge consecutive Reshape, Flatten, Squeeze and Unsqueeze into one, or into nothing.

    The algebra and limits stand with the rules `SameShape`, `InverseAxes`, `MergeAxes` and `MergeReshape`.
    Bits are only passed on. It sees more after `infer-shapes`.
    """

    name = "merge-reshape"
    exact = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        return apply_rules(model, ctx, [SameShape(), InverseAxes(), MergeAxes(), MergeReshape()])


def _copies_nothing(node: Node) -> bool:
    """Whether no entry of a Reshape's target stands for a dimension of its input by position."""
    if int_attr(node, "allowzero", 0) != 0:
        return True
    wanted = shape_operand(node)
    return wanted is not None and 0 not in wanted


def _is_shape_of(node: Node | None, x: Value) -> bool:
    """Whether the node gives the whole shape of x, or of a tensor provably of the same shape."""
    if node is None or not is_op(node, "Shape") or node.attributes:
        return False
    source = node.inputs[0]
    if source is x:
        return True
    left, right = known_dims(source), known_dims(x)
    return left is not None and left == right and None not in left


def _lands_on(given: Dims, wanted: list[int], zero_is_zero: bool) -> bool:
    """Whether Reshape to `wanted` gives `given` back whenever it succeeds."""
    if len(given) != len(wanted):
        return False
    open_places: list[int] = []
    for i, (have, want) in enumerate(zip(given, wanted, strict=True)):
        if want == 0 and not zero_is_zero:
            continue
        if want == -1 or not isinstance(have, int):
            open_places.append(i)
        elif have != want:
            return False
    if not open_places:
        return True
    if len(open_places) > 1:
        return False
    place = open_places[0]
    if len(given) == 1 and wanted[place] != -1:
        return False
    others = [d for i, d in enumerate(given) if i != place]
    return wanted[place] == -1 or all(isinstance(d, int) and d != 0 for d in others)
