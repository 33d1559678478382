# SPDX-License-Identifier: Apache-2.0
"""The pattern kernel: what matches, what must not, and that matching is linear."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, Node, parse
from tersor.graph_ir.ops import is_standard
from tersor.passes import matching
from tersor.passes.matching import match
from tersor.passes.pattern import Match, Op, commute, const, either, maybe, op, scalar, var

HEAD = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'


def model_of(nodes: str, outputs: str = "float[2] y", inputs: str = "float[2] x, float[2] z") -> Model:
    weights = "float w = {2}, float[2] v = {2, 2}, float free = {2}"
    return parse(f"{HEAD}g ({inputs}, float free) => ({outputs}) <{weights}> {{ {nodes} }}")


def at_end(root: Op, nodes: str, outputs: str = "float[2] y") -> Match | None:
    """The pattern's match at the last node."""
    return match(root, list(model_of(nodes, outputs).graph)[-1])


def names(found: Match | None) -> dict[str, str | None]:
    assert found is not None
    return {k: None if v is None else v.name for k, v in found.values.items()}


def test_a_tree_binds_its_leaves() -> None:
    inner = op("Mul", var("a"), const("k"))
    found = at_end(op("Add", inner, var("b")), "h = Mul(x, w)\n y = Add(h, z)")
    assert names(found) == {"a": "x", "k": "w", "b": "z"}
    assert found is not None
    assert found.node(inner).op_type == "Mul"
    assert found.array("k").tolist() == 2
    assert found.root.op_type == "Add"


@pytest.mark.parametrize("nodes", ["h = Mul(x, w)\n y = Add(h, z)", "h = Mul(w, x)\n y = Add(z, h)"])
def test_commuting_operands_match_either_way(nodes: str) -> None:
    root = commute("Add", commute("Mul", var("a"), const("k")), var("b"))
    assert names(at_end(root, nodes)) == {"a": "x", "k": "w", "b": "z"}


def test_operands_that_do_not_commute_match_one_way() -> None:
    root = op("Sub", var("a"), const("k"))
    assert at_end(root, "y = Sub(x, w)") is not None
    assert at_end(root, "y = Sub(w, x)") is None


def test_the_same_name_is_the_same_value() -> None:
    root = op("Mul", op("Sigmoid", var("x")), var("x"))
    assert at_end(root, "s = Sigmoid(x)\n y = Mul(s, x)") is not None
    assert at_end(root, "s = Sigmoid(z)\n y = Mul(s, x)") is None


def test_a_commuting_pattern_backtracks_over_names() -> None:
    root = commute("Add", commute("Mul", var("a"), var("b")), var("a"))
    found = at_end(root, "h = Mul(x, z)\n y = Add(h, z)")
    assert names(found) == {"a": "z", "b": "x"}


def test_the_same_pattern_object_is_the_same_node() -> None:
    inner = op("Relu", var("a"))
    root = op("Add", inner, inner)
    assert at_end(root, "h = Relu(x)\n y = Add(h, h)") is not None
    assert at_end(root, "h = Relu(x)\n g = Relu(x)\n y = Add(h, g)") is None


def test_maybe_matches_an_input_left_out() -> None:
    root = op("Clip", var("a"), maybe(const("low")), maybe(const("high")))
    for inputs, wanted in (
        ("x", {"a": "x", "low": None, "high": None}),
        ("x, w", {"a": "x", "low": "w", "high": None}),
        ("x, , w", {"a": "x", "low": None, "high": "w"}),
    ):
        found = at_end(root, f"y = Clip({inputs})")
        assert names(found) == wanted
        assert found is not None
        assert (found.get("low") is None) == (wanted["low"] is None)
    assert at_end(root, "m = ReduceMax(z)\n y = Clip(x, m)") is None
    with pytest.raises(KeyError):
        _ = Match(model_of("y = Relu(x)").graph[0])["a"]


def test_inputs_beyond_the_pattern_must_be_absent() -> None:
    assert at_end(op("Clip", var("a")), "y = Clip(x, , )") is not None
    assert at_end(op("Clip", var("a")), "y = Clip(x, w)") is None
    assert at_end(op("Clip", var("a"), var("b")), "y = Clip(x)") is None


def test_either_takes_the_first_that_fits() -> None:
    root = op("Neg", either(op("Relu", var("r")), op("Abs", var("a")), var("any")))
    assert names(at_end(root, "h = Relu(x)\n y = Neg(h)")) == {"r": "x"}
    assert names(at_end(root, "h = Abs(x)\n y = Neg(h)")) == {"a": "x"}
    assert names(at_end(root, "y = Neg(x)")) == {"any": "x"}


