# SPDX-License-Identifier: Apache-2.0
"""Each rule of the verifier, broken by hand, raises an error that names the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir  # noqa: TID251 - the rules are broken behind the Rewriter's back
import pytest

from tersor.graph_ir import Model, Node, Shape, VerifyError, parse, signature_of, tensor, verify
from tersor.graph_ir.verify import operator_bounds

TEXT = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[N,2] x, bool c, float[2] d) => (float[N,2] y, float[N,2] h)
<float[2] w = {1, 2}, float[2] d = {1, 2}> {
    [add] h = Add(x, w)
    [if] i = If(c) <
        then_branch = a () => (float[N,2] t) { [neg] k = Neg(h)
            [abs] t = Abs(k) },
        else_branch = b () => (float[N,2] e) { e = Neg(x) }>
    [call] f = local.f(i, h)
    [clip] y = Clip(f)
}
<domain: "local", opset_import: ["" : 17]> f (p, q) => (r) { [sub] s = Sub(p, q)
    r = Neg(s) }"""


LOOP = """y = Loop(, go, x) <body = b (int64 i, bool g, float[2] v) => (bool h, float[2] u) {
    h = Not(g)
    u = Abs(v) }>"""


def node(model: Model, name: str) -> Node:
    then = model.graph[1].attributes["then_branch"].as_graph()
    (function,) = model.functions.values()
    return next(n for g in (model.graph, then, function.graph) for n in g if n.name == name)


def read_later(model: Model) -> None:
    node(model, "add").replace_input_with(0, node(model, "clip").outputs[0])


def read_from_body(model: Model) -> None:
    node(model, "clip").replace_input_with(0, node(model, "neg").outputs[0])


def read_nowhere(model: Model) -> None:
    node(model, "abs").replace_input_with(0, ir.Value(name="k"))


def read_across_functions(model: Model) -> None:
    node(model, "sub").replace_input_with(0, model.graph.inputs[0])


def same_name(model: Model) -> None:
    node(model, "clip").outputs[0].name = "x"


def name_hidden_in_body(model: Model) -> None:
    node(model, "neg").outputs[0].name = "h"


def same_name_in_function(model: Model) -> None:
    node(model, "sub").outputs[0].name = "p"


def nameless(model: Model) -> None:
    model.graph.inputs[0].name = ""


def output_unmade(model: Model) -> None:
    model.graph.outputs[0] = ir.Value(name="y")


def output_of_body_from_outside(model: Model) -> None:
    then = model.graph[1].attributes["then_branch"].as_graph()
    then.outputs[0] = node(model, "call").outputs[0]


def no_data(model: Model) -> None:
    model.graph.initializers["w"].const_value = None


def wrong_dtype(model: Model) -> None:
    model.graph.initializers["w"].const_value = tensor(np.zeros(2, np.int64))


def wrong_shape(model: Model) -> None:
    model.graph.initializers["w"].const_value = tensor(np.zeros(3, np.float32))


def too_many_inputs(model: Model) -> None:
    node(model, "neg").resize_inputs(2)
    node(model, "neg").replace_input_with(1, model.graph.inputs[0])


def required_input_left_out(model: Model) -> None:
    node(model, "add").replace_input_with(0, None)


def last_input_left_out(model: Model) -> None:
    node(model, "add").replace_input_with(1, None)


def unknown_domain(model: Model) -> None:
    node(model, "neg").domain = "com.nowhere"


def call_with_too_many(model: Model) -> None:
    node(model, "call").resize_inputs(3)


def foreign_reader(model: Model) -> None:
    """A node in no graph still reads a value (what forgetting to let go leaves behind)."""
    ir.Node("", "Abs", [model.graph.inputs[0]])


