# SPDX-License-Identifier: Apache-2.0
"""Types through the bodies of If, Loop and Scan, and through calls of the model's own functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from ..graph_ir import Attr, DataType, Function, Graph, Node, Value
from ..graph_ir.ops import opset_in
from .node_view import Data
from .scope import Scope
from .value_types import TypeTable, ValueType

MAX_CALL_DEPTH = 64

Answer: TypeAlias = tuple[tuple[ValueType, ...], tuple["Data | None", ...]]


@dataclass
class Calls:
    """Function calls so far.

    Attributes:
        answers: output types and contents by (function, input types, attributes, known contents).
        seen: types of the values inside functions, joined over all calls.
        stack: functions being walked, against endless recursion.
    """

    answers: dict[Any, Answer] = field(default_factory=dict[Any, Answer])
    seen: dict[Value, ValueType] = field(default_factory=dict[Value, ValueType])
    stack: list[Function] = field(default_factory=list[Function])


class Walk(Protocol):
    """What bodies and calls need of the walk that meets them."""

    table: TypeTable
    calls: Calls

    def walk(self, nodes: Iterable[Node], scope: Scope) -> None:
        """Type every node of a graph."""
        ...

    def type_of(self, value: Value, scope: Scope) -> ValueType:
        """The type known for a value."""
        ...

    def attributes(self, node: Node, scope: Scope) -> Mapping[str, Attr]:
        """A node's attributes, references resolved."""
        ...

    def note(self, node: Node, reason: str) -> None:
        """Record why a node's outputs stay unknown."""
        ...


def visit(walker: Walk, node: Node, types: Sequence[ValueType], scope: Scope) -> tuple[ValueType, ...]:
    """Output types of If, Loop or Scan; the values of the bodies are typed on the way."""
    if node.op_type == "If":
        return _if(walker, node, scope)
    return _loop(walker, node, types, scope) if node.op_type == "Loop" else _scan(walker, node, types, scope)


def _body(node: Node, name: str) -> Graph | None:
    attr = node.attributes.get(name)
    return None if attr is None or attr.is_ref() else attr.as_graph()


def _run(walker: Walk, body: Graph, inputs: Sequence[ValueType], scope: Scope) -> list[ValueType]:
    """Walk a body with the given input types; types of its outputs.  Its inputs have no known contents."""
    for value in body.inputs:
        scope.types[value] = walker.table.of_value(value) if not inputs else walker.table.unknown
    for value, known in zip(body.inputs, inputs, strict=False):
        scope.types[value] = known
    for node in body:
        if node.op_type != "Constant":
            for output in node.outputs:
                scope.data.pop(output, None)  # from an earlier iteration
    nameable, scope.nameable = scope.nameable, False
    walker.walk(body, scope)
    scope.nameable = nameable
    return [walker.type_of(value, scope) for value in body.outputs]


def _padded(walker: Walk, node: Node, found: Sequence[ValueType]) -> tuple[ValueType, ...]:
    missing = len(node.outputs) - len(found)
    return (*found[: len(node.outputs)], *[walker.table.unknown] * missing)


def _if(walker: Walk, node: Node, scope: Scope) -> tuple[ValueType, ...]:
    bodies = [body for name in ("then_branch", "else_branch") if (body := _body(node, name)) is not None]
    results = [_run(walker, body, (), scope) for body in bodies]
    if len(results) != 2:
        walker.note(node, "If without both branches")
        return _padded(walker, node, [])
    taken = scope.data.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    if taken is not None and list(taken.ravel()) in ([0], [1]):
        return _padded(walker, node, results[1 if list(taken.ravel()) == [0] else 0])
    return _padded(walker, node, [walker.table.join(a, b) for a, b in zip(*results, strict=False)])


def _carried(
    walker: Walk,
    body: Graph,
    start: Sequence[ValueType],
    fixed: tuple[Sequence[ValueType], Sequence[ValueType]],
    skip: int,
    scope: Scope,
) -> tuple[list[ValueType], list[ValueType]]:
    """Types of carried values that hold in every iteration, and the body's output types under them.

    Iterates from the start values, each time joining what the body gives; a dim or rank that changes
    becomes unknown, so a value can only change (rank + 2) times and in practice does so once.

    Args:
        walker: the inference.
        body: the body.
        start: carried values before the first iteration.
        fixed: types of the inputs before and after the carried ones.
        skip: outputs before the carried ones.
        scope: where the node stands.
    """
    state = list(start)
    while True:
        outputs = _run(walker, body, [*fixed[0], *state, *fixed[1]], scope)
        after = outputs[skip : skip + len(state)]
        joined = [walker.table.join(a, b) for a, b in zip(state, after, strict=False)]
        joined += state[len(joined) :]
        if joined == state:
            return state, outputs
        state = joined


