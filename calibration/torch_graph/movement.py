# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without computing with them, and those that make shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...graph_ir import DataType
from .call import Call, Function, torch_dtype


def _reshape(call: Call) -> Tensor:
    x = call.x()
    target = call.ints_at(1, "shape") or []
    if not call.int("allowzero", 0):
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _transpose(call: Call) -> Tensor:
    x = call.x()
    perm = call.ints("perm")
    return x.permute(list(reversed(range(x.dim()))) if perm is None else perm)


def _squeeze(call: Call) -> Tensor:
    x, axes = call.x(), call.ints_at(1, "axes")
    gone = {i for i in range(x.dim()) if x.shape[i] == 1} if axes is None else {a % x.dim() for a in axes}
    return x.reshape([size for i, size in enumerate(x.shape) if i not in gone])


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.x(), call.ints_at(1, "axes") or []
    new = {a % (x.dim() + len(axes)) for a in axes}
    sizes = iter(x.shape)
    return x.reshape([1 if i in new else next(sizes) for i in range(x.dim() + len(axes))])


def _flatten(call: Call) -> Tensor:
    x = call.x()
    axis = call.axis(x.dim(), 1)
    outer = 1
    for size in x.shape[:axis]:
        outer *= size
    return x.reshape([outer, -1] if x.numel() else [outer, 0])


def _concat(call: Call) -> Tensor:
    parts = call.all()
    return torch.cat(parts, dim=call.axis(parts[0].dim(), 1))


