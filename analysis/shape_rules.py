# SPDX-License-Identifier: Apache-2.0
"""Output dims that follow from shape arithmetic or symbolic input dims, where onnx's own inference stops.

Every rule gives one tuple of dims per output (or None for an output it says nothing of).  A dim given here
holds for every run that succeeds, with one reading: where Reshape takes a size from another tensor, that
size is not zero, since 0 would mean "copy the input's dim" (the cases in which one empty dim alone could
change the result are left unknown).

Long because it is one table of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeAlias

from . import expr
from .data_moves import python_slice, slice_parameters, split_sizes
from .expr import Dim
from .node_view import NodeView
from .window_rules import conv, conv_transpose, pool

Dims: TypeAlias = "tuple[Dim, ...] | None"
Rule: TypeAlias = Callable[[NodeView], "Sequence[Dims]"]

PAST_THE_END = 2**31 - 1
"""Slice ends from here on mean "to the end" in every exporter's output."""


def _reshape(view: NodeView) -> Sequence[Dims]:
    source = view.dims(0)
    target = view.vector(1) if view.has(1) else view.ints("shape")
    if target is None:
        return [None]
    sizes: list[Dim] = list(target)
    copies = view.int("allowzero", 0) == 0
    doubtful: list[int] = []
    for index, size in enumerate(sizes):
        below = source[index] if source is not None and index < len(source) else None
        if size == 0 and copies:
            sizes[index] = below
        elif size is None or isinstance(size, int) or below == size or _same_count(source, target):
            continue
        elif not expr.is_nonneg(size):
            sizes[index] = None  # could be -1 or 0, which mean something else
        elif copies and not _vanishes_with(below, size) and (source is None or index < len(source)):
            doubtful.append(index)
    if -1 not in sizes:
        others = [n for n in sizes if isinstance(n, int) and n > 0]
        if source is not None and len(others) == len(sizes) - 1 and None in sizes:
            sizes[sizes.index(None)] = _inferred(source, others)
        return [tuple(sizes)]
    hole = sizes.index(-1)
    sizes[hole] = None if source is None else _inferred(source, [*sizes[:hole], *sizes[hole + 1 :]])
    for index in (*doubtful, hole) if doubtful else ():
        sizes[index] = None
    return [tuple(sizes)]


def _same_count(source: Dims, sizes: Sequence[Dim]) -> bool:
    """Whether the element counts agree as polynomials, so that no other reading of the sizes fits as well."""
    if source is None or -1 in sizes or 0 in sizes:
        return False
    count = expr.product(source)
    return count is not None and count == expr.product(sizes)


def _vanishes_with(below: Dim, size: expr.Expr) -> bool:
    """Whether ``below`` is zero whenever ``size`` is, so that copying it changes nothing."""
    if below is None or isinstance(below, int) or len(size.terms) > 1:
        return below == size
    factors = set(next(mono for mono, _ in size.terms))
    return all(factors <= set(mono) for mono, _ in below.terms)


def _inferred(source: Sequence[Dim], others: Sequence[Dim]) -> Dim:
    """The size that makes the element counts equal, cancelling dims that occur on both sides.

    Cancelling a dim supposes that it is not zero; onnxruntime refuses -1 beside a zero, so such a run fails.
    """
    left, right = list(source), list(others)
    for dim in others:
        if dim is not None and dim in left:
            left.remove(dim)
            right.remove(dim)
    return expr.div(expr.product(left), expr.product(right))


def _flatten(view: NodeView) -> Sequence[Dims]:
    dims, axis = view.dims(0), view.int("axis", 1)
    if dims is None or not -len(dims) <= axis <= len(dims):
        return [None]
    axis = axis + len(dims) if axis < 0 else axis
    return [(expr.product(dims[:axis]), expr.product(dims[axis:]))]


def _broadcast(a: Dim, b: Dim) -> Dim:
    if b in (a, 1) or expr.is_capped(b, a):  # b = min(a, m): b is a, or it is m = 1
        return a
    if a == 1 or expr.is_capped(a, b):
        return b
    # A number other than 1 wins: the other side must be equal to it or 1.
    if isinstance(a, int):
        return None if isinstance(b, int) else a
    return b if isinstance(b, int) and b >= 0 else None


