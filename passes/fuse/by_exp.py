# SPDX-License-Identifier: Apache-2.0
"""Elu, Selu, Mish and tanh(softplus) by one exponential and arithmetic."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import numpy as np

from ...graph_ir import DataType, Model, Rewriter, Value
from ...graph_ir.ops import dims, float_attr
from ..base import Context, Exactness, Pass
from ..driver import apply_rules
from ..pattern import Match, Miss, Op, Rule, op, var

_SINCE = 8  # from which on Min takes operands of two shapes
_LEAST = 8192  # elements below which more nodes cost as much as they bring
_OPEN = 32  # what a size that is not known counts for; the first, of samples, for 1
_ONE_FROM = 20.0  # where tanh(softplus(x)) is 1 in float32
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


class ExponentialUnit(Rule):
    """Elu(x) = max(x, 0) + alpha (exp(min(x, 0)) - 1); Selu(x) = gamma times that.

    Below 0 the first term is 0, above it the second. Not valid below opset 8, where Min broadcasts nothing.
    Not done: other types than float32, and fewer than 8,192 elements.
    """

    root: ClassVar[Op] = op(("Elu", "Selu"), var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The sum of both terms."""
        if (reason := _unfit(m["x"], rw.opset(m.root))) is not None:
            return Miss(reason)
        selu = m.root.op_type == "Selu"
        alpha = float_attr(m.root, "alpha", _SELU[0] if selu else 1.0)
        gamma = float_attr(m.root, "gamma", _SELU[1]) if selu else 1.0
        spell = _Spelling(m, rw)
        grown = spell("Exp", spell("Min", m["x"], 0.0))
        below = spell("Sub", grown, 1.0)
        if alpha * gamma != 1.0:
            below = spell("Mul", below, alpha * gamma)
        above = spell("Relu", m["x"])
        return spell("Add", above if gamma == 1.0 else spell("Mul", above, gamma), below)


class TanhOfSoftplus(Rule):
    """tanh(log(1 + e)) = g / (g + 2), e = exp(x), g = e (e + 2); Mish(x) = x times that.

    tanh(log(a)) = (a^2 - 1) / (a^2 + 1), and (1 + e)^2 - 1 = g. From x = 20 on both are 1 in float32; so
    min(x, 20) is raised, whose g is finite. Nothing cancels. Not done: as with `ExponentialUnit`; others read
    the Softplus.
    """

    softplus: ClassVar[Op] = op("Softplus", var("x"))
    root: ClassVar[Op] = op("Tanh", softplus)

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The quotient."""
        if (reason := _unfit(m["x"], rw.opset(m.root))) is not None:
            return Miss(reason)
        return _quotient(m["x"], _Spelling(m, rw))


class MishByExp(Rule):
    """Mish(x) = x tanh(softplus(x)), by the algebra and within the limits of `TanhOfSoftplus`."""

    root: ClassVar[Op] = op("Mish", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss:
        """The product."""
        if (reason := _unfit(m["x"], rw.opset(m.root))) is not None:
            return Miss(reason)
        spell = _Spelling(m, rw)
        return spell("Mul", m["x"], _quotient(m["x"], spell))


class _Spelling:
    """Makes the nodes in place of the match's root."""

    def __init__(self, m: Match, rw: Rewriter) -> None:
        self._root, self._rw = m.root, rw

    def __call__(self, op_type: str, *operands: Value | float) -> Value:
        name = f"{self._root.name or self._root.op_type}_{op_type.lower()}"
        inputs = [
            each
            if isinstance(each, Value)
            else self._rw.constant(np.array(each, np.float32), f"{name}_by", self._root)
            for each in operands
        ]
        return self._rw.node(op_type, inputs, before=self._root, name=name).outputs[0]


def _quotient(x: Value, spell: _Spelling) -> Value:
    grown = spell("Exp", spell("Min", x, _ONE_FROM))
    product = spell("Mul", grown, spell("Add", grown, 2.0))
    return spell("Div", product, spell("Add", product, 2.0))


def _unfit(x: Value, opset: int) -> str | None:
    if opset < _SINCE:
        return f"needs opset {_SINCE}"
    if x.dtype != DataType.FLOAT:
        return "not known to be float32"
    sizes = dims(x)
    if sizes is None:
        return "its rank is not known"
    counted = [size if isinstance(size, int) else _OPEN if axis else 1 for axis, size in enumerate(sizes)]
    return None if prod(counted) >= _LEAST else "few elements"


class ActivationsByExp(Pass):
    """Compute Elu, Selu, Mish and tanh(softplus) by one exponential and arithmetic.

    The algebra and limits stand with the rules `ExponentialUnit`, `TanhOfSoftplus` and `MishByExp`. It needs
    shapes and types (`infer-shapes`).

    onnxruntime's CPU kernels compute Exp by vectors of their own, but not what Elu and Softplus raise: an Elu
    takes 2.5 times as long, a Mish eleven times. For the end of a pipeline and for that runtime.
    """

    name: ClassVar[str] = "activations-by-exp"
    exact: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: Model, ctx: Context) -> bool:
        """Apply the rules until they fire no more."""
        return apply_rules(model, ctx, [ExponentialUnit(), TanhOfSoftplus(), MishByExp()])
