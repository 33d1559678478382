# SPDX-License-Identifier: Apache-2.0
"""Relu, Clip, Min and Max as one thing: a clamp to an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np

from ...graph_ir import DataType, Node, Rewriter, Value, constant
from ...graph_ir.ops import float_attr, input_at, is_op, rank
from ..pattern import Miss

_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16)
_INTEGERS = (
    DataType.INT8,
    DataType.INT16,
    DataType.INT32,
    DataType.INT64,
    DataType.UINT8,
    DataType.UINT16,
    DataType.UINT32,
    DataType.UINT64,
)


@dataclass(frozen=True)
class Clamp:
    """min(max(x, low), high) in one dtype; neither bound is NaN or -0, and low is not above high.

    Attributes:
        low: the lower bound, as a scalar of the dtype.
        high: the upper bound.
        low_value: the scalar constant low was read from, when there is one to use again.
        high_value: the same for high.
    """

    low: Any
    high: Any
    low_value: Value | None = None
    high_value: Value | None = None

    def __call__(self, bound: Any) -> Any:
        """The bound after this clamp."""
        return min(max(bound, self.low), self.high)


def limits(dtype: DataType) -> tuple[Any, Any] | None:
    """The bounds a Clip has where none is given (the extreme finite values); None for unordered dtypes."""
    if dtype in _INTEGERS:
        info = np.iinfo(dtype.numpy())
        return dtype.numpy().type(info.min), dtype.numpy().type(info.max)
    if dtype in _FLOATS:
        finite = cast("Any", ml_dtypes.finfo(dtype.numpy()))  # numpy's own does not know bfloat16
        return dtype.numpy().type(finite.min), dtype.numpy().type(finite.max)
    return None


def clamp_of(node: Node, dtype: DataType) -> Clamp | Miss:
    """What a Relu, Clip, or Min or Max with one scalar constant clamps to.

    Args:
        node: the node.
        dtype: of the tensor it clamps.
    """
    finite = limits(dtype)
    if finite is None:
        return Miss("dtype without order")
    kind = dtype.numpy().type
    infinite = finite if dtype in _INTEGERS else (kind(-np.inf), kind(np.inf))
    if is_op(node, "Relu"):
        return Clamp(kind(0), infinite[1])
    if is_op(node, "Min", "Max"):
        _, bound = split_operands(node)
        given = None if bound is None else _scalar(bound, dtype)
        if given is None:
            return Miss("no scalar constant operand")
        clamp = (
            Clamp(given, infinite[1], low_value=bound)
            if is_op(node, "Max")
            else Clamp(infinite[0], given, high_value=bound)
        )
        return _checked(clamp)
    if "min" in node.attributes or "max" in node.attributes or len(node.inputs) == 1:
        if dtype != DataType.FLOAT and node.attributes:
            return Miss("float bounds on another dtype")
        low = kind(float_attr(node, "min", float(finite[0])))
        high = kind(float_attr(node, "max", float(finite[1])))
        return _checked(Clamp(low, high))
    low_value, high_value = input_at(node, 1), input_at(node, 2)
    low = finite[0] if low_value is None else _scalar(low_value, dtype)
    high = finite[1] if high_value is None else _scalar(high_value, dtype)
    if low is None or high is None:
        return Miss("bounds are not scalar constants")
    return _checked(Clamp(low, high, low_value, high_value))


def split_operands(node: Node) -> tuple[Value | None, Value | None]:
    """(tensor, bound) of a Min or Max of a tensor and a one-element constant that cannot raise its rank."""
    if len(node.inputs) != 2:
        return None, None
    for x, bound in (node.inputs, tuple(reversed(node.inputs))):
        data = constant(bound)
        if x is None or bound is None or data is None or data.size != 1 or constant(x) is not None:
            continue
        if data.ndim == 0 or data.ndim <= (rank(x) or 0):
            return x, bound
    return None, None


def compose(first: Clamp, second: Clamp) -> Clamp:
    """One clamp for second(first(x)): a monotone map of an interval runs between the images of its ends."""
    sources: dict[Any, Value | None] = {}
    for bound, value in (
        (first.low, first.low_value),
        (first.high, first.high_value),
        (second.low, second.low_value),
        (second.high, second.high_value),
    ):
        sources[bound] = sources.get(bound) if value is None else value
    low, high = second(first.low), second(first.high)
    return Clamp(low, high, sources[low], sources[high])


def emit(clamp: Clamp, x: Value, dtype: DataType, before: Node, rw: Rewriter) -> Value:
    """The clamp as one Relu or Clip in the form of the opset in force."""
    finite = limits(dtype)
    assert finite is not None
    if clamp.low == 0 and clamp.high > finite[1]:
        return rw.node("Relu", [x], before=before).outputs[0]
    low = None if clamp.low == finite[0] else clamp.low
    high = None if clamp.high == finite[1] else clamp.high
    if rw.opset(before) < 11:
        bounds = {name: float(b) for name, b in (("min", low), ("max", high)) if b is not None}
        return rw.node("Clip", [x], bounds, before=before).outputs[0]
    inputs: list[Value | None] = [x]
    for name, bound, value in (("min", low, clamp.low_value), ("max", high, clamp.high_value)):
        if bound is None:
            inputs.append(None)
        elif value is not None and rank(value) == 0:
            inputs.append(value)
        else:
            data = np.asarray(bound, dtype=dtype.numpy())
            inputs.append(rw.constant(data, f"{before.outputs[0].name}_{name}", before))
    while inputs[-1] is None:
        inputs.pop()
    return rw.node("Clip", inputs, before=before).outputs[0]


def _scalar(value: Value, dtype: DataType) -> Any:
    data = constant(value)
    if data is None or data.size != 1 or data.dtype != dtype.numpy():
        return None
    return data.reshape(-1)[0]


def _checked(clamp: Clamp) -> Clamp | Miss:
    if clamp.low != clamp.low or clamp.high != clamp.high:
        return Miss("NaN bound")
    if clamp.low > clamp.high:
        return Miss("lower bound above the upper one")
    if any(b == 0 and np.signbit(b) for b in (clamp.low, clamp.high)):
        return Miss("bound of -0")
    return clamp
