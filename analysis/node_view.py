# SPDX-License-Identifier: Apache-2.0
"""One node as shape inference sees it: attributes resolved, inputs as types and small known contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..graph_ir import Attr, AttributeType, DataType, Value, constant
from ..graph_ir.ops import constant_tensor
from .expr import Dim
from .value_types import ValueType

Data: TypeAlias = NDArray[np.object_]
"""Contents of a small integer or boolean tensor: an object array of dims, None for an unknown element."""

MAX_ELEMENTS = 64
"""Tensors with more elements are data, not shape arithmetic."""

INT_TYPES = frozenset({DataType.INT64, DataType.INT32})
DATA_TYPES = INT_TYPES | {DataType.BOOL}


@dataclass(frozen=True)
class NodeView:
    """A node with what is known of its inputs.

    Attributes:
        op: operator type.
        version: opset version in force.
        types: one per input, the unknown type for an input that is left out.
        data: one per input, None when nothing is known of the contents.
        attrs: attributes, references to function attributes resolved.
        inputs: the values read, None where left out.
        outputs: number of outputs.
    """

    op: str
    version: int
    types: Sequence[ValueType]
    data: Sequence[Data | None]
    attrs: Mapping[str, Attr]
    inputs: Sequence[Value | None]
    outputs: int

    def int(self, name: str, default: int) -> int:
        """An INT attribute."""
        attr = self.attrs.get(name)
        return default if attr is None else attr.as_int()

    def ints(self, name: str) -> list[int] | None:
        """An INTS attribute."""
        attr = self.attrs.get(name)
        return None if attr is None else [int(i) for i in attr.as_ints()]

    def string(self, name: str, default: str) -> str:
        """A STRING attribute."""
        attr = self.attrs.get(name)
        return default if attr is None else attr.as_string()

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def dims(self, index: int) -> tuple[Dim, ...] | None:
        """Dims of input ``index``."""
        return self.types[index].dims if index < len(self.types) else None

    def contents(self, index: int) -> Data | None:
        """Known contents of input ``index``."""
        return self.data[index] if index < len(self.data) else None

    def vector(self, index: int) -> list[Dim] | None:
        """Known contents of input ``index`` as a flat list."""
        found = self.contents(index)
        return None if found is None else list(found.ravel())

    def int_list(self, index: int) -> list[int] | None:
        """Contents of input ``index`` as a flat list when every element is a number."""
        found = self.vector(index)
        if found is None:
            return None
        numbers = [item for item in found if isinstance(item, int)]
        return numbers if len(numbers) == len(found) else None

    def ints_at(self, index: int, name: str) -> list[int] | None:
        """Integers that older opsets give as attribute ``name`` and newer ones as input ``index``."""
        return self.int_list(index) if self.has(index) else self.ints(name)

    def floats(self, index: int) -> list[float] | None:
        """Contents of a small constant floating-point input."""
        value = self.inputs[index] if self.has(index) else None
        tensor = constant_tensor(value)
        if tensor is None or tensor.size > MAX_ELEMENTS:
            return None
        array: NDArray[Any] | None = constant(value)
        return None if array is None else [float(x) for x in array.ravel()]


def objects(items: Sequence[Dim], shape: Sequence[int]) -> Data:
    """An object array of ``shape`` from its flat items."""
    flat: Data = np.empty(len(items), dtype=np.object_)
    flat[:] = items
    return flat.reshape(tuple(shape))


def constant_data(value: Value) -> Data | None:
    """Contents of a small constant integer or boolean tensor."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype not in DATA_TYPES or tensor.size > MAX_ELEMENTS:
        return None
    array = tensor.numpy()
    return objects([int(x) for x in array.ravel().tolist()], array.shape)


def attr_key(attr: Attr) -> Any:
    """What tells an attribute from another, hashable; tensors by identity."""
    kind = attr.type
    if kind == AttributeType.TENSOR:
        tensor = attr.as_tensor()
        return tensor.dtype, tuple(tensor.shape), id(tensor)
    value: Any = attr.value
    if isinstance(value, (int, float, str)):
        return kind, value
    return (kind, tuple(value)) if kind in (AttributeType.INTS, AttributeType.FLOATS) else (kind, str(value))
