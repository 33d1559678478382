# SPDX-License-Identifier: Apache-2.0
"""The worklist driver: order, sweeping, misses, bodies and functions, runaway rules, linear work."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Rewriter, UsageError, Value, parse, to_text, verify
from tersor.graph_ir.ops import walk_nodes
from tersor.graph_ir.origins import origins
from tersor.passes import driver
from tersor.passes.base import Context
from tersor.passes.driver import apply_rules
from tersor.passes.pattern import Match, Miss, Op, Rule, op, var

HEAD = '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'


class DoubleNeg(Rule):
    """Neg(Neg(x)) -> x."""

    root = op("Neg", op("Neg", var("x")))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        old = m.root.outputs[0]
        return Miss("output") if old.is_graph_output() else m["x"]


class AbsToRelu(Rule):
    """Abs(x) -> Relu(x) (no truth in it)."""

    root = op("Abs", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        return rw.node("Relu", [m["x"]], before=m.root).outputs[0]


class ReluToAbs(Rule):
    """The other way."""

    root = op("Relu", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        return rw.node("Abs", [m["x"]], before=m.root).outputs[0]


class InPlace(Rule):
    """Elu with any alpha gets 1."""

    root = op("Elu", var("x"))

    def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
        if "alpha" in m.root.attributes:
            rw.set_attribute(m.root, "alpha", None)
        return None


def chain(kind: str, size: int) -> str:
    lines = "\n".join(f"v{i + 1} = {kind}(v{i})" for i in range(size))
    return f"{HEAD}g (float[2] v0) => (float[2] y) {{ {lines}\n y = Floor(v{size}) }}"


@pytest.mark.parametrize(("size", "left"), [(2, []), (3, ["Neg"]), (8, []), (9, ["Neg"])])
def test_rules_apply_until_nothing_fires(size: int, left: list[str]) -> None:
    model, ctx = parse(chain("Neg", size)), Context()
    assert apply_rules(model, ctx, [DoubleNeg()])
    verify(model)
    assert [n.op_type for n in model.graph] == [*left, "Floor"]
    assert ctx.counters["DoubleNeg"] == size // 2
    assert not apply_rules(model, ctx, [DoubleNeg()])


def test_misses_are_counted_and_change_nothing() -> None:
    model, ctx = parse(HEAD + "g (float[2] x) => (float[2] y) { h = Neg(x)\n y = Neg(h) }"), Context()
    before = to_text(model)
    assert not apply_rules(model, ctx, [DoubleNeg()])
    assert ctx.misses == {("DoubleNeg", "output"): 1}
    assert to_text(model) == before


def test_bodies_and_functions_are_reached() -> None:
    model = parse(
        HEAD
        + """g (float[2] x, bool c) => (float[2] y) {
            i = If(c) <then_branch = a () => (float[2] p) { p = Abs(x) },
                else_branch = b () => (float[2] q) { q = Abs(x) }>
            y = local.f(i)
        }
        <domain: "local", opset_import: ["" : 17]> f (u) => (v) { v = Abs(u) }"""
    )
    ctx = Context()
    assert apply_rules(model, ctx, [AbsToRelu()])
    verify(model)
    assert [n.op_type for n in walk_nodes(model)] == ["If", "f", "Relu", "Relu", "Relu"]


def test_new_nodes_carry_the_origins_of_all_matched_nodes() -> None:
    class Both(Rule):
        root = op("Neg", op("Abs", var("x")))

        def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
            return rw.node("Relu", [m["x"]], before=m.root).outputs[0]

    model = parse(HEAD + "g (float[2] x) => (float[2] y) { [one] h = Abs(x)\n [two] y = Neg(h) }")
    assert apply_rules(model, Context(), [Both()])
    assert [(n.op_type, sorted(origins(n))) for n in model.graph] == [("Relu", ["one", "two"])]


def test_an_edit_in_place_counts_once() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] y) { y = Elu<alpha = 0.5>(x) }")
    ctx = Context()
    assert apply_rules(model, ctx, [InPlace()])
    assert ctx.counters == {"InPlace": 1}
    assert not apply_rules(model, ctx, [InPlace()])


def test_rules_that_undo_each_other_are_named() -> None:
    model = parse(HEAD + "g (float[2] x) => (float[2] y) { y = Abs(x) }")
    with pytest.raises(UsageError, match=r"rule (AbsToRelu|ReluToAbs) fires for ever, last at node"):
        apply_rules(model, Context(), [AbsToRelu(), ReluToAbs()])


def test_a_bisection_stops_single_rewrites() -> None:
    model = parse(chain("Abs", 5))
    asked: list[str] = []

    def allow(rule: str, node: object) -> bool:
        asked.append(rule)
        return len(asked) <= 3

    assert apply_rules(model, Context(allow=allow), [AbsToRelu()])
    assert [n.op_type for n in model.graph] == ["Relu"] * 3 + ["Abs"] * 2 + ["Floor"]


def test_unused_matched_nodes_go_and_shared_ones_stay() -> None:
    class Shared(Rule):
        root = op("Neg", op("Abs", var("x")).shared())

        def rewrite(self, m: Match, rw: Rewriter) -> Value | Miss | None:
            return rw.node("Relu", [m["x"]], before=m.root).outputs[0]

    text = HEAD + "g (float[2] x) => (float[2] y, float[2] z) {{ h = Abs(x)\n y = Neg(h)\n z = {} }}"
    model = parse(text.format("Floor(h)"))
    apply_rules(model, Context(), [Shared()])
    verify(model)
    assert [n.op_type for n in model.graph] == ["Abs", "Relu", "Floor"]
    model = parse(text.format("Floor(x)"))
    apply_rules(model, Context(), [Shared()])
    assert [n.op_type for n in model.graph] == ["Relu", "Floor"]


def test_matches_tried_grow_with_nodes_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    real = driver.match

    def counted(pattern: Op, node: object) -> Match | None:
        nonlocal tried
        tried += 1
        return real(pattern, node)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(driver, "match", counted)
    model, ctx = parse(chain("Neg", 20_000)), Context()
    assert apply_rules(model, ctx, [DoubleNeg(), AbsToRelu()])
    assert ctx.counters["DoubleNeg"] == 10_000
    assert tried <= 60_000
    assert len(model.graph) == 1
