# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic that moves elements: Gather, Slice, Concat, Squeeze, Reshape, Split and kin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import expr
from .expr import Dim
from .node_view import MAX_ELEMENTS, Data, NodeView, objects

_LARGEST = (2**31 - 1, 2**63 - 1)


def open_contents(view: NodeView, index: int) -> Data | None:
    """Unknown contents of known small shape, so that the known part of the other operands survives."""
    dims = view.dims(index)
    if dims is None or not all(isinstance(d, int) for d in dims) or len(dims) > 1:
        return None
    sizes = [d for d in dims if isinstance(d, int)]
    count = sizes[0] if sizes else 1
    return objects([None] * count, sizes) if count <= MAX_ELEMENTS else None


def known_or_open(view: NodeView, index: int) -> Data | None:
    """Known contents, or open ones of known small shape."""
    found = view.contents(index)
    return found if found is not None else open_contents(view, index)


def gather(view: NodeView) -> Data | None:
    """Gather of known indices."""
    data, indices = view.contents(0), view.contents(1)
    axis = view.int("axis", 0)
    if data is None or indices is None or view.int_list(1) is None:
        return None
    if not -data.ndim <= axis < data.ndim:
        return None
    size = data.shape[axis]
    wanted = indices.astype(np.int64)
    if ((wanted < -size) | (wanted >= size)).any():
        return None
    return np.asarray(np.take(data, wanted, axis=axis), dtype=np.object_)


def slice_parameters(view: NodeView) -> list[tuple[int, Dim, Dim, int]] | None:
    """(axis, start, end, step) per sliced axis, from attributes before opset 10 and from inputs after.

    None also where onnxruntime and the standard differ: backwards to the largest number, which the one takes
    for past the first element and the other for past the last.
    """
    if view.version < 10:
        starts: Sequence[Dim] | None = view.ints("starts")
        ends: Sequence[Dim] | None = view.ints("ends")
        axes, steps = view.ints("axes"), None
    else:
        starts, ends = view.vector(1), view.vector(2)
        axes, steps = view.int_list(3), view.int_list(4)
        if (view.has(3) and axes is None) or (view.has(4) and steps is None):
            return None
    if starts is None or ends is None:
        return None
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    found = list(zip(axes, starts, ends, steps, strict=True))
    return None if any(step < 0 and end in _LARGEST for _, _, end, step in found) else found


def slice_(view: NodeView) -> Data | None:
    """Slice with numbers for bounds."""
    data, parameters = view.contents(0), slice_parameters(view)
    if data is None or parameters is None:
        return None
    index: list[slice] = [slice(None)] * data.ndim
    for axis, start, end, step in parameters:
        if (
            not (isinstance(start, int) and isinstance(end, int))
            or step == 0
            or not -data.ndim <= axis < data.ndim
        ):
            return None
        index[axis] = python_slice(start, end, step, data.shape[axis])
    return data[tuple(index)]


def python_slice(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice with ONNX's clamping: backwards, bounds below 0 are 0 and past the first."""
    if step > 0:
        return slice(start, end, step)
    return slice(max(start, -size), None if end < -size else end, step)


def concat(view: NodeView) -> Data | None:
    """Concat; parts of known size but unknown contents stay open."""
    parts = [known_or_open(view, index) for index in range(len(view.inputs))]
    whole = [part for part in parts if part is not None]
    axis = view.int("axis", 0)
    if len(whole) != len(parts) or not whole or any(part.ndim != whole[0].ndim for part in whole):
        return None
    if not -whole[0].ndim <= axis < whole[0].ndim:
        return None
    others = {(*part.shape[: axis % part.ndim], *part.shape[axis % part.ndim + 1 :]) for part in whole}
    return np.concatenate(whole, axis=axis) if len(others) == 1 else None


def squeeze(view: NodeView) -> Data | None:
    """Squeeze; None for an empty list of axes, which is read as none of them and as all."""
    data = view.contents(0)
    axes = view.ints_at(1, "axes")
    if data is None or (view.has(1) and axes is None) or (axes is not None and not axes):
        return None
    chosen = (
        {a % data.ndim for a in axes}
        if axes and data.ndim
        else {i for i, n in enumerate(data.shape) if n == 1}
    )
    if any(data.shape[a] != 1 for a in chosen):
        return None
    return data.reshape(tuple(n for i, n in enumerate(data.shape) if i not in chosen))


def unsqueeze(view: NodeView) -> Data | None:
    """Unsqueeze."""
    data, axes = view.contents(0), view.ints_at(1, "axes")
    if data is None or axes is None:
        return None
    rank = data.ndim + len(axes)
    places = {a % rank for a in axes if -rank <= a < rank}
    if len(places) != len(axes):
        return None
    sizes = iter(data.shape)
    return data.reshape(tuple(1 if i in places else next(sizes) for i in range(rank)))


def reshape(view: NodeView) -> Data | None:
    """Reshape to numbers."""
    data, target = view.contents(0), view.ints_at(1, "shape")
    if data is None or target is None or data.size == 0 or view.int("allowzero", 0):
        return None
    if any(n == 0 and i >= data.ndim for i, n in enumerate(target)):
        return None
    sizes = [data.shape[i] if n == 0 else n for i, n in enumerate(target)]
    rest = int(np.prod([n for n in sizes if n != -1]))
    fits = data.size % rest == 0 if sizes.count(-1) == 1 else -1 not in sizes and rest == data.size
    return data.reshape(tuple(sizes)) if rest > 0 and fits else None


def expand(view: NodeView) -> Data | None:
    """Expand to numbers."""
    data, sizes = view.contents(0), view.int_list(1)
    if data is None or sizes is None or int(np.prod(sizes)) > MAX_ELEMENTS:
        return None
    try:
        shape = np.broadcast_shapes(data.shape, tuple(sizes))
    except ValueError:
        return None  # not a broadcast that can run
    return np.broadcast_to(data, shape) if int(np.prod(shape)) <= MAX_ELEMENTS else None


def transpose(view: NodeView) -> Data | None:
    """Transpose."""
    data, perm = view.contents(0), view.ints("perm")
    if data is None or (perm is not None and sorted(perm) != list(range(data.ndim))):
        return None
    return np.transpose(data, perm)


def split_sizes(view: NodeView, size: Dim, outputs: int) -> Sequence[Dim] | None:
    """Sizes of the parts a Split makes of an axis of ``size``."""
    given = view.vector(1) if view.has(1) else view.ints("split")
    if view.has(1) and given is None:
        return None
    if given is not None:
        return list(given)
    if isinstance(size, int):
        part = -(-size // outputs)
        return [min(part, max(size - part * i, 0)) for i in range(outputs)]
    exact = expr.div(size, outputs) if expr.mod(size, outputs) == 0 else None
    return None if exact is None else [exact] * outputs


def split(view: NodeView) -> list[Data | None] | None:
    """Split."""
    data, axis = view.contents(0), view.int("axis", 0)
    if data is None or not -data.ndim <= axis < data.ndim:
        return None
    sizes = split_sizes(view, data.shape[axis], view.outputs)
    if sizes is None or not all(isinstance(n, int) for n in sizes):
        return None
    numbers = [n for n in sizes if isinstance(n, int)]
    if sum(numbers) != data.shape[axis] or len(numbers) != view.outputs:
        return None
    return list(np.split(data, np.cumsum(numbers)[:-1], axis=axis))


def identity(view: NodeView) -> Data | None:
    """The input itself."""
    return view.contents(0)
