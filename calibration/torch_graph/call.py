# SPDX-License-Identifier: Apache-2.0
"""One node as the function of its operator sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ...graph_ir import Attr, DataType, UsageError


@dataclass(frozen=True)
class Call:
    """A node's attributes and the tensors it is given.

    Attributes:
        name: label of the node, for messages.
        op: operator type.
        version: opset version in force.
        attrs: its attributes.
        inputs: None where one is left out; trailing ones may be missing.
        outputs: how many outputs are asked for.
        wide: whether all floating-point values are float64.
    """

    name: str
    op: str
    version: int
    attrs: Mapping[str, Attr]
    inputs: Sequence[Tensor | None]
    outputs: int
    wide: bool

    def has(self, index: int) -> bool:
        """Whether the input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def maybe(self, index: int) -> Tensor | None:
        """The input, None when left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def x(self, index: int = 0) -> Tensor:
        """An input the operator requires."""
        found = self.maybe(index)
        if found is None:
            raise self.refuse(f"input {index} is missing")
        return found

    def all(self) -> list[Tensor]:
        """Every input, where none may be left out."""
        return [self.x(i) for i in range(len(self.inputs))]

    def int(self, name: str, default: int) -> int:
        """An INT attribute."""
        attr = self.attrs.get(name)
        return default if attr is None else attr.as_int()

    def float(self, name: str, default: float) -> float:
        """A FLOAT attribute."""
        attr = self.attrs.get(name)
        return default if attr is None else attr.as_float()

    def string(self, name: str, default: str) -> str:
        """A STRING attribute."""
        attr = self.attrs.get(name)
        return default if attr is None else attr.as_string()

    def ints(self, name: str) -> list[int] | None:
        """An INTS attribute, None when absent."""
        attr = self.attrs.get(name)
        return None if attr is None else [int(i) for i in attr.as_ints()]

    def contents(self, index: int) -> list[int] | None:
        """What an integer input holds; None when left out."""
        found = self.maybe(index)
        return None if found is None else [int(i) for i in found.reshape(-1).tolist()]

    def ints_at(self, index: int, name: str) -> list[int] | None:
        """Integers that newer opsets give as an input and older ones as an attribute."""
        return self.contents(index) if self.has(index) else self.ints(name)

    def axis(self, rank: int, default: int, name: str = "axis") -> int:
        """An axis attribute, counted from the front."""
        axis = self.int(name, default)
        return axis + rank if axis < 0 else axis

    def refuse(self, reason: str) -> UsageError:
        """The error for what torch is not made to do here."""
        return UsageError(f"{self.op} {self.name!r} cannot be run in torch: {reason}")


Function: TypeAlias = Callable[[Call], "Tensor | Sequence[Tensor]"]
"""Of one operator: its outputs (one, or all of those asked for)."""

_DTYPES: dict[DataType, torch.dtype] = {
    DataType.BOOL: torch.bool,
    DataType.INT8: torch.int8,
    DataType.INT16: torch.int16,
    DataType.INT32: torch.int32,
    DataType.INT64: torch.int64,
    DataType.UINT8: torch.uint8,
    # Torch computes little with the wider unsigned types.
    DataType.UINT16: torch.int32,
    DataType.UINT32: torch.int64,
    DataType.UINT64: torch.int64,
    # Half precision is for inference; gradients are taken in single.
    DataType.FLOAT16: torch.float32,
    DataType.BFLOAT16: torch.float32,
    DataType.FLOAT: torch.float32,
    DataType.DOUBLE: torch.float64,
}


def torch_dtype(dtype: DataType, *, wide: bool) -> torch.dtype | None:
    """What values of an ONNX type are held in; None for types torch is not used for."""
    found = _DTYPES.get(dtype)
    return torch.float64 if wide and found is torch.float32 else found
