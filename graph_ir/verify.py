# SPDX-License-Identifier: Apache-2.0
"""The verifier: what must hold of a model after every pass.

Scopes (each value defined before it is read, names unique where they are visible), use lists, known operators
with a legal number of inputs, and the model's signature. Far quicker than onnx.checker, which accepts models
whose outputs a pass has swapped (docs/decisions/0001).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from .errors import VerifyError
from .ops import STANDARD_DOMAINS, dims, has_subgraph, label, subgraphs

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPTION = onnx.defs.OpSchema.FormalParameterOption

Port = tuple[str, str, "tuple[int | str | None, ...] | None"]


@dataclass(frozen=True)
class Signature:
    """What callers rely on: names, types and declared shapes of inputs and outputs, in order.

    Attributes:
        inputs: (name, type, dims) of each required input.
        optional: names of inputs that have a default (an initializer of the same name).
        outputs: (name, type, dims) of each output.
    """

    inputs: tuple[Port, ...]
    optional: tuple[str, ...]
    outputs: tuple[Port, ...]


def signature_of(model: ir.Model) -> Signature:
    """The model's signature as it stands."""
    graph = model.graph
    required = [v for v in graph.inputs if not v.is_initializer()]
    return Signature(
        tuple(_port(v) for v in required),
        tuple(v.name or "" for v in graph.inputs if v.is_initializer()),
        tuple(_port(v) for v in graph.outputs),
    )


def _port(value: ir.Value) -> Port:
    return (value.name or "", str(value.type), dims(value))


def verify(model: ir.Model, signature: Signature | None = None) -> None:
    """Check the whole model.

    Args:
        model: the model.
        signature: what inputs and outputs must still be, if given.

    Raises:
        VerifyError: naming the first node or value that breaks a rule.
    """
    names: dict[str, ir.Value] = {}
    uses: dict[ir.Value, int] = {}
    _verify_graph(model.graph, names, model.opset_imports, model, uses)
    _verify_uses(uses)
    for function in model.functions.values():
        uses = {}
        _verify_graph(function.graph, {}, function.opset_imports, model, uses)
        _verify_uses(uses)
    if signature is not None:
        _verify_signature(signature, signature_of(model))


def _verify_signature(before: Signature, after: Signature) -> None:
    for what in ("inputs", "optional", "outputs"):
        was, now = getattr(before, what), getattr(after, what)
        if was != now:
            place = next((i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), None)
            if place is None:
                raise VerifyError(f"model signature changed: {len(was)} {what} became {len(now)}")
            raise VerifyError(f"model signature changed: {what} {was[place]!r} became {now[place]!r}")


class _Scope:
    """The names visible at one place, and which of them this graph added."""

    def __init__(self, graph: ir.Graph, visible: dict[str, ir.Value], uses: dict[ir.Value, int]) -> None:
        self.graph = graph
        self.uses = uses
        self.visible = visible
        self.added: list[str] = []

    def define(self, value: ir.Value, where: str) -> None:
        name = value.name
        if name == "" and where == "node output":
            return
        if type(name) is not str and name is not None:
            raise VerifyError(f"name {name!r} in graph {self.graph.name!r} is not text")
        if not name:
            raise VerifyError(f"{where} without a name in graph {self.graph.name!r}")
        if name in self.visible:
            raise VerifyError(
                f"name {name!r} is defined twice, again as {where} in graph {self.graph.name!r}"
            )
        self.visible[name] = value
        self.added.append(name)
        self.uses.setdefault(value, 0)

    def leave(self) -> None:
        for name in self.added:
            del self.visible[name]


def _verify_graph(
    graph: ir.Graph,
    visible: dict[str, ir.Value],
    opsets: dict[str, int],
    model: ir.Model,
    uses: dict[ir.Value, int],
) -> None:
    """Check one graph given the values visible from outside; `visible` is restored on return."""
    scope = _Scope(graph, visible, uses)
    for value in graph.inputs:
        scope.define(value, "input")
    for name, value in graph.initializers.items():
        _verify_initializer(name, value)
        if not value.is_graph_input():
            scope.define(value, "initializer")
    for node in graph:
        _verify_reads(node, graph, visible, uses)
        if node.attributes and has_subgraph(node):
            for body in subgraphs(node):
                _verify_graph(body, visible, opsets, model, uses)
        _verify_operator(node, opsets, model)
        for output in node.outputs:
            if output.producer() is not node:
                raise VerifyError(f"output {output.name!r} of node {label(node)!r} claims another producer")
            scope.define(output, "node output")
    for output in graph.outputs:
        if visible.get(output.name or "") is not output or output.graph is not graph:
            raise VerifyError(f"output {output.name!r} of graph {graph.name!r} is not produced in it")
    scope.leave()


