# SPDX-License-Identifier: Apache-2.0
"""HardSigmoid and HardSwish from the Add, Clip, Mul and Div exporters spell them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph_ir import DataType, Model, Rewriter, Value
from ...graph_ir.ops import float_attr, is_op
from ..base import Context, Exactness, Pass
from ..pattern import Match, Miss, Op, Pattern, commute, const, either, maybe, op, var
from .activations import Fusion, exact, float_type, fuse_all, keeps_rank, near
from .clamp import clamp_of

_X = var("x")
_ALPHA = 1 / 6


def _relu6(inner: Pattern) -> tuple[Op, ...]:
    """The spellings of min(max(inner, 0), 6): Clip, Min(Max), Max(Min), Min(Relu)."""
    low, high = near("zero", 0.0), near("six", 6.0)
    return (
        op("Clip", inner, maybe(const("low")), maybe(const("high"))),
        commute("Min", op("Relu", inner), high),
        commute("Min", commute("Max", inner, low), high),
        commute("Max", commute("Min", inner, high), low),
    )


_CLIPS = either(*_relu6(commute("Add", _X, near("three", 3.0))))
_SIX, _SIXTH = near("six2", 6.0), near("sixth", _ALPHA)


class _Hard(Fusion):
    """What both fusions check: constants exact, the clip from 0 to 6, no rank raised, float or half."""

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        x = m["x"]
        dtype = float_type(x, m.root.outputs[0], DataType.FLOAT, DataType.FLOAT16)
        if isinstance(dtype, Miss):
            return dtype
        if not exact(m, dtype, zero=0.0, three=3.0, six=6.0, six2=6.0, sixth=_ALPHA):
            return Miss("other constants")
        if not keeps_rank(m, x, "zero", "three", "six", "six2", "sixth"):
            return Miss("a constant raises the rank")
        for node in m.nodes.values():
            if is_op(node, "Clip"):
                clamp = clamp_of(node, dtype)
                if isinstance(clamp, Miss):
                    return clamp
                if (float(clamp.low), float(clamp.high)) != (0.0, 6.0):
                    return Miss("other constants")
            elif is_op(node, "HardSigmoid"):
                alpha, beta = float_attr(node, "alpha", 0.2), float_attr(node, "beta", 0.5)
                if abs(alpha - _ALPHA) > 2.0**-22 * _ALPHA or beta != 0.5:
                    return Miss("other constants")
        return None


class HardSigmoidOf(_Hard):
    """clip(x + 3, 0, 6) / 6 = HardSigmoid(x) with alpha 1/6 and beta 1/2; or times 1/6.

    Not valid: constants off by more than a rounding; double (alpha is a float attribute); integers.
    """

    since: ClassVar[int] = 6
    root = op("Div", _CLIPS, _SIX)

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One HardSigmoid."""
        return _hard_sigmoid(m, rw)


class HardSigmoidOfMul(HardSigmoidOf):
    """clip(x + 3, 0, 6) * (1/6); as `HardSigmoidOf`."""

    root = commute("Mul", _CLIPS, _SIXTH)


class HardSwishOf(_Hard):
    """x * clip(x + 3, 0, 6) / 6 = HardSwish(x); below opset 14, x * HardSigmoid(x).

    Not valid as `HardSigmoidOf`. Where x * clip overflows before it is divided, the fused operator does not.
    """

    since: ClassVar[int] = 6
    root = op("Div", commute("Mul", _X, _CLIPS), _SIX)

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One HardSwish, or HardSigmoid and Mul."""
        if rw.opset(m.root) >= 14:
            return rw.node("HardSwish", [m["x"]], before=m.root).outputs[0]
        return rw.node("Mul", [m["x"], _hard_sigmoid(m, rw)], before=m.root).outputs[0]


class HardSwishOfMul(HardSwishOf):
    """x * clip(x + 3, 0, 6) * (1/6), in any grouping; or x / 6 * clip(x + 3, 0, 6); as `HardSwishOf`."""

    root = commute(
        "Mul",
        either(commute("Mul", _X, _CLIPS), commute("Mul", _X, _SIXTH), op("Div", _X, _SIX)),
        either(_SIXTH, _CLIPS),
    )

    def decline(self, m: Match) -> Miss | None:
        """Why not, if so."""
        clips = sum(is_op(n, "Clip", "Min", "Max") for n in m.nodes.values())
        scaled = m.get("sixth") is not None or m.get("six2") is not None
        return super().decline(m) if clips and scaled else Miss("other factors")


class HardSwishOfSigmoid(_Hard):
    """x * HardSigmoid(x) = HardSwish(x), where alpha is 1/6 and beta 1/2; from opset 14 on."""

    since: ClassVar[int] = 14
    root = commute("Mul", _X, op("HardSigmoid", _X))

    def fuse(self, m: Match, rw: Rewriter) -> Value:
        """One HardSwish."""
        return rw.node("HardSwish", [m["x"]], before=m.root).outputs[0]


@dataclass(frozen=True)
class FuseHardSwish(Pass):
    """Fuse Add, Clip, Mul and Div (or Min and Max, or HardSigmoid) into HardSwish, or into HardSigmoid alone.

    The algebra and limits stand with the rules. Below opset 14 the result is HardSigmoid and Mul, which
    HardSwish is defined as. Run it before Q/DQ goes in: the spelled-out form breaks a runtime's blocked
    layouts.

    Attributes:
        raise_opset: raise the opset to 14 for x * HardSigmoid(x), if that is safe (`raise-opset`).
    """

    name = "fuse-hard-swish"
    exact = Exactness.ROUNDING

    raise_opset: bool = False

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until none fires."""
        rules = [HardSwishOf(), HardSwishOfMul(), HardSigmoidOf(), HardSigmoidOfMul(), HardSwishOfSigmoid()]
        return fuse_all(model, ctx, rules, raising=self.raise_opset)


def _hard_sigmoid(m: Match, rw: Rewriter) -> Value:
    return rw.node("HardSigmoid", [m["x"]], {"alpha": _ALPHA, "beta": 0.5}, before=m.root).outputs[0]
