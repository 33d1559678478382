# SPDX-License-Identifier: Apache-2.0
"""Mish from Softplus, Tanh and Mul."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph_ir import DataType, Model, Rewriter, Value
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, commute, op, var
from .activations import Fusion, float_type, fuse_all


class MishOf(Fusion):
    """x * Tanh(Softplus(x)) = Mish(x).

    Not valid below opset 18, which has no Mish, or when one of the two in the middle is read elsewhere.
    """

    since: ClassVar[int] = 18
    root = commute("Mul", var("x"), op("Tanh", op("Softplus", var("x"))))

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        dtype = float_type(m["x"], m.root.outputs[0], DataType.FLOAT, DataType.FLOAT16)
        return dtype if isinstance(dtype, Miss) else None

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One Mish."""
        return rw.node("Mish", [m["x"]], before=m.root).outputs[0]


@dataclass(frozen=True)
class FuseMish(Pass):
    """Fuse x * Tanh(Softplus(x)) into Mish, from opset 18 on.

    onnxruntime takes it apart again, so it gains nothing by itself. Before Q/DQ goes in it keeps three
    operators from being placed one by one, each rounded to 8 bits; `activations-by-exp` spells
    it out in the end.

    Attributes:
        raise_opset: raise the opset to 18, if that is safe (`raise-opset`).
    """

    name = "fuse-mish"
    exact = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rule until it fires no more."""
        return fuse_all(model, ctx, [MishOf()], raising=self.raise_opset)
