# SPDX-License-Identifier: Apache-2.0
"""LSTM and GRU with their default activations, step by step (ONNX specification, LSTM and GRU)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .call import Call, Function

Step = Callable[[Tensor, "tuple[Tensor, ...]"], "tuple[Tensor, ...]"]


def _check(call: Call) -> None:
    for name in ("activations", "activation_alpha", "activation_beta", "clip"):
        if name in call.attrs:
            raise call.refuse(f"attribute {name}")
    if call.has(4) and any(n != call.x().shape[call.int("layout", 0)] for n in call.contents(4) or []):
        raise call.refuse("sequences of different lengths")
    if call.int("layout", 0):
        raise call.refuse("layout 1")


def _directions(call: Call) -> list[bool]:
    """Per direction, whether it runs backwards."""
    return {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[
        call.string("direction", "forward")
    ]


def _run(call: Call, make: Callable[[int], Step], states: int) -> list[Tensor]:
    """All steps in all directions: Y, then the last of each state."""
    x = call.x()
    hidden = call.x(2).shape[-1]
    every: list[Tensor] = []
    last: list[tuple[Tensor, ...]] = []
    for d, backwards in enumerate(_directions(call)):
        step = make(d)
        state = tuple(
            call.x(5 + s)[d] if call.has(5 + s) else x.new_zeros([x.shape[1], hidden]) for s in range(states)
        )
        times = range(x.shape[0])
        outputs: list[Tensor] = []
        for t in reversed(times) if backwards else times:
            state = step(x[t], state)
            outputs.append(state[0])
        every.append(torch.stack(outputs[::-1] if backwards else outputs))
        last.append(state)
    ends = [torch.stack([state[s] for state in last]) for s in range(states)]
    return [torch.stack(every, dim=1), *ends][: call.outputs]


def _bias(call: Call, d: int, gates: int, hidden: int) -> tuple[Tensor, Tensor]:
    if not call.has(3):
        zero = call.x().new_zeros([gates * hidden])
        return zero, zero
    both = call.x(3)[d]
    return both[: gates * hidden], both[gates * hidden :]


def _lstm(call: Call) -> list[Tensor]:
    _check(call)
    if call.has(7) or call.int("input_forget", 0):
        raise call.refuse("peepholes or coupled gates")

    def make(d: int) -> Step:
        w, r = call.x(1)[d].transpose(0, 1), call.x(2)[d].transpose(0, 1)
        first, second = _bias(call, d, 4, r.shape[0])

        def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = state
            i, o, f, g = torch.split(x @ w + h @ r + (first + second), r.shape[0], dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c

        return step

    return _run(call, make, 2)


def _gru(call: Call) -> list[Tensor]:
    _check(call)
    is_linear = call.int("linear_before_reset", 0)

    def make(d: int) -> Step:
        w, r = call.x(1)[d].transpose(0, 1), call.x(2)[d].transpose(0, 1)
        n = r.shape[0]
        first, second = _bias(call, d, 3, n)

        def step(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (h,) = state
            xz, xr, xh = torch.split(x @ w + first, n, dim=1)
            hz, hr = torch.split(h @ r[:, : 2 * n] + second[: 2 * n], n, dim=1)
            z, reset = torch.sigmoid(xz + hz), torch.sigmoid(xr + hr)
            if is_linear:
                new = torch.tanh(xh + reset * (h @ r[:, 2 * n :] + second[2 * n :]))
            else:
                new = torch.tanh(xh + (reset * h) @ r[:, 2 * n :] + second[2 * n :])
            return ((1 - z) * new + z * h,)

        return step

    return _run(call, make, 1)


TABLE: dict[str, Function] = {"GRU": _gru, "LSTM": _lstm}
