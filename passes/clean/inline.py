# SPDX-License-Identifier: Apache-2.0
"""Inlining of model-local functions."""

from __future__ import annotations

from typing import ClassVar

from ...graph_ir import Attr, Function, Graph, Model, Node, Rewriter, Value
from ...graph_ir.ops import graphs_within, input_at, label, opset_in
from ...graph_ir.origins import originals, set_origins
from ..base import Context, Exactness, Pass

Identifier = tuple[str, str, str]


class Inline(Pass):
    """Replace calls of model-local functions by their bodies (ONNX IR specification, "Functions").

    Inputs become the call's arguments (absent ones stay absent), attribute references its attributes or the
    function's defaults, and all names are made unique. Left as they are, with the reason noted: a function
    whose opset versions differ from the model's (its operators could mean something else there) or that calls
    itself, and a call that leaves out an input its function returns.
    """

    name: ClassVar[str] = "inline"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        if not model.functions:
            return False
        rewriter = ctx.rewriter(model)
        refused = _recursive(model)
        for identifier in sorted(refused):
            ctx.note(f"function {identifier[1]!r} was not inlined: it calls itself")
        inlined = 0
        kept: set[Node] = set()
        while calls := _calls(model, refused, kept):
            for call in calls:
                function = model.functions[call.op_identifier()]
                clash = _opset_clash(function, model) or _missing_result(call, function)
                if clash:
                    ctx.note(f"call {label(call)!r} of function {function.name!r} was not inlined: {clash}")
                    kept.add(call)
                elif rewriter.allowed("inline", call):
                    _inline(call, function, model, rewriter)
                    inlined += 1
                else:
                    kept.add(call)
        dropped = _drop_uncalled(model)
        ctx.counters["inlined"] += inlined
        return inlined > 0 or dropped


def _calls(model: Model, refused: set[Identifier], kept: set[Node]) -> list[Node]:
    return [
        node
        for graph in graphs_within(model.graph)
        for node in graph
        if node not in kept
        and node.op_identifier() in model.functions
        and node.op_identifier() not in refused
    ]


def _callees(graph: Graph, model: Model) -> set[Identifier]:
    found = {node.op_identifier() for inner in graphs_within(graph) for node in inner}
    return found & set(model.functions)


def _recursive(model: Model) -> set[Identifier]:
    """Functions that reach themselves: ONNX forbids them, and inlining would not end."""
    below = {identifier: _callees(f.graph, model) for identifier, f in model.functions.items()}
    found: set[Identifier] = set()
    for start, callees in below.items():
        stack, seen = list(callees), set[Identifier]()
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack.extend(below[current])
        if start in seen:
            found.add(start)
    return found


def _drop_uncalled(model: Model) -> bool:
    needed: set[Identifier] = set()
    stack = list(_callees(model.graph, model))
    while stack:
        current = stack.pop()
        if current not in needed:
            needed.add(current)
            stack.extend(_callees(model.functions[current].graph, model))
    idle = [identifier for identifier in model.functions if identifier not in needed]
    for identifier in idle:
        del model.functions[identifier]
    return bool(idle)


def _missing_result(call: Node, function: Function) -> str:
    """Why a result cannot be had: the function returns an input that the call leaves out."""
    for output, result in zip(call.outputs, function.outputs, strict=False):
        if output.name and result.is_graph_input():
            index = next(i for i, formal in enumerate(function.inputs) if formal is result)
            if input_at(call, index) is None:
                return f"it returns its input {result.name!r}, which the call leaves out"
    return ""


def _opset_clash(function: Function, model: Model) -> str:
    for domain, version in function.opset_imports.items():
        have = opset_in(model.opset_imports, domain)
        if have not in (0, version):
            return f"it uses opset {version} of {domain or 'ai.onnx'!r}, the model {have}"
    return ""


def _inline(call: Node, function: Function, model: Model, rewriter: Rewriter) -> None:
    body = function.clone()
    for domain, version in function.opset_imports.items():
        model.opset_imports.setdefault(domain, version)
    _bind_attributes(body.graph, call, function)
    prefix = call.name or call.op_type
    rewriter.adopt(body.graph, near=call)
    for graph in graphs_within(body.graph):
        for value in [*(graph.inputs if graph is not body.graph else ()), *graph.initializers.values()]:
            value.name = rewriter.fresh_name(f"{prefix}/{value.name}")
        for node in graph:
            set_origins(node, originals(call))
            node.name = rewriter.fresh_node_name(f"{prefix}/{node.name or node.op_type}")
            for output in node.outputs:
                if output.name:
                    output.name = rewriter.fresh_name(f"{prefix}/{output.name}")
    results = list(body.outputs)
    arguments = {formal: input_at(call, i) for i, formal in enumerate(body.inputs)}
    body.graph.outputs.clear()
    for formal, actual in arguments.items():
        for user, index in formal.uses():
            user.replace_input_with(index, actual)
    nodes = list(body.graph)
    body.graph.remove(nodes)
    target = call.graph
    assert target is not None
    target.insert_before(call, nodes)
    with rewriter.standing_for([call]):
        for output, result in zip(call.outputs, results, strict=False):
            passed = arguments.get(result, result)
            if passed is not None:
                _stand_in(output, passed, call, rewriter)
        rewriter.erase(call)


def _stand_in(output: Value, result: Value, call: Node, rewriter: Rewriter) -> None:
    """Let a result take the place of the call's output, through an Identity where two outputs share it."""
    if output.is_graph_output() and not rewriter.can_take_output(output, result):
        result = rewriter.node("Identity", [result], before=call, name=output.name or "").outputs[0]
    rewriter.replace(output, result)


def _bind_attributes(graph: Graph, call: Node, function: Function) -> None:
    """Put the call's attributes, or the defaults, in place of references; drop those given by neither."""
    for inner in graphs_within(graph):
        for node in inner:
            for name, attr in list(node.attributes.items()):
                if not attr.is_ref():
                    continue
                source = call.attributes.get(attr.ref_attr_name or "")
                if source is None:
                    source = function.attributes.get(attr.ref_attr_name or "")
                if source is None or source.value is None:
                    del node.attributes[name]
                elif source.is_ref():
                    node.attributes[name] = Attr(name, source.type, None, source.ref_attr_name)
                else:
                    node.attributes[name] = Attr(name, source.type, source.value)
