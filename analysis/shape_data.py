# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic: the contents of small integer tensors, element by element, as numbers or polynomials.

Each rule follows the ONNX specification of its operator on int64, int32 and bool; an element whose value
cannot be written exactly is unknown, and a tensor of which no element is known has no contents here.  int32
results assume that sizes do not overflow, as the operators themselves do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph_ir import DataType
from . import expr
from .data_moves import (
    concat,
    expand,
    gather,
    identity,
    known_or_open,
    open_contents,
    reshape,
    slice_,
    split,
    squeeze,
    transpose,
    unsqueeze,
)
from .expr import Dim
from .node_view import INT_TYPES, MAX_ELEMENTS, Data, NodeView, objects

Rule = Callable[[NodeView], "Data | list[Data | None] | None"]


def evaluate_data(view: NodeView, elem_types: Sequence[int]) -> list[Data | None]:
    """Contents of each output, None where unknown.

    Args:
        view: the node.
        elem_types: ONNX element type of each output; contents are only kept for int64, int32 and bool.
    """
    rule = RULES.get(view.op)
    found = rule(view) if rule is not None else None
    results = found if isinstance(found, list) else [found]
    results = [*results, *[None] * (view.outputs - len(results))]
    return [_kept(data, elem) for data, elem in zip(results, elem_types, strict=False)]


def _kept(data: Data | None, elem: int) -> Data | None:
    if data is None or data.size > MAX_ELEMENTS:
        return None
    if elem == DataType.BOOL:
        limit = 1
    elif elem in INT_TYPES:
        limit = 2**63 - 1 if elem == DataType.INT64 else 2**31 - 1
    else:
        return None
    items: list[Dim] = list(data.ravel())
    if any(isinstance(item, int) and abs(item) > limit for item in items):
        return None
    return data if data.size == 0 or any(item is not None for item in items) else None


def _binary(function: Callable[[Dim, Dim], Dim | bool]) -> Rule:
    """An elementwise rule for two or more operands, folded from the left."""

    def combine(a: Dim, b: Dim) -> Dim:
        result = function(a, b)
        return int(result) if isinstance(result, bool) else result

    apply = np.frompyfunc(combine, 2, 1)

    def rule(view: NodeView) -> Data | None:
        result: Any = None
        for index, data in enumerate(view.data):
            operand = data if data is not None else open_contents(view, index)
            if operand is None:
                return None
            result = operand if result is None else apply(result, operand)
        return _array(result)

    return rule


def _array(result: Any) -> Data | None:
    return None if result is None else np.asarray(result, dtype=np.object_)


def _mod(view: NodeView) -> Any:
    fmod = view.int("fmod", 0) == 1
    return _binary(lambda a, b: expr.mod(a, b, fmod=fmod))(view)


def _logic_and(a: Dim, b: Dim) -> Dim:
    return 0 if a == 0 or b == 0 else 1 if a == 1 and b == 1 else None


def _logic_or(a: Dim, b: Dim) -> Dim:
    return 1 if a == 1 or b == 1 else 0 if a == 0 and b == 0 else None


def _unary(function: Callable[[Dim], Dim]) -> Rule:
    apply = np.frompyfunc(function, 1, 1)

    def rule(view: NodeView) -> Data | None:
        data = view.contents(0)
        return None if data is None else _array(apply(data))

    return rule


def _where(view: NodeView) -> Data | None:
    condition, a, b = (known_or_open(view, index) for index in range(3))
    if condition is None or a is None or b is None:
        return None
    return _array(np.frompyfunc(_choose, 3, 1)(condition, a, b))


def _choose(condition: Dim, a: Dim, b: Dim) -> Dim:
    if condition == 1 or (a is not None and a == b):
        return a
    return b if condition == 0 else None


def _shape(view: NodeView) -> Data | None:
    dims = view.dims(0)
    if dims is None:
        return None
    # Slice semantics of Python are those of `start` and `end`: negative counts from the end, then clamped.
    picked = dims[view.int("start", 0) : view.int("end", len(dims))]
    return objects(picked, [len(picked)])


def _size(view: NodeView) -> Data | None:
    dims = view.dims(0)
    return None if dims is None else objects([expr.product(dims)], [])


def _cast(view: NodeView) -> Data | None:
    data, target = view.contents(0), view.int("to", 0)
    if data is None or target in INT_TYPES:
        return data
    return _array(np.frompyfunc(_truth, 1, 1)(data)) if target == DataType.BOOL else None


def _truth(a: Dim) -> Dim:
    same = expr.equal(a, 0)
    return None if same is None else int(not same)


def _constant_of_shape(view: NodeView) -> Data | None:
    sizes, fill = view.int_list(0), view.attrs.get("value")
    if fill is None or sizes is None or any(n < 0 for n in sizes) or int(np.prod(sizes)) > MAX_ELEMENTS:
        return None  # without `value` the result is float32
    tensor = fill.as_tensor()
    if tensor.dtype not in INT_TYPES:
        return None
    return objects([int(tensor.numpy().ravel()[0])] * int(np.prod(sizes)), sizes)


def _range(view: NodeView) -> Data | None:
    bounds = [view.int_list(index) for index in range(3)]
    if any(b is None or len(b) != 1 for b in bounds):
        return None
    start, limit, delta = (b[0] for b in bounds if b is not None)
    if delta == 0 or len(range(start, limit, delta)) > MAX_ELEMENTS:
        return None
    items = list(range(start, limit, delta))
    return objects(items, [len(items)])


def _reduce(function: Callable[[Dim, Dim], Dim], empty: int | None) -> Rule:
    def rule(view: NodeView) -> Data | None:
        data, axes = view.contents(0), view.ints_at(1, "axes")
        if data is None or data.ndim > 1 or (view.has(1) and axes is None):
            return None
        if not axes and view.int("noop_with_empty_axes", 0):
            return data
        items: list[Dim] = list(data.ravel())
        result: Dim = items[0] if items else empty
        for item in items[1:]:
            result = function(result, item)
        return objects([result], [1] * data.ndim if view.int("keepdims", 1) else [])

    return rule


RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": gather,
    "Slice": slice_,
    "Concat": concat,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Reshape": reshape,
    "Cast": _cast,
    "Identity": identity,
    "Transpose": transpose,
    "Split": split,
    "Expand": expand,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Add": _binary(expr.add),
    "Sub": _binary(expr.sub),
    "Mul": _binary(expr.mul),
    "Div": _binary(expr.div),
    "Mod": _mod,
    "Min": _binary(expr.minimum),
    "Max": _binary(expr.maximum),
    "Equal": _binary(expr.equal),
    "Less": _binary(expr.less),
    "Greater": _binary(lambda a, b: expr.less(b, a)),
    "And": _binary(_logic_and),
    "Or": _binary(_logic_or),
    "Not": _unary(lambda a: None if a is None else expr.sub(1, a)),
    "Neg": _unary(expr.neg),
    "Abs": _unary(lambda a: abs(a) if isinstance(a, int) else a if expr.is_nonneg(a) else None),
    "Where": _where,
    "ReduceSum": _reduce(expr.add, 0),
    "ReduceProd": _reduce(expr.mul, 1),
    "ReduceMin": _reduce(expr.minimum, None),
    "ReduceMax": _reduce(expr.maximum, None),
}
