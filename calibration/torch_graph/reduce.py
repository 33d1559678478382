# SPDX-License-Identifier: Apache-2.0
"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .call import Call, Function

Reduction = Callable[[Tensor, "list[int]", bool], Tensor]


def _reduce(function: Reduction) -> Function:
    def run(call: Call) -> Tensor:
        x = call.x()
        axes = call.ints_at(1, "axes")
        if not axes:
            if call.int("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.dim()))
        return (
            function(x, sorted({a % x.dim() for a in axes}), bool(call.int("keepdims", 1))) if x.dim() else x
        )

    return run


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, dim=axes, keepdim=keep)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.mean(x, dim=axes, keepdim=keep)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in reversed(axes):
        x = torch.prod(x, dim=axis, keepdim=keep)
    return x


def _largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amax(x, dim=axes, keepdim=keep)


def _smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.amin(x, dim=axes, keepdim=keep)


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sqrt(_sum(x * x, axes, keep))


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x, dim=axes, keepdim=keep)


def _arg(*, largest: bool) -> Function:
    def run(call: Call) -> Tensor:
        x = call.x()
        axis, keep = call.axis(x.dim(), 0), bool(call.int("keepdims", 1))
        last = call.int("select_last_index", 0)
        flipped = torch.flip(x, [axis]) if last else x
        function = torch.argmax if largest else torch.argmin
        found = function(flipped, dim=axis, keepdim=keep)
        return x.shape[axis] - 1 - found if last else found

    return run


def _cum_sum(call: Call) -> Tensor:
    x, axis = call.x(), int(call.x(1).item())
    if call.int("reverse", 0):
        x = torch.flip(x, [axis])
    made = torch.cumsum(x, axis)
    if call.int("exclusive", 0):
        made = made - x
    return torch.flip(made, [axis]) if call.int("reverse", 0) else made


def _top_k(call: Call) -> list[Tensor]:
    k = int(call.x(1).item()) if call.has(1) else call.int("k", 1)
    x = call.x()
    axis, largest = call.axis(x.dim(), -1), bool(call.int("largest", 1))
    # A stable sort: of equal values the first comes first, as the operator asks for.
    values, found = torch.sort(x, dim=axis, descending=largest, stable=True)
    return [values.narrow(axis, 0, k), found.narrow(axis, 0, k)]


TABLE: dict[str, Function] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "CumSum": _cum_sum,
    "ReduceL1": _reduce(lambda x, axes, keep: _sum(torch.abs(x), axes, keep)),
    "ReduceL2": _reduce(_norm),
    "ReduceLogSum": _reduce(lambda x, axes, keep: torch.log(_sum(x, axes, keep))),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ReduceMax": _reduce(_largest),
    "ReduceMean": _reduce(_mean),
    "ReduceMin": _reduce(_smallest),
    "ReduceProd": _reduce(_prod),
    "ReduceSum": _reduce(_sum),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: _sum(x * x, axes, keep)),
    "TopK": _top_k,
}
