# SPDX-License-Identifier: Apache-2.0
"""What gradients are taken of, where there are no labels.

The squared distance of a model to its own outputs has no gradient, but it has a curvature: with J the
derivatives of the outputs, ``|J dw|^2`` is what a change dw of the weights does to them. `output` estimates
it: signs v of +1 and -1, drawn anew for each feed, give ``g = J' v`` and ``E[(g . dw)^2] = |J dw|^2``
(Hutchinson 1990).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ....calibration.functions import load_function, names_function, user_code
from ....graph_ir import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Loss: TypeAlias = "Callable[[Sequence[Tensor], Mapping[str, Any], int], Tensor]"
"""Of the outputs in order, the feed and a seed; a scalar."""

LOSSES = ("output", "cross-entropy")


def find_loss(name: str) -> Loss:
    """A loss by name.

    Args:
        name: ``output`` (see above; each output counts alike), ``cross-entropy`` (against the class the model
            itself ranks first; outputs are ``[samples, classes]``, logits or probabilities), or
            ``module:function``, called with (outputs, feed) and giving a scalar tensor.

    Raises:
        UsageError: there is no such loss or function.
    """
    if name == "output":
        return _output
    if name == "cross-entropy":
        return _cross_entropy
    if not names_function(name):
        raise UsageError(f"no loss is called {name!r}; there are {', '.join(LOSSES)} and module:function")
    function = load_function(name)

    def run(outputs: Sequence[Tensor], feed: Mapping[str, Any], _seed: int) -> Tensor:
        with user_code(f"loss {name!r}"):
            return function(list(outputs), feed)

    return run


def _floats(outputs: Sequence[Tensor]) -> list[Tensor]:
    found = [y for y in outputs if y.is_floating_point() and y.numel()]
    if not found:
        raise UsageError("the model has no floating-point output to take gradients of")
    return found


def _output(outputs: Sequence[Tensor], _feed: Mapping[str, Any], seed: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros([])
    for y in _floats(outputs):
        signs = torch.randint(0, 2, list(y.shape), generator=generator).to(y.dtype) * 2.0 - 1.0
        size = torch.sqrt((y.detach() * y.detach()).sum())  # so that outputs of any unit count alike
        total = total + (signs * y).sum() / torch.clamp(size, min=1e-12)
    return total


def _cross_entropy(outputs: Sequence[Tensor], _feed: Mapping[str, Any], _seed: int) -> Tensor:
    import torch

    total = torch.zeros([])
    for y in _floats(outputs):
        if y.dim() != 2 or y.shape[1] < 2:
            raise UsageError(
                f"cross-entropy wants outputs [samples, classes], not {list(y.shape)}; take output"
            )
        first = torch.argmax(y.detach(), dim=1, keepdim=True)
        sums = y.detach().sum(1)
        is_share = bool((y.detach() >= 0).to(torch.float32).mean().item() == 1.0)
        is_share = is_share and bool(torch.abs(sums - 1.0).mean().item() < 1e-3)
        logs = torch.log(torch.clamp(y, min=1e-12)) if is_share else torch.log_softmax(y, 1)
        total = total - torch.gather(logs, 1, first).mean()
    return total
