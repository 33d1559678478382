# SPDX-License-Identifier: Apache-2.0
"""The verifier: what must hold of a model after every pass.

Scopes (each value defined before it is read, names unique where they are visible), use lists, known operators
with a legal number of inputs, and the model's signature. Far quicker than onnx.checker, which accepts models
whose outputs a pass has swapped (docs/decisions/0001).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from .errors import VerifyError
from .given import given_model
from .ops import BODY_OPS, STANDARD_DOMAINS, dims, label, subgraphs

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
        UsageError: it is no model.
    """
    given_model("model", model)
    graphs = [(model.graph, model.opset_imports)]
    graphs += [(function.graph, function.opset_imports) for function in model.functions.values()]
    for graph, opsets in graphs:
        check = _Check(model, opsets)
        check.graph(graph)
        check.uses()
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


class _Check:
    """The check of one outermost graph with its bodies.

    It runs after each change, so the loop over nodes asks the IR for as little as it can, and names are
    compared many at a time.
    """

    def __init__(self, model: ir.Model, opsets: dict[str, int]) -> None:
        self._model = model
        self._opsets = opsets
        self._visible: set[ir.Value | None] = {None}  # what may be read where the walk stands; None: left out
        self._names: set[str | None] = set()  # theirs
        self._defined: list[ir.Value] = []
        self._reads: list[ir.Value | None] = []
        self._held: set[tuple[str, str, int, int]] = set()  # forms of standard nodes that are in order

    def graph(self, graph: ir.Graph) -> list[ir.Value]:
        """Check one graph with what is visible from outside; adds to that, and returns, what it defines."""
        visible, reads, held = self._visible, self._reads, self._held
        own = list(graph.inputs)
        self._take_names(own, graph, "input")
        weights: list[ir.Value] = []
        for name, value in graph.initializers.data.items():
            _verify_initializer(name, value)
            if not value.is_graph_input():
                weights.append(value)
        self._take_names(weights, graph, "initializer")
        own += weights
        visible.update(own)
        made: list[ir.Value] = []  # by nodes, and not named yet
        for node in graph:
            inputs, outputs = node.inputs, node.outputs
            op_type, domain = node.op_type, node.domain
            if node.graph is not graph or not visible.issuperset(inputs):
                self._refuse_reads(node, graph)
            reads += inputs
            if op_type in BODY_OPS or domain not in STANDARD_DOMAINS:
                self._take_names(made, graph, "node output")
                own += made
                made = []
                self._bodies(node)
            form = (op_type, domain, len(inputs), len(outputs))
            if form not in held or None in inputs:
                self._check_form(node, form)
            for output in outputs:
                if output.producer() is not node:
                    raise VerifyError(
                        f"output {output.name!r} of node {label(node)!r} claims another producer"
                    )
                if output.name != "":
                    visible.add(output)
                    made.append(output)
        self._take_names(made, graph, "node output")
        own += made
        for output in graph.outputs:
            if output not in visible or output.graph is not graph:
                raise VerifyError(f"output {output.name!r} of graph {graph.name!r} is not produced in it")
        self._defined += own
        return own

    def _bodies(self, node: ir.Node) -> None:
        for body in subgraphs(node):
            inner = self.graph(body)
            self._visible.difference_update(inner)
            self._names.difference_update([value.name for value in inner])

    def _refuse_reads(self, node: ir.Node, graph: ir.Graph) -> None:
        if node.graph is not graph:
            raise VerifyError(f"node {label(node)!r} is listed in a graph it does not belong to")
        value = next(v for v in node.inputs if v is not None and v not in self._visible)
        raise VerifyError(f"node {label(node)!r} reads {value.name!r}, which is not defined before it")

    def _check_form(self, node: ir.Node, form: tuple[str, str, int, int]) -> None:
        _verify_operator(node, self._opsets, self._model)
        if None not in node.inputs and not self._model.functions and node.domain in STANDARD_DOMAINS:
            self._held.add(form)

    def _take_names(self, values: Sequence[ir.Value], graph: ir.Graph, where: str) -> None:
        """Hold that values defined one after the other have names that nothing visible has."""
        names = [value.name for value in values]
        new = set(names)
        if len(new) < len(names) or not self._names.isdisjoint(new) or "" in new or {*map(type, new)} - {str}:
            self._refuse_names(names, graph, where)
        self._names |= new

    def _refuse_names(self, names: Sequence[str | None], graph: ir.Graph, where: str) -> None:
        for name in names:
            if type(name) is not str and name is not None:
                raise VerifyError(f"name {name!r} in graph {graph.name!r} is not text")
            if not name:
                raise VerifyError(f"{where} without a name in graph {graph.name!r}")
            if name in self._names:
                raise VerifyError(f"name {name!r} is defined twice, again as {where} in graph {graph.name!r}")
            self._names.add(name)

    def uses(self) -> None:
        """Compare the readers that values record with those that were met."""
        count = Counter(self._reads).get
        for value in self._defined:
            recorded = len(value.uses())
            if recorded != count(value, 0):
                raise VerifyError(
                    f"value {value.name!r} has {count(value, 0)} readers but records {recorded}"
                )


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
    if shape.dims == held:
        return
    if len(shape) != len(held) or any(d != h for d, h in zip(shape, held, strict=True) if isinstance(d, int)):
        raise VerifyError(f"initializer {name!r} is declared {shape} but holds {tensor.shape}")


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
