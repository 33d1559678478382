# SPDX-License-Identifier: Apache-2.0
"""What is kept between rules and passes to save work must not hide work, nor names that are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tersor.graph_ir import Model, Rewriter, Value, parse, verify
from tersor.graph_ir.names import Names
from tersor.passes.base import Context, Exactness, Pass
from tersor.passes.clean.cse import EliminateCommonSubexpressions
from tersor.passes.driver import apply_rules
from tersor.passes.pattern import Match, Rule, either, may_match, maybe, op, var
from tersor.pipeline import manager
from tersor.pipeline.instruments import Verify
from tersor.pipeline.spec import PassSpec, Pipeline

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


class SoftToRelu(Rule):
    """Softplus(x) -> Relu(x) (no truth in it)."""

    root = op("Softplus", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value:
        return rw.node("Relu", [m["x"]], before=m.root).outputs[0]


class NegOfRelu(Rule):
    """Neg(Relu(x)) -> Abs(x) (none either)."""

    root = op("Neg", op("Relu", var("x")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value:
        return rw.node("Abs", [m["x"]], before=m.root).outputs[0]


def test_a_rule_whose_operators_come_up_later_still_fires() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] y) { a = Softplus(x)\n y = Neg(a) }")
    assert apply_rules(model, Context(), [NegOfRelu(), SoftToRelu()])
    assert [node.op_type for node in model.graph] == ["Abs"]


def test_a_pattern_may_match_only_where_all_it_needs_occurs() -> None:
    pattern = op(
        ("Add", "Sub"), either(op("Relu", var("x")), op("Abs", var("x"))), maybe(op("Neg", var("y")))
    )
    assert may_match(pattern, {"Sub", "Abs"}.__contains__)
    assert not may_match(pattern, {"Sub", "Neg"}.__contains__)
    assert not may_match(pattern, {"Relu", "Abs", "Neg"}.__contains__)


def test_operators_are_counted_in_bodies_and_as_they_come_and_go() -> None:
    model = parse(
        HEAD
        + """g (bool c, float[2] x) => (float[2] y) { y = If<
        then_branch = t () => (float[2] p) { p = Relu(x) },
        else_branch = e () => (float[2] q) { q = Neg(x) }>(c) }"""
    )
    rewriter = Rewriter(model, names=Names(model))
    assert rewriter.occurs("Neg")
    assert not rewriter.occurs("Abs")
    made = rewriter.node("Abs", [model.graph.inputs[1]], before=model.graph[0])
    assert rewriter.occurs("Abs")
    rewriter.erase(made)
    assert not rewriter.occurs("Abs")


@dataclass(frozen=True)
class Backdoor(Pass):
    """Renames a value past the Rewriter."""

    name: ClassVar[str] = "backdoor"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        model.graph[0].outputs[0].name = "made"
        return True


@dataclass(frozen=True)
class Through(Pass):
    """Makes a node that asks for the same name."""

    name: ClassVar[str] = "through"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        ctx.rewriter(model).node("Abs", [model.graph.inputs[0]], before=model.graph[0], name="made")
        return True


def test_names_taken_past_the_rewriter_are_not_given_again() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] y) { a = Relu(x)\n y = Neg(a) }")
    specs = tuple(PassSpec(p.name, (), p) for p in (Backdoor(), Through(), Through()))
    manager.run(Pipeline(specs), model, None, [Verify()])
    assert [node.outputs[0].name for node in model.graph] == ["made_2", "made_1", "made", "y"]


def test_cse_tells_attributes_apart_and_follows_chains() -> None:
    model = parse(
        HEAD
        + """g (float[2,3] x) => (float[2,3] y) { a = Relu(x)\n b = Relu(x)\n c = Neg(a)\n d = Neg(b)
        e = Softmax<axis = 0>(x)\n f = Softmax<axis = 1>(x)
        g = Softmax<axis = 0>(x)\n h = Softmax<axis = 1>(x)
        y = Sum(c, d, e, f, g, h) }"""
    )
    assert EliminateCommonSubexpressions().run(model, Context())
    verify(model)
    assert [node.op_type for node in model.graph] == ["Relu", "Neg", "Softmax", "Softmax", "Sum"]
    names = [value.name for value in model.graph[-1].inputs if value is not None]
    assert names == ["c", "c", "e", "f", "e", "f"]


def test_cse_does_not_take_from_a_body_that_has_ended() -> None:
    model = parse(
        HEAD
        + """g (bool c, float[2] x) => (float[2] y, float[2] z) { a = Relu(x)
        y = If<then_branch = t () => (float[2] u) { p = Relu(x)\n u = Neg(p) },
               else_branch = e () => (float[2] w) { q = Exp(x)\n r = Exp(x)\n w = Add(q, r) }>(c)
        k = Exp(x)\n l = Exp(x)\n z = Add(k, l) }"""
    )
    assert EliminateCommonSubexpressions().run(model, Context())
    verify(model)
    assert [node.op_type for node in model.graph] == ["Relu", "If", "Exp", "Add"]
    bodies = [attr.as_graph() for attr in model.graph[1].attributes.values()]
    assert [[node.op_type for node in body] for body in bodies] == [["Neg"], ["Exp", "Add"]]


def test_nodes_are_found_again_after_others_came_went_and_moved() -> None:
    model = parse(
        HEAD
        + """g (bool c, float[2] x) => (float[2] y) { a = Relu(x)\n b = Relu(a)\n e = Neg(b)
        y = If<then_branch = t () => (float[2] p) { p = Relu(e) },
               else_branch = f () => (float[2] q) { q = Neg(e) }>(c) }"""
    )
    names = Names(model)
    rewriter = Rewriter(model, names=names)

    def found(op_type: str) -> list[str | None]:
        return [node.outputs[0].name for node in rewriter.nodes([op_type])]

    assert (found("Relu"), found("Neg")) == (["a", "b", "p"], ["e", "q"])
    first, second, third, branch = model.graph
    made = rewriter.node("Relu", [first.outputs[0]], before=second, name="new").outputs[0]
    assert found("Relu") == ["a", "new", "b", "p"]
    rewriter.replace(second.outputs[0], made)
    rewriter.erase(second)
    assert found("Relu") == ["a", "b", "p"]
    model.graph.outputs[0] = third.outputs[0]
    rewriter.erase(branch)
    assert (found("Relu"), found("Neg")) == (["a", "b"], ["e"])
    assert found("If") == []
    names.moved()
    model.graph.remove(first)
    model.graph.insert_before(made.producer() or third, first)
    assert found("Relu") == ["a", "b"]
