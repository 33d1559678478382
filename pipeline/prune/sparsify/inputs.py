# SPDX-License-Identifier: Apache-2.0
"""What the rows of a weight are multiplied by, over data: the columns of X in ``rows @ X``, summed up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ....calibration.collect import visit
from ....graph_ir import DataError, Model
from ....graph_ir.ops import ints_attr, string_attr
from ....passes.prune.sparse_layers import Layer
from ....passes.prune.sparse_rows import Use

Samples = Iterable[Mapping[str, Any]]
Wide = NDArray[np.float64]

ROWS = 1024  # places of one feed and layer that are looked at


def why_not_measured(layer: Layer, model: Model, *, hessian: bool) -> str | None:
    """Why what the layer reads cannot be measured; None when it can."""
    for use in layer.uses:
        if use.node.graph is not model.graph:
            return "its node is in a body or function, where nothing is measured"
        if use.node.op_type == "MatMul" and len(use.read.shape) > 2:
            return "it is a batch of matrices"
        if use.node.op_type == "ConvTranspose" and hessian:
            return "a ConvTranspose sums over other weights at each place of its output"
    return None


def squares(model: Model, feeds: Samples, layers: Sequence[Layer], *, seed: int) -> list[Wide]:
    """Per layer, the sum of squares of what each weight of a row is multiplied by: ``[groups, d]``.

    Raises:
        DataError: a feed does not fit the model, or a value is not finite.
    """
    found = [np.zeros((layer.uses[0].read.groups, layer.row)) for layer in layers]

    def add(index: int, columns: Wide) -> None:
        found[index] += np.einsum("gnd,gnd->gd", columns, columns)

    _gather(model, feeds, layers, add, seed)
    return found


def hessians(model: Model, feeds: Samples, layers: Sequence[Layer], *, seed: int) -> list[Wide]:
    """Per layer, the sum of ``x x'`` over columns x of what a row of d weights reads: ``[groups, d, d]``.

    It is half the Hessian of the squared error of one output with regard to its row. Columns are counted in
    float64; of one feed and layer, up to `ROWS` places drawn by the seed.

    Raises:
        DataError: a feed does not fit the model, or a value is not finite.
    """
    found = [np.zeros((layer.uses[0].read.groups, layer.row, layer.row)) for layer in layers]

    def add(index: int, columns: Wide) -> None:
        found[index] += np.swapaxes(columns, 1, 2) @ columns

    _gather(model, feeds, layers, add, seed)
    return found


def hessian_bytes(layer: Layer) -> int:
    """What `hessians` holds for the layer."""
    return 8 * layer.uses[0].read.groups * layer.row**2


def _gather(model: Model, feeds: Samples, layers: Sequence[Layer], add: Any, seed: int) -> None:
    readers: dict[str, list[tuple[int, Use]]] = {}
    for index, layer in enumerate(layers):
        for use in layer.uses:
            readers.setdefault(use.x.name or "", []).append((index, use))
    seen = dict.fromkeys(readers, 0)

    def action(name: str, array: NDArray[Any]) -> None:
        if not np.isfinite(array).all():
            raise DataError("holds NaN or infinite values")
        rng = np.random.default_rng([seed, crc32(name.encode()), seen[name]])
        seen[name] += 1
        for index, use in readers[name]:
            add(index, columns(use, array, rng))

    if readers:
        visit(model, feeds, list(readers), action)


def columns(use: Use, x: NDArray[Any], rng: np.random.Generator) -> Wide:
    """What the rows of the weight are multiplied by, at up to `ROWS` places: ``[groups, places, d]``.

    Args:
        use: a Conv, Gemm or MatMul of a matrix; of a ConvTranspose each input element counts for each tap.
        x: what the node reads, of one feed.
        rng: draws the places.
    """
    kind = use.node.op_type
    if kind == "Conv":
        return _windows(use, x, rng)
    if kind == "ConvTranspose":
        taps = prod(use.read.shape[2:])
        rows = _drawn(np.moveaxis(x, 1, -1).reshape(-1, use.read.groups, 1, use.read.inputs), rng)
        return np.moveaxis(np.repeat(rows, taps, axis=2).reshape(len(rows), use.read.groups, -1), 1, 0)
    if use.read.in_axis == -2 and x.ndim > 1:
        x = np.moveaxis(x, -2, -1)
    return _drawn(x.reshape(-1, use.read.inputs), rng)[np.newaxis]


def _drawn(rows: NDArray[Any], rng: np.random.Generator) -> Wide:
    if len(rows) > ROWS:
        rows = rows[np.sort(rng.choice(len(rows), ROWS, replace=False))]
    return rows.astype(np.float64)


def _windows(use: Use, x: NDArray[Any], rng: np.random.Generator) -> Wide:
    """The windows a Conv lays its kernel on, in the order of its rows: by place in the kernel, by channel."""
    kernel, count = use.read.shape[2:], x.ndim - 2
    strides = ints_attr(use.node, "strides") or [1] * count
    dilations = ints_attr(use.node, "dilations") or [1] * count
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_pads(use, x.shape[2:], strides, reach)])
    spatial = tuple(range(2, 2 + count))
    views = sliding_window_view(padded, reach, axis=spatial)
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in (*strides, *dilations)))
    views = np.moveaxis(views[steps], 1, 1 + count)  # [n, *places, channels, *kernel]
    places = views.shape[: 1 + count]
    total = prod(places)
    chosen = np.arange(total) if total <= ROWS else np.sort(rng.choice(total, ROWS, replace=False))
    found = views[np.unravel_index(chosen, places)].astype(np.float64)
    split = found.reshape(len(chosen), use.read.groups, use.read.inputs, prod(kernel))
    return np.transpose(split, (1, 0, 3, 2)).reshape(use.read.groups, len(chosen), -1)


def _pads(
    use: Use, size: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> list[tuple[int, int]]:
    padding, count = string_attr(use.node, "auto_pad", "NOTSET"), len(size)
    if padding.startswith("SAME"):
        found: list[tuple[int, int]] = []
        for s, stride, r in zip(size, strides, reach, strict=True):
            total = max(0, (-(-s // stride) - 1) * stride + r - s)
            small = total // 2
            found.append((small, total - small) if padding == "SAME_UPPER" else (total - small, small))
        return found
    pads = (ints_attr(use.node, "pads") or [0] * (2 * count)) if padding == "NOTSET" else [0] * (2 * count)
    return list(zip(pads[:count], pads[count:], strict=True))
