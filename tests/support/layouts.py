# SPDX-License-Identifier: Apache-2.0
"""Models between two Transposes, and what sinking the Transposes makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from tersor.graph_ir import Model, signature_of, to_text, verify
from tersor.graph_ir.ops import walk_nodes
from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout.sink_transpose import SinkTransposes
from tests.support.numerics import assert_bitwise, assert_rounding, feeds_for, snapshot
from tests.support.rewriting import model_of

TO_LAST = "Transpose<perm = [0, 2, 3, 1]>"
TO_FIRST = "Transpose<perm = [0, 3, 1, 2]>"
X = "float[2,6,4,5] x"
Y = "float[A,B,C,D] y"


@dataclass
class Sunk:
    """A model after the pass."""

    model: Model
    changed: bool
    context: Context

    @property
    def text(self) -> str:
        """As text, with inferred shapes."""
        return to_text(self.model)

    @property
    def ops(self) -> list[str]:
        """Operators, bodies and functions included, without Constants."""
        return [n.op_type for n in walk_nodes(self.model) if n.op_type != "Constant"]


def transposes(model: Model) -> int:
    """How many Transposes the model has, bodies and functions included."""
    return sum(node.op_type == "Transpose" for node in walk_nodes(model))


def between(body: str, weights: str = "", *, x: str = X, y: str = Y, opset: int = 17) -> Model:
    """A model that reads x [N, C, H, W], computes w from v [N, H, W, C], and gives w channel-first as y."""
    nodes = f"v = {TO_LAST}(x)\n{body}\ny = {TO_FIRST}(w)"
    return model_of(nodes, weights, x=x, y=y, opset=opset)


def sink(model: Model, *, bitwise: bool = True, **dims: int) -> Sunk:
    """Run the pass: the model verifies, keeps signature and numbers, and has no more Transposes than before.

    Args:
        model: edited in place.
        bitwise: hold it to the bits, else to rounding.
        dims: sizes of symbolic dimensions.
    """
    InferShapes().run(model, Context())
    before, signature, count = snapshot(model), signature_of(model), transposes(model)
    context = Context()
    changed = SinkTransposes().run(model, context)
    verify(model, signature)
    after = snapshot(model)
    assert changed == (after != before)
    assert transposes(model) <= count
    judge = assert_bitwise if bitwise else assert_rounding
    judge(before, after, [feeds_for(before, seed, dims=dims) for seed in range(2)])
    return Sunk(model, changed, context)
