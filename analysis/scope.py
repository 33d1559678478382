# SPDX-License-Identifier: Apache-2.0
"""What shape inference knows inside one graph or one function call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..graph_ir import Attr, Value
from .node_view import Data
from .value_types import ValueType


@dataclass
class Scope:
    """Facts of the main graph with its bodies, or of one call of a function.

    Attributes:
        opsets: opset version by domain.
        types: type by value.
        data: contents by value.
        attrs: values of the function's attributes at this call.
        nameable: whether unknown dims may be named (only in the main graph has a value one shape per run).
    """

    opsets: Mapping[str, int]
    types: dict[Value, ValueType] = field(default_factory=dict[Value, ValueType])
    data: dict[Value, Data] = field(default_factory=dict[Value, Data])
    attrs: Mapping[str, Attr] = field(default_factory=dict[str, Attr])
    nameable: bool = False
