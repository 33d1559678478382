# SPDX-License-Identifier: Apache-2.0
"""Operators on elements, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from ...graph_ir import DataType
from .call import Call, Function, torch_dtype


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda call: function(call.x())


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def run(call: Call) -> Tensor:
        if call.int("broadcast", 0):
            raise call.refuse("it broadcasts as opset 6 did; raise the opset first (tersor opt)")
        return function(call.x(0), call.x(1))

    return run


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    return lambda call: reduce(function, call.all())


def _same(x: Tensor) -> Tensor:
    return x


def _div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _pow(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _mod(call: Call) -> Tensor:
    function = torch.fmod if call.int("fmod", 0) else torch.remainder
    return function(call.x(0), call.x(1))


def _mean(call: Call) -> Tensor:
    return reduce(torch.add, call.all()) / len(call.inputs)


def clip(call: Call) -> Tensor:
    """Bounds are attributes before opset 11."""
    x, low, high = call.x(), call.maybe(1), call.maybe(2)
    if call.version < 11:
        return torch.clamp(x, call.float("min", -torch.inf), call.float("max", torch.inf))
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _leaky_relu(call: Call) -> Tensor:
    return functional.leaky_relu(call.x(), call.float("alpha", 0.01))


def _prelu(call: Call) -> Tensor:
    return torch.where(call.x() < 0, call.x() * call.x(1), call.x())


def _elu(call: Call) -> Tensor:
    x = call.x()
    return torch.where(x < 0, call.float("alpha", 1.0) * torch.expm1(torch.clamp(x, max=0.0)), x)


def _celu(call: Call) -> Tensor:
    return functional.celu(call.x(), call.float("alpha", 1.0))


def _selu(call: Call) -> Tensor:
    x, alpha = call.x(), call.float("alpha", 1.67326319217681884765625)
    bent = torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))
    return call.float("gamma", 1.05070102214813232421875) * bent


def _thresholded_relu(call: Call) -> Tensor:
    return torch.where(call.x() > call.float("alpha", 1.0), call.x(), torch.zeros_like(call.x()))


def _shrink(call: Call) -> Tensor:
    x, edge, bias = call.x(), call.float("lambd", 0.5), call.float("bias", 0.0)
    inside = torch.where(x > edge, x - bias, torch.zeros_like(x))
    return torch.where(x < -edge, x + bias, inside)


def _hard_sigmoid(call: Call) -> Tensor:
    return torch.clamp(call.float("alpha", 0.2) * call.x() + call.float("beta", 0.5), 0.0, 1.0)


def _hard_swish(x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6.0 + 0.5, 0.0, 1.0)


def _gelu(call: Call) -> Tensor:
    return functional.gelu(call.x(), approximate=call.string("approximate", "none"))


def _swish(call: Call) -> Tensor:
    return call.x() * torch.sigmoid(call.float("alpha", 1.0) * call.x())


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Function:
    def run(call: Call) -> Tensor:
        x = call.x()
        if call.version >= 13:
            return function(x, call.int("axis", -1))
        axis = call.axis(x.dim(), 1)  # before opset 13: over all axes from this one on
        return function(x.flatten(axis), axis).reshape(x.shape) if axis < x.dim() else torch.ones_like(x)

    return run


def _cast(call: Call) -> Tensor:
    dtype = torch_dtype(DataType(call.int("to", 1)), wide=call.wide)
    if dtype is None:
        raise call.refuse(f"type {DataType(call.int('to', 1)).name} is unknown there")
    return call.x().to(dtype)


def _where(call: Call) -> Tensor:
    return torch.where(call.x(0), call.x(1), call.x(2))


def _is_inf(call: Call) -> Tensor:
    x = call.x()
    found = torch.isinf(x)
    if not call.int("detect_negative", 1):
        found = found & (x > 0)
    return found if call.int("detect_positive", 1) else found & (x < 0)


def _dropout(call: Call) -> Tensor | list[Tensor]:
    if call.has(2) and bool(call.x(2).item()):
        raise call.refuse("it is in training mode")
    mask = torch.ones_like(call.x(), dtype=torch.bool)
    return [call.x(), mask][: call.outputs]


TABLE: dict[str, Function] = {
    **{
        name: _unary(function)
        for name, function in {
            "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin,
            "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil,
            "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp,
            "Floor": torch.floor, "HardSwish": _hard_swish, "Identity": _same, "IsNaN": torch.isnan,
            "Log": torch.log, "Mish": functional.mish, "Neg": torch.neg, "Not": torch.logical_not,
            "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round,
            "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
            "Softplus": functional.softplus, "Softsign": functional.softsign, "Sqrt": torch.sqrt,
            "Tan": torch.tan, "Tanh": torch.tanh,
        }.items()
    },
    **{
        name: _binary(function)
        for name, function in {
            "Add": torch.add, "And": torch.logical_and, "Div": _div, "Equal": torch.eq,
            "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le,
            "Mul": torch.mul, "Or": torch.logical_or, "Pow": _pow, "Sub": torch.sub,
            "Xor": torch.logical_xor,
        }.items()
    },
    "Cast": _cast, "CastLike": lambda call: call.x().to(call.x(1).dtype),
    "Celu": _celu, "Clip": clip, "Dropout": _dropout, "Elu": _elu, "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid, "IsInf": _is_inf, "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax(torch.log_softmax), "Max": _fold(torch.maximum), "Mean": _mean,
    "Min": _fold(torch.minimum), "Mod": _mod, "PRelu": _prelu, "Selu": _selu, "Shrink": _shrink,
    "Softmax": _softmax(torch.softmax), "Sum": _fold(torch.add), "Swish": _swish,
    "ThresholdedRelu": _thresholded_relu, "Where": _where,
}  # fmt: skip
