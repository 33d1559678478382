# SPDX-License-Identifier: Apache-2.0
"""Make a model's weights sparse, with or without data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....analysis.shapes import infer_shapes
from ....graph_ir import DataError, Model, Rewriter, UsageError
from ....graph_ir.ops import label
from ....passes.prune.masks import Mask, count, outside_pattern, smallest_of_each_row
from ....passes.prune.sparse_layers import Layer, Left, find_layers, put_weights
from ....passes.prune.sparsity import global_masks, magnitude_mask, why_not_finite, zero
from .inputs import Samples, hessian_bytes, hessians, squares, why_not_measured
from .options import SparsityOptions
from .report import LayerZeros, SparsityReport, gain, gzip_size
from .sparsegpt import output_error, prune_rows

Wide = NDArray[np.float64]

BUDGET = 512 << 20  # bytes of Hessians kept at once; layers beyond are measured on what is sparse by then


def sparsify(model: Model, options: SparsityOptions, feeds: Samples | None = None) -> SparsityReport:
    """Set weights of Conv, ConvTranspose, Gemm and MatMul to zero, in place.

    - magnitude: the smallest weights of each layer, or of all (Han et al. 2015).
    - wanda: in each output row the smallest ``|W_ij| * |X_j|`` (Sun et al. 2023, arXiv:2306.11695), X_j what
      the weight is multiplied by over the data.
    - sparsegpt: see `sparsegpt`; the weights that stay are changed to make up for those that go.

    Args:
        model: edited through the Rewriter; names and signature stay.
        options: how many and which.
        feeds: data for wanda and sparsegpt; gone through once or more, so no iterator.

    Raises:
        UsageError: data is needed and missing, or no weight of the model can be made sparse.
        DataError: the feeds do not fit the model.
    """
    if options.needs_data and feeds is None:
        raise UsageError(
            f"criterion {options.criterion!r} looks at activations; give it data, or take magnitude"
        )
    if isinstance(feeds, Iterator):
        raise DataError("the feeds are an iterator, spent after one pass; give a list or open_feeds")
    infer_shapes(model)
    found, left = find_layers(model, options.exclude)
    layers: list[Layer] = []
    for layer in found:
        reason = _why_not(layer, options, model)
        if reason is None:
            layers.append(layer)
        else:
            left.append(Left(label(layer.uses[0].node), layer.name, reason))
    if not layers:
        why = (
            f": {left[0]}"
            if left
            else ": it has no Conv, ConvTranspose, Gemm or MatMul with constant weights"
        )
        raise UsageError(f"nothing in the model can be made sparse{why}")
    before = gzip_size(model) if options.compress else None
    had = [_zeros(layer.array()) for layer in layers]
    rewriter = Rewriter(model)
    if options.criterion == "magnitude":
        results = _by_magnitude(layers, options, rewriter)
    elif options.criterion == "wanda":
        results = _by_wanda(model, layers, options, feeds or (), rewriter)
    else:
        results = _by_sparsegpt(model, layers, options, feeds or (), rewriter)
    done = tuple(
        LayerZeros(layer.name, tuple(label(use.node) for use in layer.uses), layer.size, zeros, *result)
        for layer, zeros, result in zip(layers, had, results, strict=True)
    )
    after = gzip_size(model) if options.compress else None
    note = gain(options.target, options.pattern)
    return SparsityReport(options.criterion, str(options), done, tuple(left), note, before, after)


def _why_not(layer: Layer, options: SparsityOptions, model: Model) -> str | None:
    pattern = options.runs
    reason = why_not_finite(layer)
    if reason is None and pattern is not None:
        reason = layer.why_not(pattern)
    if reason is None and options.needs_data:
        is_hessian = options.criterion == "sparsegpt"
        reason = why_not_measured(layer, model, hessian=is_hessian) or layer.why_not_rows()
    return reason


def _zeros(array: NDArray[Any]) -> int:
    return array.size - int(np.count_nonzero(array))


_Result = tuple[int, "float | None"]  # zeros after, and the error where it was measured


def _by_magnitude(layers: Sequence[Layer], options: SparsityOptions, rewriter: Rewriter) -> Iterator[_Result]:
    share = options.sparsity or 0.0
    if options.scope == "global":
        masks = global_masks(layers, share)
    else:
        masks = (magnitude_mask(layer, share, options.runs) for layer in layers)
    for layer, mask in zip(layers, masks, strict=True):
        yield _masked(layer, mask, rewriter), None


def _by_wanda(
    model: Model, layers: Sequence[Layer], options: SparsityOptions, feeds: Samples, rewriter: Rewriter
) -> Iterator[_Result]:
    sizes = squares(model, feeds, layers, seed=options.seed)
    for layer, square in zip(layers, sizes, strict=True):
        index = layer.positions().reshape(len(square), -1, layer.row)  # [groups, rows, row]
        scores = np.abs(_flat(layer)[index]) * np.sqrt(square)[:, np.newaxis]
        rows = scores.reshape(-1, layer.row)
        pattern = options.runs
        if pattern is None:
            chosen = smallest_of_each_row(rows, count(options.sparsity or 0.0, layer.row))
        else:
            chosen = outside_pattern(rows, pattern)
        mask: Mask = np.zeros(layer.size, np.bool_)
        mask[index.reshape(chosen.shape)] = chosen
        yield _masked(layer, mask.reshape(layer.shape), rewriter), None


def _by_sparsegpt(
    model: Model, layers: Sequence[Layer], options: SparsityOptions, feeds: Samples, rewriter: Rewriter
) -> Iterator[_Result]:
    for group in _grouped(layers):
        for layer, found in zip(group, hessians(model, feeds, group, seed=options.seed), strict=True):
            index = layer.positions().reshape(len(found), -1, layer.row)
            flat = _flat(layer)
            rows = flat[index]
            made = np.stack(
                [
                    prune_rows(
                        rows[g], found[g],
                        share=options.sparsity or 0.0, pattern=options.runs, damping=options.damping,
                    )
                    for g in range(len(found))
                ]
            )  # fmt: skip
            error = output_error(rows, made, found)
            flat[index] = made
            array = flat.reshape(layer.shape).astype(layer.array().dtype)
            put_weights(layer, array, rewriter)
            yield _zeros(array), error


def _grouped(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Layers in order, cut where their Hessians would pass the budget."""
    group: list[Layer] = []
    held = 0
    for layer in layers:
        size = hessian_bytes(layer)
        if group and held + size > BUDGET:
            yield group
            group, held = [], 0
        group.append(layer)
        held += size
    if group:
        yield group


def _flat(layer: Layer) -> Wide:
    return layer.array().reshape(-1).astype(np.float64)


def _masked(layer: Layer, mask: Mask, rewriter: Rewriter) -> int:
    kept = np.where(mask, 0, layer.array())
    zeros = _zeros(kept)
    zero(layer, mask, rewriter)
    return zeros
