# SPDX-License-Identifier: Apache-2.0
"""Normalisations, with the statistics of inference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Function


def _per_channel(value: Tensor, rank: int) -> Tensor:
    return value.reshape([1, -1, *[1] * (rank - 2)])


def _standardised(x: Tensor, axes: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = torch.mean(x, dim=axes, keepdim=True)
    variance = torch.mean((x - mean) * (x - mean), dim=axes, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    return (x - mean) * inverse, mean, inverse


def _batch_norm(call: Call) -> Tensor:
    x = call.x()
    if call.int("training_mode", 0) or call.outputs > 1:
        raise call.refuse("it is in training mode")
    scale, shift, mean, variance = (_per_channel(call.x(i), x.dim()) for i in range(1, 5))
    return (x - mean) * (scale * torch.rsqrt(variance + call.float("epsilon", 1e-5))) + shift


def _instance_norm(call: Call) -> Tensor:
    x = call.x()
    made, _, _ = _standardised(x, list(range(2, x.dim())), call.float("epsilon", 1e-5))
    return made * _per_channel(call.x(1), x.dim()) + _per_channel(call.x(2), x.dim())


def _layer_norm(call: Call) -> list[Tensor]:
    x = call.x()
    axes = list(range(call.axis(x.dim(), -1), x.dim()))
    made, mean, inverse = _standardised(x, axes, call.float("epsilon", 1e-5))
    made = made * call.x(1)
    bias = call.maybe(2)
    return [made if bias is None else made + bias, mean, inverse][: call.outputs]


def _rms_norm(call: Call) -> Tensor:
    x = call.x()
    axes = list(range(call.axis(x.dim(), -1), x.dim()))
    square = torch.mean(x * x, dim=axes, keepdim=True)
    return x * torch.rsqrt(square + call.float("epsilon", 1e-5)) * call.x(1)


def _group_norm(call: Call) -> Tensor:
    x, groups = call.x(), call.int("num_groups", 1)
    split = x.reshape([x.shape[0], groups, -1])
    made = _standardised(split, [2], call.float("epsilon", 1e-5))[0].reshape(x.shape)
    scale, shift = call.x(1), call.x(2)
    if scale.numel() != x.shape[1]:  # one for each group, before opset 21
        scale, shift = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, shift))
    return made * _per_channel(scale, x.dim()) + _per_channel(shift, x.dim())


def _lp_norm(call: Call) -> Tensor:
    x, p = call.x(), call.int("p", 2)
    size = torch.sum(torch.abs(x) if p == 1 else x * x, dim=[call.int("axis", -1)], keepdim=True)
    return x / (size if p == 1 else torch.sqrt(size))


def _lrn(call: Call) -> Tensor:
    x, size = call.x(), call.int("size", 1)
    squares = functional.pad(
        (x * x).flatten(2).unsqueeze(1), [0, 0, (size - 1) // 2, size - 1 - (size - 1) // 2]
    )
    total = squares.squeeze(1).unfold(1, size, 1).sum(-1).reshape(x.shape)
    base = call.float("bias", 1.0) + call.float("alpha", 1e-4) / size * total
    return x / torch.pow(base, call.float("beta", 0.75))


def _mean_variance(call: Call) -> Tensor:
    return _standardised(call.x(), call.ints("axes") or [0, 2, 3], 1e-9)[0]


TABLE: dict[str, Function] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
}