def unread_foreign_reader(model: Model) -> None:
    ir.Node("", "Abs", [node(model, "clip").outputs[0]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (read_later, "node 'add' reads 'y', which is not defined before it"),
        (read_from_body, "node 'clip' reads 'k', which is not defined before it"),
        (read_nowhere, "node 'abs' reads 'k', which is not defined before it"),
        (read_across_functions, "node 'sub' reads 'x', which is not defined|value 'x' has 2 readers"),
        (same_name, "name 'x' is defined twice, again as node output in graph 'g'"),
        (name_hidden_in_body, "name 'h' is defined twice, again as node output in graph 'a'"),
        (same_name_in_function, "name 'p' is defined twice, again as node output"),
        (nameless, "input without a name in graph 'g'"),
        (output_unmade, "output 'y' of graph 'g' is not produced in it"),
        (output_of_body_from_outside, "output 'f' of graph 'a' is not produced in it"),
        (no_data, "initializer 'w' has no data"),
        (wrong_dtype, "initializer 'w' is declared FLOAT but holds INT64"),
        (wrong_shape, r"initializer 'w' is declared \[2\] but holds \[3\]"),
        (too_many_inputs, "node 'neg': Neg .opset 17. takes 1 to 1 inputs and at most 1 outputs, not 2"),
        (required_input_left_out, "node 'add': Add .opset 17. needs its input 0"),
        (last_input_left_out, "node 'add': Add .opset 17. takes 2 to 2 inputs"),
        (unknown_domain, "node 'neg' uses domain 'com.nowhere', which has no opset import"),
        (call_with_too_many, "node 'call': function f takes 2 inputs and has 1 outputs, not 3 and 1"),
        (foreign_reader, "value 'x' has 2 readers but records 3"),
        (unread_foreign_reader, "value 'y' has 0 readers but records 1"),
    ],
)
def test_a_broken_rule_is_named(damage: Callable[[Model], None], message: str) -> None:
    model = parse(TEXT)
    verify(model, signature_of(model))
    damage(model)
    with pytest.raises(VerifyError, match=message) as caught:
        verify(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def rename_output(model: Model) -> None:
    model.graph.outputs[0].name = "other"


def swap_outputs(model: Model) -> None:
    model.graph.outputs[:] = [model.graph.outputs[1], model.graph.outputs[0]]


def drop_output(model: Model) -> None:
    del model.graph.outputs[1]


def fix_batch(model: Model) -> None:
    model.graph.inputs[0].shape = Shape([1, 2])


def retype_output(model: Model) -> None:
    model.graph.outputs[0].type = model.graph.inputs[1].type


def freeze(model: Model) -> None:
    del model.graph.inputs[2]


@pytest.mark.parametrize(
    "change", [rename_output, swap_outputs, drop_output, fix_batch, retype_output, freeze]
)
def test_a_changed_signature_is_caught(change: Callable[[Model], None]) -> None:
    model = parse(TEXT)
    signature = signature_of(model)
    change(model)
    verify(model)
    with pytest.raises(VerifyError, match="model signature changed: ") as caught:
        verify(model, signature)
    assert len(str(caught.value)) < 200


def test_the_signature_tells_required_from_optional_inputs() -> None:
    signature = signature_of(parse(TEXT))
    assert signature.inputs == (("x", "FLOAT", ("N", 2)), ("c", "BOOL", ()))
    assert signature.optional == ("d",)
    assert [name for name, _, _ in signature.outputs] == ["y", "h"]


@pytest.mark.parametrize(
    "line",
    [
        "y = Clip(x, , top)",
        LOOP,
        "y = NoSuchOperator(x, x, x)",
        "y = Sum(x)",
        "y, = Dropout(x)",
    ],
)
def test_legal_nodes_pass(line: str) -> None:
    head = '<ir_version: 8, opset_import: ["" : 17]>\n'
    verify(parse(f"{head}g (float[2] x, float top, bool go) => (float[2] y) {{ {line} }}"))


def test_an_operator_is_looked_up_once() -> None:
    operator_bounds.cache_clear()
    lines = "\n".join(f"v{i + 1} = Neg(v{i})" for i in range(2000))
    head = '<ir_version: 8, opset_import: ["" : 17]>\n'
    verify(parse(f"{head}g (float[2] v0) => (float[2] v2000) {{ {lines} }}"))
    assert operator_bounds.cache_info().misses == 1