def _split(call: Call) -> Sequence[Tensor]:
    x = call.x()
    axis, sizes = call.axis(x.dim(), 0), call.ints_at(1, "split")
    if sizes is None:
        parts = call.int("num_outputs", call.outputs)
        each = -(-x.shape[axis] // parts)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    return torch.split(x, sizes, dim=axis)


def _slice(call: Call) -> Tensor:
    x = call.x()
    starts, ends = call.ints_at(1, "starts") or [], call.ints_at(2, "ends") or []
    axes = call.ints_at(3, "axes") or list(range(len(starts)))
    steps = call.contents(4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        low, high, stride = slice(start, None if step < 0 and end < -size else end, step).indices(size)
        if step == 1:
            x = x.narrow(axis, low, max(0, high - low))
        else:
            x = x.index_select(
                axis, torch.arange(low, high, stride) if (high - low) * stride > 0 else _none()
            )
    return x


def _none() -> Tensor:
    return torch.zeros([0], dtype=torch.int64)


def _gather(call: Call) -> Tensor:
    x, indices = call.x(0), call.x(1).to(torch.int64)
    axis = call.axis(x.dim(), 0)
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    made = x.index_select(axis, flat)
    return made.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(call: Call) -> Tensor:
    x, indices = call.x(0), call.x(1).to(torch.int64)
    axis = call.axis(x.dim(), 0)
    wrapped = torch.where(indices < 0, indices + x.shape[axis], indices)
    return torch.gather(x, axis, wrapped)


def _gather_nd(call: Call) -> Tensor:
    if call.int("batch_dims", 0):
        raise call.refuse("batch_dims")
    x, indices = call.x(0), call.x(1).to(torch.int64)
    return x[tuple(indices.unbind(-1))]


def _scatter_nd(call: Call) -> Tensor:
    if call.string("reduction", "none") != "none":
        raise call.refuse("a reduction")
    return torch.index_put(call.x(0), tuple(call.x(1).to(torch.int64).unbind(-1)), call.x(2))


def _expand(call: Call) -> Tensor:
    x, target = call.x(), call.contents(1) or []
    shape = torch.broadcast_shapes(tuple(x.shape), tuple(target))
    return x.expand(shape)


def _tile(call: Call) -> Tensor:
    return call.x().repeat(call.contents(1) or [])


def _pad(call: Call) -> Tensor:
    x = call.x()
    pads = call.ints_at(1, "pads") or []
    axes = call.contents(3)
    chosen = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    value = call.x(2) if call.has(2) else torch.tensor(call.float("value", 0.0))
    for i, axis in enumerate(chosen):
        before, after = pads[i], pads[len(chosen) + i]
        if before < 0 or after < 0:
            low, high = max(0, -before), x.shape[axis] - max(0, -after)
            x = x.narrow(axis, low, high - low)
            before, after = max(0, before), max(0, after)
        if before or after:
            x = _padded(call, x, axis, (before, after), value)
    return x


def _padded(call: Call, x: Tensor, axis: int, ends: tuple[int, int], value: Tensor) -> Tensor:
    (before, after), size, mode = ends, x.shape[axis], call.string("mode", "constant")
    if mode == "constant":

        def block(count: int) -> Tensor:
            shape = [count if i == axis else s for i, s in enumerate(x.shape)]
            return value.to(x.dtype).reshape([1] * x.dim()).expand(shape)

        return torch.cat([block(before), x, block(after)], dim=axis)
    places = torch.arange(-before, size + after)
    if mode == "edge":
        places = torch.clamp(places, 0, size - 1)
    elif mode == "wrap":
        places = torch.remainder(places, size)
    elif mode == "reflect" and size > 1:
        period = 2 * (size - 1)
        places = torch.remainder(places, period)
        places = torch.minimum(places, period - places)
    else:
        raise call.refuse(f"mode {mode}")
    return x.index_select(axis, places)


def _depth_to_space(call: Call) -> Tensor:
    x, b = call.x(), call.int("blocksize", 1)
    n, c, h, w = x.shape
    if call.string("mode", "DCR") == "DCR":
        split = x.reshape([n, b, b, c // (b * b), h, w]).permute([0, 3, 4, 1, 5, 2])
    else:
        split = x.reshape([n, c // (b * b), b, b, h, w]).permute([0, 1, 4, 2, 5, 3])
    return split.reshape([n, c // (b * b), h * b, w * b])


def _space_to_depth(call: Call) -> Tensor:
    x, b = call.x(), call.int("blocksize", 1)
    n, c, h, w = x.shape
    split = x.reshape([n, c, h // b, b, w // b, b]).permute([0, 3, 5, 1, 2, 4])
    return split.reshape([n, c * b * b, h // b, w // b])


def _shape(call: Call) -> Tensor:
    sizes = list(call.x().shape)
    end = call.int("end", len(sizes))
    return torch.tensor(sizes[call.int("start", 0) : end], dtype=torch.int64)


def _size(call: Call) -> Tensor:
    return torch.tensor(call.x().numel(), dtype=torch.int64)


def _constant_of_shape(call: Call) -> Tensor:
    attr = call.attrs.get("value")
    shape = call.contents(0) or []
    if attr is None:
        return torch.zeros(shape, dtype=torch.float64 if call.wide else torch.float32)
    tensor = attr.as_tensor()
    dtype = torch_dtype(DataType(tensor.dtype), wide=call.wide)
    if dtype is None:
        raise call.refuse(f"type {tensor.dtype.name}")
    return torch.full(shape, tensor.numpy().reshape(-1)[0].item(), dtype=dtype)


def _range(call: Call) -> Tensor:
    start, limit, delta = (call.x(i).item() for i in range(3))
    return torch.arange(start, limit, delta, dtype=call.x().dtype)


def _non_zero(call: Call) -> Tensor:
    return torch.nonzero(call.x()).transpose(0, 1)


def _one_hot(call: Call) -> Tensor:
    indices, depth, values = call.x(0).to(torch.int64), int(call.x(1).item()), call.x(2)
    axis = call.axis(indices.dim() + 1, -1)
    wrapped = torch.where(indices < 0, indices + depth, indices).unsqueeze(axis)
    shape = [1] * (indices.dim() + 1)
    shape[axis] = depth
    on = wrapped == torch.arange(depth).reshape(shape)
    return torch.where(on, values[1], values[0])


def _trilu(call: Call) -> Tensor:
    k = int(call.x(1).item()) if call.has(1) else 0
    return torch.triu(call.x(), k) if call.int("upper", 1) else torch.tril(call.x(), k)


TABLE: dict[str, Function] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
