# SPDX-License-Identifier: Apache-2.0
"""The door for edits: names, outputs, provenance, constants, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tersor.graph_ir import (
    INFERRED,
    Model,
    Node,
    Rewriter,
    Value,
    parse,
    signature_of,
    to_proto,
    to_text,
    verify,
)
from tersor.graph_ir.ops import walk_graphs
from tersor.graph_ir.origins import origins

HEAD = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'


def main_model(nodes: str, outputs: str = "float[2] y", weights: str = "float[2] w = {1, 2}") -> Model:
    return parse(f"{HEAD}g (float[2] x, bool c) => ({outputs}) <{weights}> {{ {nodes} }}")


def find(model: Model, name: str) -> Value:
    for graph in walk_graphs(model):
        for value in (*graph.inputs, *graph.initializers.values()):
            if value.name == name:
                return value
        for node in graph:
            for value in node.outputs:
                if value.name == name:
                    return value
    raise KeyError(name)


def producer(model: Model, name: str) -> Node:
    node = find(model, name).producer()
    assert node is not None
    return node


NESTED = """h = Relu(x)
    y = If(c) <
        then_branch = a () => (float[2] t) { k = Neg(h)
            t = Abs(k) },
        else_branch = b () => (float[2] e) { e = Neg(x) }>"""


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("y", "fresh", "y = Elu(x)"),
        ("y", "h", "y = Relu(x)"),
        ("y", "x", "y = Identity(x)"),
        ("y", "w", "y = Identity(w)"),
        ("y", "z", "y = Identity(z)"),
        ("h", "fresh", "h = Elu(x)"),
        ("h", "x", "y = Neg(x)"),
    ],
)
def test_replace_keeps_the_signature(old: str, new: str, text: str) -> None:
    model = main_model("h = Relu(x)\n z = Abs(x)\n y = Neg(h)", "float[2] z, float[2] y")
    signature = signature_of(model)
    rewriter = Rewriter(model)
    at = producer(model, old)
    with rewriter.standing_for([at]):
        if new == "fresh":
            value = rewriter.node("Elu", [find(model, "x")], before=at).outputs[0]
        else:
            value = find(model, new)
        rewriter.replace(find(model, old), value)
        rewriter.erase(at)
    verify(model, signature)
    assert text in to_text(model)
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_replace_of_an_output_in_a_body_by_an_outer_value_makes_an_identity() -> None:
    model = main_model(NESTED)
    signature = signature_of(model)
    rewriter = Rewriter(model)
    rewriter.replace(find(model, "t"), find(model, "h"))
    verify(model, signature)
    assert "t = Identity(h)" in to_text(model)


def test_replace_where_one_value_is_two_outputs() -> None:
    model = main_model("y = Relu(x)", "float[2] y, float[2] y")
    rewriter = Rewriter(model)
    made = rewriter.node("Elu", [find(model, "x")], before=producer(model, "y"))
    rewriter.replace(find(model, "y"), made.outputs[0])
    verify(model)
    assert [v.name for v in model.graph.outputs] == ["y", "y"]
    assert all(v.producer() is made for v in model.graph.outputs)


def test_replace_of_an_input_that_is_an_output_changes_nothing() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] x, float[2] y) { y = Relu(x) }")
    rewriter, before = Rewriter(model), to_text(model)
    with pytest.raises(ValueError, match="no producer"):
        rewriter.replace(find(model, "x"), find(model, "y"))
    assert to_text(model) == before


def test_types_pass_to_new_values_and_inferred_ones_stay_unsaved() -> None:
    model = main_model("h = Relu(x)\n y = Neg(h)")
    old = find(model, "h")
    old.type, old.shape = find(model, "x").type, find(model, "x").shape
    old.meta[INFERRED] = True
    rewriter = Rewriter(model)
    made = rewriter.node("Elu", [find(model, "x")], before=producer(model, "h")).outputs[0]
    rewriter.replace(old, made)
    assert made.shape == old.shape
    assert not to_proto(model).graph.value_info


def test_names_are_unique_over_bodies_and_functions() -> None:
    model = parse(
        HEAD
        + f"g (float[2] x, bool c) => (float[2] y) {{ {NESTED} }}\n"
        + '<domain: "local", opset_import: ["" : 17]> f (p) => (q) { r = Neg(p)\n q = Abs(r) }'
    )
    rewriter = Rewriter(model)
    for name in "xhykter":
        assert rewriter.fresh_name(name) == f"{name}_1"
        assert rewriter.fresh_name(name) == f"{name}_2"
    assert [rewriter.fresh_name("p"), rewriter.fresh_name("q")] == ["p_1", "q_1"]
    assert [rewriter.fresh_name("new"), rewriter.fresh_name("new")] == ["new", "new_1"]


def test_a_name_two_bodies_use_is_not_free_when_one_lets_go() -> None:
    model = main_model(NESTED.replace("e = Neg(x)", "k = Neg(x)\n e = Floor(k)"))
    rewriter = Rewriter(model)
    rewriter.replace(find(model, "k"), find(model, "h"))
    rewriter.erase(producer(model, "k"))
    made = rewriter.node("Elu", [find(model, "x")], before=producer(model, "y"), name="k")
    assert made.outputs[0].name == "k_1"
    verify(model)


def test_a_thousand_names_of_one_hint_are_made_in_order() -> None:
    rewriter = Rewriter(main_model("y = Relu(x)"))
    made = [rewriter.fresh_name("y") for _ in range(1000)]
    assert made[0] == "y_1"
    assert made[-1] == "y_1000"


def test_node_names_are_unique_and_new_nodes_know_their_origins() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] y) { [first] h = Relu(x)\n [second] y = Neg(h) }")
    rewriter = Rewriter(model)
    first, second = model.graph
    with rewriter.standing_for([first, second]):
        made = rewriter.node("Elu", [model.graph.inputs[0]], before=second, name="first")
    assert made.name == "first_1"
    assert origins(made) == ("first", "second")
    with rewriter.standing_for([made]):
        again = rewriter.node("Abs", [made.outputs[0]], before=second)
    assert origins(again) == ("first", "second")
    alone = rewriter.node("Abs", [made.outputs[0]], before=second)
    assert origins(alone) == (alone.name,)
    assert len({node.name for node in model.graph}) == len(model.graph)


def test_constants_are_weights_in_bodies_and_nodes_in_functions() -> None:
    model = parse(
        HEAD
        + f"g (float[2] x, bool c) => (float[2] y) {{ {NESTED} }}\n"
        + '<domain: "local", opset_import: ["" : 17]> f (p) => (q) { q = Neg(p) }'
    )
    rewriter = Rewriter(model)
    array = np.array([1, 2], np.float32)
    inside = rewriter.constant(array, "w", near=producer(model, "k"))
    assert model.graph.initializers["w"] is inside
    assert inside.const_value is not None
    assert np.shares_memory(inside.const_value.numpy(), array)
    (function,) = model.functions.values()
    local = rewriter.constant(array, "w", near=function.graph[0])
    made = local.producer()
    assert made is not None
    assert made.op_type == "Constant"
    assert made.graph is function.graph
    assert local.name == "w_1"
    verify(model)


def test_a_weight_that_is_no_input_raises_the_ir_version_to_4() -> None:
    text = '<ir_version: 3, opset_import: ["" : 9]>\ng (float[2] x, float[2] w) => (float[2] y) '
    model = parse(text + "<float[2] w = {1, 2}> { y = Add(x, w) }")
    Rewriter(model).constant(np.ones(2, np.float32), "k", near=model.graph[0])
    assert model.ir_version == 4


def test_used_nodes_are_not_erased() -> None:
    model = main_model(NESTED)
    rewriter, before = Rewriter(model), to_text(model)
    for name in ("h", "k", "t", "y"):
        with pytest.raises(ValueError, match=f"still used through '{name}'"):
            rewriter.erase(producer(model, name))
    assert to_text(model) == before
    with pytest.raises(ValueError, match="still in use"):
        rewriter.drop_initializer(find(main_model("y = Add(x, w)"), "w"))


def test_erasing_a_node_lets_go_of_what_its_bodies_read() -> None:
    model = main_model(NESTED.replace("y =", "gone =") + "\n y = Abs(x)")
    rewriter = Rewriter(model)
    rewriter.erase(producer(model, "gone"))
    assert not find(model, "h").uses()
    rewriter.erase(producer(model, "h"))
    verify(model)
    assert [node.op_type for node in model.graph] == ["Abs"]
    assert rewriter.fresh_name("h") == "h"


def test_freezing_a_default_drops_the_input_and_keeps_the_weight() -> None:
    text = '<ir_version: 3, opset_import: ["" : 9]>\n'
    model = parse(text + "g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    told: list[Node] = []
    rewriter = Rewriter(model, on_node=told.append)
    rewriter.freeze_default(find(model, "w"))
    verify(model)
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert list(model.graph.initializers) == ["w"]
    onnx.checker.check_model(to_proto(model))  # before IR version 4 a weight had to be an input, too
    assert [node.op_type for node in told] == ["Add"]
    with pytest.raises(ValueError, match="not an input with a default"):
        rewriter.freeze_default(find(model, "x"))


def test_opset_is_that_of_the_function_a_node_is_in() -> None:
    model = parse(
        HEAD
        + f"g (float[2] x, bool c) => (float[2] y) {{ {NESTED} }}\n"
        + '<domain: "local", opset_import: ["ai.onnx" : 13, "other" : 2]> f (p) => (q) { q = Neg(p) }'
    )
    rewriter = Rewriter(model)
    (function,) = model.functions.values()
    assert rewriter.opset(producer(model, "k")) == 17
    assert rewriter.opset(function.graph[0]) == 13
    assert rewriter.opset(function.graph[0], "other") == 2
    assert rewriter.opset(producer(model, "k"), "other") == 0


def test_edits_are_counted_and_a_bisection_can_say_no() -> None:
    model = main_model("h = Relu(x)\n y = Neg(h)")
    asked: list[tuple[str, Node]] = []

    def allow(rule: str, node: Node) -> bool:
        asked.append((rule, node))
        return len(asked) < 2

    rewriter = Rewriter(model, allow=allow)
    node = producer(model, "y")
    assert [rewriter.allowed("r", node), rewriter.allowed("r", node)] == [True, False]
    assert asked == [("r", node)] * 2
    assert rewriter.edits == 0
    rewriter.set_attribute(node, "alpha", 0.5)
    rewriter.set_attribute(node, "alpha", None)
    rewriter.set_input(node, 0, find(model, "x"))
    rewriter.set_input(node, 1, find(model, "w"))
    rewriter.trim_inputs(node, 1)
    rewriter.erase(producer(model, "h"))
    assert rewriter.edits == 6
    verify(model)


def test_a_node_edited_in_place_counts_as_new() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] h> { [first] h = Relu(x)\n [second] y = Neg(h) }"
    model = parse(HEAD + text)
    rewriter = Rewriter(model)
    first, second = model.graph
    signature = signature_of(model)
    with rewriter.standing_for([second, first]):
        rewriter.set_attribute(first, "alpha", 0.5)
        rewriter.remade(first, result=True)
        assert first.outputs[0].type is None
        rewriter.replace(second.outputs[0], first.outputs[0])
    rewriter.erase(second)
    verify(model, signature)
    assert origins(first) == ("second", "first")
    assert [first.name, first.outputs[0].name] == ["first", "y"]
    assert not to_proto(model).graph.value_info
    assert rewriter.fresh_name("h") == "h"


def test_values_a_node_no_longer_reads_are_released() -> None:
    model = main_model("h = Relu(x)\n y = Add(h, w)")
    rewriter = Rewriter(model)
    rewriter.set_input(producer(model, "y"), 1, find(model, "x"))
    assert list(rewriter.released) == [find(model, "w")]