def test_several_types_and_named_results() -> None:
    root = op(("Relu", "Abs"), op("Neg", var("a")).named("inner"))
    assert names(at_end(root, "h = Neg(x)\n y = Abs(h)")) == {"a": "x", "inner": "h"}


@pytest.mark.parametrize("other", ["k = Abs(h)", ""])
def test_an_inner_result_that_others_see_does_not_match(other: str) -> None:
    nodes, outputs = (
        f"h = Neg(x)\n {other}\n y = Relu(h)",
        "float[2] y" if other else "float[2] y, float[2] h",
    )
    assert at_end(op("Relu", op("Neg", var("a"))), nodes, outputs) is None
    assert at_end(op("Relu", op("Neg", var("a")).shared()), nodes, outputs) is not None


def test_an_inner_result_read_in_a_body_does_not_match() -> None:
    nodes = """h = Neg(x)
        t = ReduceMax<keepdims = 0>(x)
        b = Cast<to = 9>(t)
        i = If(b) <then_branch = a () => (float[2] p) { p = Abs(h) },
            else_branch = e () => (float[2] q) { q = Abs(x) }>
        y = Relu(h)"""
    assert at_end(op("Relu", op("Neg", var("a"))), nodes, "float[2] y, float[2] i") is None


def test_a_pattern_does_not_reach_out_of_a_body_unless_shared() -> None:
    nodes = """h = Neg(x)
        y = If(b) <then_branch = a () => (float[2] p) { p = Relu(h) },
            else_branch = e () => (float[2] q) { q = Abs(x) }>"""
    model = model_of(nodes, inputs="float[2] x, bool b")
    inside = model.graph[1].attributes["then_branch"].as_graph()[0]
    assert match(op("Relu", op("Neg", var("a"))), inside) is None
    assert match(op("Relu", op("Neg", var("a")).shared()), inside) is not None


def test_second_outputs_do_not_match() -> None:
    nodes = "a, b = Split<axis = 0>(x)\n y = Relu({})"
    root = op("Relu", op("Split", var("x")))
    assert at_end(root, nodes.format("a"), "float[1] y") is not None
    assert at_end(root, nodes.format("b"), "float[1] y") is None


def test_a_second_output_that_is_read_keeps_the_node() -> None:
    nodes = "a, b = Split<axis = 0>(x)\n c = Abs(b)\n y = Relu(a)"
    assert at_end(op("Relu", op("Split", var("x"))), nodes, "float[1] y, float[1] c") is None


def test_constants_are_never_what_a_caller_may_override() -> None:
    assert at_end(op("Mul", var("a"), const("k")), "y = Mul(x, free)") is None
    assert at_end(op("Mul", var("a"), scalar(2)), "y = Mul(x, free)") is None


def test_scalars_match_by_value_and_size() -> None:
    assert at_end(op("Mul", var("a"), scalar(2)), "y = Mul(x, w)") is not None
    assert at_end(op("Mul", var("a"), scalar(2.0001)), "y = Mul(x, w)") is None
    assert at_end(op("Mul", var("a"), scalar(2.0001, 1e-3)), "y = Mul(x, w)") is not None
    assert at_end(op("Mul", var("a"), scalar(2)), "y = Mul(x, v)") is None
    assert (
        at_end(op("Mul", var("a"), scalar(2)), "k = Constant<value_float = 2.0>()\n y = Mul(x, k)")
        is not None
    )


def test_reference_attributes_and_foreign_domains_never_match() -> None:
    text = (
        f"{HEAD}g (float[2] x) => (float[2] y) {{ y = local.f<s = 0.5>(x) }}\n"
        '<domain: "local", opset_import: ["" : 17, "other" : 1]> '
        "f <s> (p) => (r) { q = Elu<alpha: float = @s>(p)\n r = other.Neg(q) }"
    )
    (function,) = parse(text).functions.values()
    assert match(op("Elu", var("a")), function.graph[0]) is None
    assert match(op("Neg", var("a")), function.graph[1]) is None
    assert match(op("Neg", op("Elu", var("a"))), function.graph[1]) is None


def test_matching_a_chain_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root looks at no more nodes than the pattern has, however large the graph."""
    looked: list[int] = []

    def counted(node: Node) -> bool:
        looked[-1] += 1
        return is_standard(node)

    monkeypatch.setattr(matching, "is_standard", counted)
    root = commute("Add", commute("Add", commute("Add", var("a"), var("k")), var("k")), const("c"))
    for size in (500, 5000):
        lines = "\n".join(f"v{i + 1} = Add(v{i}, {'x' if i % 3 else 'z'})" for i in range(size))
        model = model_of(lines, f"float[2] v{size}", "float[2] x, float[2] z, float[2] v0")
        looked.append(0)
        assert all(match(root, node) is None for node in model.graph)
    assert looked[0] <= 3 * 500
    assert looked[1] <= 3 * 5000
