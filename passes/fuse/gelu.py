# SPDX-License-Identifier: Apache-2.0
"""Gelu from its erf and tanh spellings (Hendrycks and Gimpel, 2016, arXiv:1606.08415)."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

from ...graph_ir import DataType, Model, Rewriter, Value
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Op, Pattern, commute, either, op, var
from .activations import Fusion, exact, float_type, fuse_all, keeps_rank, near

_X = var("x")
_CONSTANTS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "sqrt2": sqrt(2.0),
    "sqrt_half": sqrt(0.5),
    "sqrt_2_pi": sqrt(2.0 / pi),
    "cubic": 0.044715,
}
_HALF, _TWO, _CUBIC = near("half", 0.5), near("two", 2.0), near("cubic", 0.044715)


def _one_plus(inner: Pattern) -> Op:
    return commute("Add", inner, near("one", 1.0))


_ERF = _one_plus(
    op(
        "Erf",
        either(op("Div", _X, near("sqrt2", sqrt(2.0))), commute("Mul", _X, near("sqrt_half", sqrt(0.5)))),
    )
)
_CUBE = either(op("Pow", _X, near("three", 3.0)), commute("Mul", commute("Mul", _X, _X), _X))
_INNER = either(
    commute("Add", _X, commute("Mul", _CUBE, _CUBIC)),
    commute("Add", _X, commute("Mul", commute("Mul", commute("Mul", _X, _CUBIC), _X), _X)),
    commute("Mul", _X, _one_plus(commute("Mul", commute("Mul", _X, _X), _CUBIC))),
    commute("Mul", _X, _one_plus(commute("Mul", commute("Mul", _X, _CUBIC), _X))),
)
_TANH = _one_plus(op("Tanh", commute("Mul", _INNER, near("sqrt_2_pi", sqrt(2.0 / pi)))))


def _products(gate: Op) -> tuple[Op, ...]:
    """The groupings of x * 0.5 * gate; the last divides by 2."""
    return (
        commute("Mul", commute("Mul", _X, gate), _HALF),
        commute("Mul", commute("Mul", _X, _HALF), gate),
        commute("Mul", _X, commute("Mul", gate, _HALF)),
        commute("Mul", op("Div", _X, _TWO), gate),
        commute("Mul", _X, op("Div", gate, _TWO)),
        op("Div", commute("Mul", _X, gate), _TWO),
    )


class GeluOf(Fusion):
    """x (1 + erf(x / sqrt 2)) / 2 = Gelu(x), and x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 nearly.

    Any order of operands and grouping of the product; the quotients may be products with the inverse. Not
    valid: constants off by more than a rounding; a part read elsewhere; double, for which the constants are
    not exact enough; below opset 20, which has no Gelu. Where x^3 overflows, tanh has long been 1 or -1 in
    both.
    """

    since: ClassVar[int] = 20
    tanh: ClassVar[bool]

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        x = m["x"]
        dtype = float_type(x, m.root.outputs[0], DataType.FLOAT, DataType.FLOAT16)
        if isinstance(dtype, Miss):
            return dtype
        if not exact(m, dtype, **_CONSTANTS):
            return Miss("other constants")
        return None if keeps_rank(m, x, *_CONSTANTS) else Miss("a constant raises the rank")

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One Gelu."""
        attributes = {"approximate": "tanh"} if self.tanh else {}
        return rw.node("Gelu", [m["x"]], attributes, before=m.root).outputs[0]


def _rules() -> list[Fusion]:
    """One rule a spelling: a rule has one root."""
    found: list[Fusion] = []
    for is_tanh, gate in ((False, _ERF), (True, _TANH)):
        for pattern in _products(gate):
            kind = type("TanhGelu" if is_tanh else "ErfGelu", (GeluOf,), {"root": pattern, "tanh": is_tanh})
            found.append(kind())
    return found


_RULES = _rules()


@dataclass(frozen=True)
class FuseGelu(Pass):
    """Fuse the erf and tanh spellings of GELU into Gelu, from opset 20 on.

    The algebra and limits stand with the rule `GeluOf`. onnxruntime fuses the erf form itself when it loads a
    model, but not the tanh form, nor either once Q and DQ stand inside it.

    Attributes:
        raise_opset: raise the opset to 20, if that is safe (`raise-opset`).
    """

    name = "fuse-gelu"
    exact = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        return fuse_all(model, ctx, _RULES, raising=self.raise_opset)