def _expand(view: NodeView) -> Sequence[Dims]:
    dims, target = view.dims(0), view.vector(1)
    return [None if dims is None or target is None else _spread(dims, target)]


def _elementwise(view: NodeView) -> Sequence[Dims]:
    shapes = [view.dims(index) for index in range(len(view.inputs))]
    known = [dims for dims in shapes if dims is not None]
    return [reduce(_spread, known) if known and len(known) == len(shapes) else None]


def _spread(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[Dim, ...]:
    rank = max(len(left), len(right))
    padded = [[*[1] * (rank - len(dims)), *dims] for dims in (left, right)]
    return tuple(_broadcast(a, b) for a, b in zip(*padded, strict=True))


def _from_contents(view: NodeView) -> Sequence[Dims]:
    sizes = view.vector(0)
    return [None if sizes is None else tuple(sizes)]


def _tile(view: NodeView) -> Sequence[Dims]:
    dims, repeats = view.dims(0), view.vector(1)
    if dims is None or repeats is None or len(repeats) != len(dims):
        return [None]
    return [tuple(expr.mul(d, r) for d, r in zip(dims, repeats, strict=True))]


def _concat(view: NodeView) -> Sequence[Dims]:
    dims = [view.dims(index) for index in range(len(view.inputs))]
    known = [d for d in dims if d is not None]
    axis = view.int("axis", 1 if view.version < 4 else 0)
    if not known or len({len(d) for d in known}) != 1 or not -len(known[0]) <= axis < len(known[0]):
        return [None]
    axis %= len(known[0])
    joined = [next((d[i] for d in known if d[i] is not None), None) for i in range(len(known[0]))]
    joined[axis] = expr.total(d[axis] for d in known) if len(known) == len(dims) else None
    return [tuple(joined)]


def _slice(view: NodeView) -> Sequence[Dims]:
    dims, parameters = view.dims(0), slice_parameters(view)
    if dims is None or parameters is None:
        return [None]
    result = list(dims)
    for axis, start, end, step in parameters:
        if not -len(dims) <= axis < len(dims):
            return [None]
        result[axis] = _sliced(dims[axis], start, end, step)
    return [tuple(result)]


def _sliced(size: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """Elements of a sliced axis: ceil((end - start) / step) with both bounds clamped, see `python_slice`."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int) and step:
        return len(range(*python_slice(start, end, step, size).indices(size)))
    if step == 0 or size is None:
        return None
    if step > 0:
        first = _clamped(size, start)
        last = size if isinstance(end, int) and end >= PAST_THE_END else _clamped(size, end)
    else:  # places counted from 1, so that 0 is before the first; the larger is where it starts
        first = 0 if isinstance(end, int) and end <= -PAST_THE_END else _behind(size, end)
        counted = isinstance(start, int) and start < -1  # from the end: the first element is the least
        last = expr.add(_clamped(size, start), 1) if counted else _behind(size, start)
    span, step = expr.sub(last, first), abs(step)
    # ceil(span / step) counts the elements unless it is below zero, which -step < span rules out.
    return expr.ceil_div(span, step) if expr.is_nonneg(expr.add(span, step - 1)) else None


def _behind(size: Dim, bound: Dim) -> Dim:
    """The place behind that of a bound, in [0, size], where that is provable."""
    if isinstance(bound, int) and (bound == -1 or bound >= PAST_THE_END):
        return size
    if isinstance(bound, int) and bound < 0:
        return _clamped(size, bound + 1)
    return expr.minimum(size, expr.add(bound, 1)) if expr.is_nonneg(bound) else None


def _clamped(size: Dim, bound: Dim) -> Dim:
    """A slice bound as a place in [0, size], where that is provable."""
    if isinstance(bound, int) and bound < 0:
        place = expr.add(size, bound)
        return place if expr.is_nonneg(place) else None
    return expr.minimum(size, bound) if expr.is_nonneg(bound) else None


def _pad(view: NodeView) -> Sequence[Dims]:
    dims = view.dims(0)
    pads = view.vector(1) if view.has(1) else view.ints("pads")
    axes = view.int_list(3)
    if dims is None or pads is None or (view.has(3) and axes is None):
        return [None]
    axes = axes if axes is not None else list(range(len(dims)))
    if len(pads) != 2 * len(axes) or any(not -len(dims) <= a < len(dims) for a in axes):
        return [None]
    result = list(dims)
    for place, axis in enumerate(axes):
        result[axis] = expr.total([dims[axis], pads[place], pads[place + len(axes)]])
    return [tuple(result)]


def _resize(view: NodeView) -> Sequence[Dims]:
    dims = view.dims(0)
    cropped = view.string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if dims is None or cropped or view.attrs.get("axes") is not None:
        return [None]
    policy = view.string("keep_aspect_ratio_policy", "stretch")
    if view.version >= 11 and view.op == "Resize" and view.has(3):
        sizes = view.vector(3)
        return [
            tuple(sizes) if sizes is not None and len(sizes) == len(dims) and policy == "stretch" else None
        ]
    scales = view.floats(2 if view.op == "Resize" and view.version >= 11 else 1)
    attribute = view.attrs.get("scales")
    if scales is None and attribute is not None:
        scales = [float(x) for x in attribute.as_floats()]
    if scales is None or len(scales) != len(dims):
        return [None]
    return [tuple(_scaled(d, s) for d, s in zip(dims, scales, strict=True))]


def _scaled(size: Dim, scale: float) -> Dim:
    """floor(size * scale) for a whole scale or one over a power of two (exact in float32)."""
    if scale >= 1 and scale.is_integer():
        return expr.mul(size, int(scale))
    inverse = 1 / scale if scale > 0 else 0.0
    if inverse.is_integer() and int(inverse) & (int(inverse) - 1) == 0:
        return expr.floor_div(size, int(inverse))
    return None


def _range(view: NodeView) -> Sequence[Dims]:
    bounds = [view.vector(index) for index in range(3)]
    if any(b is None or len(b) != 1 for b in bounds):
        return [None]
    start, limit, delta = (b[0] for b in bounds if b is not None)
    span = expr.sub(limit, start)
    if not isinstance(delta, int) or delta <= 0 or not expr.is_nonneg(span):
        return [None]
    return [(expr.ceil_div(span, delta),)]


def _split(view: NodeView) -> Sequence[Dims]:
    dims, axis = view.dims(0), view.int("axis", 0)
    if dims is None or not -len(dims) <= axis < len(dims):
        return [None]
    axis %= len(dims)
    sizes = split_sizes(view, dims[axis], view.outputs)
    if sizes is None or len(sizes) != view.outputs:
        return [None]
    return [(*dims[:axis], size, *dims[axis + 1 :]) for size in sizes]


def _depth_to_space(view: NodeView) -> Sequence[Dims]:
    dims, block = view.dims(0), view.int("blocksize", 0)
    if dims is None or len(dims) != 4 or block < 1:
        return [None]
    n, c, h, w = dims
    return [(n, expr.div(c, block * block), expr.mul(h, block), expr.mul(w, block))]


def _space_to_depth(view: NodeView) -> Sequence[Dims]:
    dims, block = view.dims(0), view.int("blocksize", 0)
    if dims is None or len(dims) != 4 or block < 1:
        return [None]
    n, c, h, w = dims
    return [(n, expr.mul(c, block * block), expr.div(h, block), expr.div(w, block))]


def _like_first(view: NodeView) -> Sequence[Dims]:
    return [view.dims(0)]


_ELEMENTWISE = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
    "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip

RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Expand": _expand,
    "ConstantOfShape": _from_contents,
    "Tile": _tile,
    "Concat": _concat,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "Range": _range,
    "Split": _split,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "GroupNormalization": _like_first,
    "MeanVarianceNormalization": _like_first,
    "Conv": conv,
    "ConvInteger": conv,
    "QLinearConv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool,
    "AveragePool": pool,
    "LpPool": pool,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}
