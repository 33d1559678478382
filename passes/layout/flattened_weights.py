# SPDX-License-Identifier: Apache-2.0
"""A Transpose in front of a flattened product goes into the order of the weight's rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph_ir import INFERRED, Model, Rewriter, Value
from ...graph_ir.ops import int_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..fuse.reshape_dims import known_dims
from ..pattern import Match, Miss, Op, Rule, const, maybe, op, var
from .perms import Perm, inverse, perm_of


class FlattenedWeight(Rule):
    """Flatten(Transpose_p(x)) W = Flatten(x) W', where p leaves the batch axis and W' has W's rows moved.

    Row k of W belongs to the k-th element of Transpose_p(x) without its batch axis; in W' it stands where
    that element stands in x. Not valid unless all other dimensions are known and flattened into exactly one;
    not done when others read the weight, or a result between.
    """

    moved: ClassVar[Op] = op("Transpose", var("x"))
    flat: ClassVar[Op] = op(("Reshape", "Flatten"), moved, maybe(var("shape")))
    root: ClassVar[Op] = op(("Gemm", "MatMul"), flat, const("w"), maybe(var("b")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The product of x flattened as it is."""
        flat, weight = m.node(self.flat), m["w"]
        p, given, result = perm_of(m.node(self.moved)), known_dims(m["x"]), known_dims(flat.outputs[0])
        if p is None or given is None or result is None or len(given) < 2:
            return Miss("shapes are not known")
        sizes = [d for d in given[1:] if isinstance(d, int)]
        rows = prod(sizes)
        if p[0] != 0 or len(sizes) < len(given) - 1:
            return Miss("moves the batch axis, or a dimension is not known")
        if len(result) != 2 or result[1] != rows or rows == 0:
            return Miss("not flattened behind the batch axis")
        if int_attr(m.root, "transA", 0):
            return Miss("the product reads columns")
        if len(weight.uses()) > 1:
            return Miss("others read the weight")
        if rw.opset(m.root) < 5:
            return Miss("Reshape takes no shape input below opset 5")
        data, turned = m.array("w"), bool(int_attr(m.root, "transB", 0))
        if data.ndim != 2 or data.shape[1 if turned else 0] != rows:
            return Miss("weight does not fit")
        order = _places(sizes, tuple(i - 1 for i in p[1:]))
        w = rw.constant(np.take(data, order, axis=1 if turned else 0), weight.name or "weight", m.root)
        shape = rw.constant(np.array([0, rows], np.int64), f"{flat.outputs[0].name}_shape", m.root)
        x = rw.node("Reshape", [m["x"], shape], before=m.root, name=flat.name or "").outputs[0]
        x.type, x.shape = flat.outputs[0].type, flat.outputs[0].shape
        x.meta[INFERRED] = True
        attributes = list(m.root.attributes.values())
        return rw.node(m.root.op_type, [x, w, *m.root.inputs[2:]], attributes, before=m.root).outputs[0]


def _places(sizes: Sequence[int], p: Perm) -> NDArray[np.int64]:
    """For each element of x, which element of Transpose_p(x) it is, both counted in order."""
    there = np.arange(prod(sizes), dtype=np.int64).reshape([sizes[i] for i in p])
    return np.transpose(there, inverse(p)).reshape(-1)


class PermuteFlattenedWeights(Pass):
    """Move a Transpose in front of a flattened Gemm or MatMul into the rows of its weight.

    The algebra and limits stand with the rule `FlattenedWeight`. The same products are summed in another
    order. It needs shapes (`infer-shapes`).
    """

    name: ClassVar[str] = "permute-flattened-weights"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return apply_rules(model, ctx, [FlattenedWeight()])
