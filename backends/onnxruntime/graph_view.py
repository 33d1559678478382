# SPDX-License-Identifier: Apache-2.0
"""Who makes and who reads each tensor of a model's proto, bodies of If and Loop included; read only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .source import walk_graphs

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


Q, DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Verdict:
    """A short code for programs and a sentence for people."""

    code: str
    text: str


@dataclass(eq=False)
class Scope:
    """One graph: names resolve here first, then in the graph around it."""

    graph: onnx.GraphProto
    outer: Scope | None
    folder: Path | None
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict[str, "onnx.NodeProto"])
    consumers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict[str, "list[onnx.NodeProto]"])

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(value.name for value in self.graph.output)

    @cached_property
    def inputs(self) -> dict[str, onnx.ValueInfoProto]:
        """The graph's inputs by name."""
        return {value.name: value for value in self.graph.input}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Constants by name; an initializer that is also an input may be overridden and is none."""
        return {t.name: t for t in self.graph.initializer if t.name not in self.inputs}

    def owner(self, name: str) -> Scope | None:
        """The scope that defines `name`."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.producers or name in scope.initializers or name in scope.inputs:
                return scope
            scope = scope.outer
        return None

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes `name`, None for inputs and initializers."""
        scope = self.owner(name)
        return scope.producers.get(name) if scope is not None else None

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """The constant called `name`: an initializer, or the value of a Constant node."""
        scope = self.owner(name)
        if scope is None:
            return None
        node = scope.producers.get(name)
        if node is None:
            return scope.initializers.get(name)
        if node.op_type != "Constant":
            return None
        return next((a.t for a in node.attribute if a.name == "value"), None)

    def array(self, name: str) -> NDArray[Any] | None:
        """The constant's elements; None when it is no constant."""
        import onnx

        tensor = self.tensor(name)
        if tensor is None:
            return None
        return onnx.numpy_helper.to_array(tensor, str(self.folder or ""))

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Every node that reads `name`, those in bodies included, each once per use."""
        scope = self.owner(name)
        return scope.consumers.get(name, []) if scope is not None else []

    def is_output(self, name: str) -> bool:
        """Whether `name` leaves its graph."""
        return name in self.outputs


@dataclass(frozen=True)
class Quant:
    """Parameters of a QuantizeLinear or DequantizeLinear node; `scale` is None when it is not constant."""

    names: tuple[str, str]
    scale: NDArray[Any] | None
    zero: NDArray[Any] | None
    dtype: np.dtype[Any] | None
    axis: int

    def same_values(self, other: Quant) -> bool:
        """Whether both are constants of equal scale, zero point and type."""
        if self.scale is None or other.scale is None or self.dtype != other.dtype:
            return False
        return np.array_equal(self.scale, other.scale) and np.array_equal(
            _zero_of(self, other.scale), _zero_of(other, other.scale)
        )


def _zero_of(quant: Quant, like: NDArray[Any]) -> NDArray[Any]:
    return quant.zero if quant.zero is not None else np.zeros(like.shape, np.int64)


def quant_of(scope: Scope, node: onnx.NodeProto) -> Quant:
    """Read the parameters of a Q or DQ node."""
    import onnx

    zero_name = node.input[2] if len(node.input) > 2 else ""
    zero = scope.array(zero_name) if zero_name else None
    dtype = zero.dtype if zero is not None else None
    if dtype is None and node.op_type == "DequantizeLinear":
        tensor = scope.tensor(node.input[0])
        if tensor is not None:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype is None and node.op_type == "QuantizeLinear" and not zero_name:
        wanted = int_attribute(node, "output_dtype", onnx.TensorProto.UINT8)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(wanted or onnx.TensorProto.UINT8)
    scale = scope.array(node.input[1])
    return Quant((node.input[1], zero_name), scale, zero, dtype, int_attribute(node, "axis", 1))


def dq_of(scope: Scope, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that makes `name`."""
    producer = scope.producer(name)
    return producer if producer is not None and producer.op_type == DQ else None


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute, or the default."""
    return next((a.i for a in node.attribute if a.name == name), default)


def float_attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A float attribute, or the default."""
    return next((a.f for a in node.attribute if a.name == name), default)


def string_attribute(node: onnx.NodeProto, name: str, default: str) -> str:
    """A string attribute, or the default."""
    return next((a.s.decode("utf-8", "replace") for a in node.attribute if a.name == name), default)


def label(node: onnx.NodeProto) -> str:
    """How a node is named to people: its name, or its operator and first output."""
    if node.name:
        return node.name
    return f"{node.op_type}({next((name for name in node.output if name), '')})"


def scopes_of(model: onnx.ModelProto, folder: Path | None) -> list[Scope]:
    """Every graph of the model with its tables, outer before inner."""
    found: dict[int, Scope] = {}
    for graph, outer in walk_graphs(model.graph):
        scope = Scope(graph, found[id(outer)] if outer is not None else None, folder)
        scope.producers = {name: node for node in graph.node for name in node.output if name}
        found[id(graph)] = scope
    scopes = list(found.values())
    for scope in scopes:
        for node in scope.graph.node:
            for name in node.input:
                owner = scope.owner(name) if name else None
                if owner is not None:
                    owner.consumers.setdefault(name, []).append(node)
    return scopes