def _loop(walker: Walk, node: Node, types: Sequence[ValueType], scope: Scope) -> tuple[ValueType, ...]:
    body, table = _body(node, "body"), walker.table
    if body is None:
        walker.note(node, "Loop without a body")
        return _padded(walker, node, [])
    count, flag = table.tensor(int(DataType.INT64), ()), table.tensor(int(DataType.BOOL), ())
    state, outputs = _carried(walker, body, types[2:], ([count, flag], []), 1, scope)
    stacked = [_stacked(walker, known, None, 0) for known in outputs[1 + len(state) :]]
    return _padded(walker, node, [*state, *stacked])


def _stacked(walker: Walk, known: ValueType, length: Any, axis: int) -> ValueType:
    """A scan output: the slices' type with one more dim."""
    if known.dims is None:
        return walker.table.tensor(known.elem, None)
    place = axis + len(known.dims) + 1 if axis < 0 else axis
    return walker.table.tensor(known.elem, (*known.dims[:place], length, *known.dims[place:]))


def _scan(walker: Walk, node: Node, types: Sequence[ValueType], scope: Scope) -> tuple[ValueType, ...]:
    body, count = _body(node, "body"), node.attributes.get("num_scan_inputs")
    if body is None or count is None or opset_in(scope.opsets) < 9 or count.as_int() > len(types):
        walker.note(node, "Scan without a body or before opset 9")
        return _padded(walker, node, [])
    scanned = count.as_int()
    carried = len(types) - scanned
    in_axes = _axes(node, "scan_input_axes", scanned)
    slices: list[ValueType] = []
    length = None
    for known, axis in zip(types[carried:], in_axes, strict=False):
        if known.dims is None or not -len(known.dims) <= axis < len(known.dims):
            slices.append(walker.table.tensor(known.elem, None))
            continue
        place = axis % len(known.dims)
        length = known.dims[place] if length is None else length
        slices.append(walker.table.tensor(known.elem, (*known.dims[:place], *known.dims[place + 1 :])))
    state, outputs = _carried(walker, body, types[:carried], ([], slices), 0, scope)
    out_axes = _axes(node, "scan_output_axes", len(outputs) - carried)
    stacked = [_stacked(walker, o, length, a) for o, a in zip(outputs[carried:], out_axes, strict=False)]
    return _padded(walker, node, [*state, *stacked])


def _axes(node: Node, name: str, count: int) -> list[int]:
    attr = node.attributes.get(name)
    return [0] * count if attr is None else [int(a) for a in attr.as_ints()]


def call(
    walker: Walk, node: Node, function: Function, types: Sequence[ValueType], scope: Scope
) -> tuple[ValueType, ...]:
    """Output types of a call: the function's body walked with this call's types, contents and attributes."""
    if function in walker.calls.stack or len(walker.calls.stack) >= MAX_CALL_DEPTH:
        walker.note(node, "function calls itself")
        return _padded(walker, node, [])
    attrs: dict[str, Attr] = {n: a for n, a in function.attributes.items() if a.value is not None}
    attrs.update(walker.attributes(node, scope))
    data = [None if v is None else scope.data.get(v) for v in node.inputs]
    key = (
        id(function),
        tuple(types),
        tuple((n, str(a.value)) for n, a in attrs.items()),
        tuple(map(_frozen, data)),
    )
    answer = walker.calls.answers.get(key)
    if answer is None:
        inner = Scope(function.opset_imports, attrs=attrs)
        for index, value in enumerate(function.inputs):
            inner.types[value] = types[index] if index < len(types) else walker.table.unknown
            contents = data[index] if index < len(data) else None
            if contents is not None:
                inner.data[value] = contents
        walker.calls.stack.append(function)
        walker.walk(function, inner)
        walker.calls.stack.pop()
        for value, known in inner.types.items():
            before = walker.calls.seen.get(value)
            walker.calls.seen[value] = known if before is None else walker.table.join(before, known)
        results = tuple(walker.type_of(value, inner) for value in function.outputs)
        answer = results, tuple(inner.data.get(value) for value in function.outputs)
        walker.calls.answers[key] = answer
    for output, contents in zip(node.outputs, answer[1], strict=False):
        if contents is not None:
            scope.data[output] = contents
    return _padded(walker, node, answer[0])


def _frozen(data: Data | None) -> Any:
    return None if data is None else (data.shape, tuple(data.ravel()))