def _verify_initializer(name: str, value: ir.Value) -> None:
    if name != value.name:
        raise VerifyError(f"initializer {value.name!r} is filed under {name!r}")
    tensor = value.const_value
    if tensor is None:
        raise VerifyError(f"initializer {name!r} has no data")
    if isinstance(tensor, ir.TensorProtoTensor):
        return  # the file's own, looked at when it was loaded; asking it costs time
    if value.dtype is not None and value.dtype != tensor.dtype:
        raise VerifyError(f"initializer {name!r} is declared {value.dtype} but holds {tensor.dtype}")
    shape = value.shape
    if shape is None:
        return
    held = tensor.shape.numpy()
    if len(shape) != len(held) or any(d != h for d, h in zip(shape, held, strict=True) if isinstance(d, int)):
        raise VerifyError(f"initializer {name!r} is declared {shape} but holds {tensor.shape}")


def _verify_reads(
    node: ir.Node, graph: ir.Graph, visible: dict[str, ir.Value], uses: dict[ir.Value, int]
) -> None:
    if node.graph is not graph:
        raise VerifyError(f"node {label(node)!r} is listed in a graph it does not belong to")
    for value in node.inputs:
        if value is None:
            continue
        if visible.get(value.name or "") is not value:
            raise VerifyError(f"node {label(node)!r} reads {value.name!r}, which is not defined before it")
        uses[value] = uses.get(value, 0) + 1


def _verify_uses(uses: dict[ir.Value, int]) -> None:
    for value, count in uses.items():
        recorded = value.uses()
        if len(recorded) != count:
            raise VerifyError(f"value {value.name!r} has {count} readers but records {len(recorded)}")


def _verify_operator(node: ir.Node, opsets: dict[str, int], model: ir.Model) -> None:
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    if type(node.op_type) is not str or type(node.domain) is not str:
        raise VerifyError(f"node {label(node)!r}: its operator's name is not text")
    version = opsets.get(domain, opsets.get("ai.onnx") if domain == "" else None)
    function = model.functions.get(node.op_identifier()) if model.functions else None
    if function is not None:
        if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
            raise VerifyError(
                f"node {label(node)!r}: function {node.op_type} takes {len(function.inputs)} inputs and has "
                f"{len(function.outputs)} outputs, not {len(node.inputs)} and {len(node.outputs)}"
            )
        return
    if version is None:
        raise VerifyError(f"node {label(node)!r} uses domain {node.domain!r}, which has no opset import")
    if domain != "":
        return
    bounds = operator_bounds(node.op_type, version)
    if bounds is None:
        return  # unknown operators pass through; backends judge them
    low, high, outputs = bounds
    inputs = node.inputs
    if not low <= _given(inputs) or len(inputs) > high or len(node.outputs) > outputs:
        raise VerifyError(
            f"node {label(node)!r}: {node.op_type} (opset {version}) takes {low} to {high} inputs and "
            f"at most {outputs} outputs, not {len(inputs)} and {len(node.outputs)}"
        )
    if None in inputs and None in inputs[: required_inputs(node.op_type, version)]:
        index = inputs.index(None)
        raise VerifyError(f"node {label(node)!r}: {node.op_type} (opset {version}) needs its input {index}")


def _given(inputs: Sequence[ir.Value | None]) -> int:
    """Inputs up to the last one given."""
    count = len(inputs)
    while count and inputs[count - 1] is None:
        count -= 1
    return count


@cache
def operator_bounds(op_type: str, version: int) -> tuple[int, int, int] | None:
    """(least inputs, most inputs, most outputs) of an ai.onnx operator, None when the operator is unknown."""
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    low = 0  # optional inputs may be left out, also where a required one or a variadic part follows
    for i, formal in enumerate(schema.inputs):
        if formal.option == _OPTION.Single:
            low = i + 1
        elif formal.option == _OPTION.Variadic and formal.min_arity:
            low = i + formal.min_arity
    return low, schema.max_input, schema.max_output


@cache
def required_inputs(op_type: str, version: int) -> int:
    """How many inputs, from the first on, an ai.onnx operator never goes without."""
    count = 0
    for formal in onnx.defs.get_schema(op_type, version, "").inputs:
        if formal.option != _OPTION.Single:
            break
        count += 1
    return count
