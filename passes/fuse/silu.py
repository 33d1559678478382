# SPDX-License-Identifier: Apache-2.0
"""Swish from Sigmoid and Mul."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph_ir import DataType, Model, Rewriter, Value
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, commute, op, var
from .activations import Fusion, float_type, fuse_all


class SiluOf(Fusion):
    """x * Sigmoid(x) = Swish(x) with alpha 1.

    Not valid below opset 24, which has no Swish, or when the gate is read elsewhere.
    """

    since: ClassVar[int] = 24
    root = commute("Mul", var("x"), op("Sigmoid", var("x")))

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        dtype = float_type(m["x"], m.root.outputs[0], DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
        return dtype if isinstance(dtype, Miss) else None

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One Swish."""
        return rw.node("Swish", [m["x"]], before=m.root).outputs[0]


@dataclass(frozen=True)
class FuseSilu(Pass):
    """Fuse x * Sigmoid(x) into Swish, from opset 24 on.

    For backends that have Swish. onnxruntime 1.31 has not: it takes Swish apart into a product with alpha,
    Sigmoid and Mul, and fuses only the Sigmoid and Mul of older models by itself, so no pipeline for it names
    this pass.

    Attributes:
        raise_opset: raise the opset to 24, if that is safe (`raise-opset`).
    """

    name = "fuse-silu"
    exact = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return fuse_all(model, ctx, [SiluOf()], raising=self.raise_opset)
