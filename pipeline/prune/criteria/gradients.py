# SPDX-License-Identifier: Apache-2.0
"""Weights times gradients, gathered per atom."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

import numpy as np

from ....graph_ir import DataError, Value
from .base import Request, Scores
from .losses import find_loss
from .roles import Role, WeightSlice, slices

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ....analysis.coupling import Group

_PREFERRED: tuple[tuple[Role, ...], ...] = (("in",), ("out", "bias"), ("gamma", "beta", "other"))


def averaged(
    request: Request,
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    name: str,
    loss: str,
    probes: int,
) -> Scores:
    """Per group and atom, the mean over feeds of ``combine(sum of measure(w * g))``.

    An atom's weights are the columns that read it: what they multiply is all that a cut takes away, so the
    sum of their ``w * g`` is the loss's first-order change by it, biases and normalisations included.
    Where no constant reads a group (the dimensions of an attention score) it is the rows that make it, and
    else what scales it. A weight that is read twice is counted once: its gradient holds both.

    Args:
        request: each of its feeds is run `probes` times, its seed draws, and its progress is told how many
            runs are done.
        measure: takes ``w * g``, ``[positions, numbers]``, and gives ``[positions]``.
        combine: takes the sums ``[atoms]`` of one run.
        name: of the criterion.
        loss: see `losses.find_loss`.
        probes: runs of each feed, with new signs; 1 for a loss that draws nothing.

    Raises:
        UsageError: torch is missing or lacks an operator, or the loss does not fit.
        DataError: a feed does not fit, or there are none.
    """
    from ....calibration.torch_graph import TorchModel

    function = find_loss(loss)
    model, coupling, samples = request.model, request.coupling, request.samples(name)
    what = f"criterion {name!r}"
    runner = TorchModel(model, what=what)
    parts = {group.name: _parts(group) for group in coupling.groups}
    weights = {part.value.name or "": part.array for each in parts.values() for part in each}
    outputs = [value.name or "" for value in model.graph.outputs]
    totals: Scores = {group.name: np.zeros(group.atoms) for group in coupling.groups}
    runs = 0
    for feed in samples:
        for _ in range(probes):
            found = runner.values(feed, [*dict.fromkeys([*outputs, *weights])])
            result = function([found[name] for name in outputs], feed, request.seed + runs)
            products = _products(result, found, weights)
            for group in coupling.groups:
                sums = np.zeros(group.atoms)
                for part in parts[group.name]:
                    product = products[part.value.name or ""]
                    rows = np.moveaxis(product, part.axis, 0).reshape(product.shape[part.axis], -1)
                    mine = part.atom_of >= 0
                    np.add.at(sums, part.atom_of[mine], measure(rows)[mine])
                totals[group.name] += combine(sums)
            runs += 1
            if request.progress is not None:
                request.progress(runs, len(samples) * probes if isinstance(samples, Sized) else None)
    if not runs:
        raise DataError(f"{what} needs samples, and the data has none")
    return {name: total / runs for name, total in totals.items()}


def _parts(group: Group) -> list[WeightSlice]:
    found = slices(group)
    for roles in _PREFERRED:
        chosen: dict[tuple[Value, int], WeightSlice] = {}
        for part in found:
            if part.role in roles:
                chosen.setdefault((part.value, part.axis), part)
        if chosen:
            return list(chosen.values())
    return []


def _products(
    loss: Tensor, found: dict[str, Tensor], weights: dict[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """By weight, ``w * g`` in the layout its reader sees; zero where the loss does not depend on it."""
    import torch

    names = [name for name in weights if found[name].requires_grad]
    # A loss that depends on no weight at all has no gradients, which is not an error of the model.
    grads = (
        torch.autograd.grad(loss, [found[name] for name in names], allow_unused=True)
        if names and loss.requires_grad
        else [None] * len(names)
    )
    products = {name: np.zeros(np.shape(array)) for name, array in weights.items()}
    for name, grad in zip(names, grads, strict=True):
        if grad is not None:
            products[name] = np.asarray(weights[name], np.float64) * grad.numpy().astype(np.float64)
    return products
