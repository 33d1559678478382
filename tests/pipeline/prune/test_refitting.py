# SPDX-License-Identifier: Apache-2.0
"""Refitted weights are kept only where the whole model comes closer on data kept from the fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.cost import cost
from tersor.analysis.coupling import couple
from tersor.analysis.evaluate import Evaluator
from tersor.graph_ir import Model, Rewriter, constant, fingerprint, parse
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_plan
from tersor.passes.prune.plan import Cut, PrunePlan
from tersor.pipeline.prune import refitting
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.effort import Effort
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.layers import linear_layers
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.spend import Spend

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,8] x) => (float[N,4] y) <float[8,32] w = {seed}, float[32,4] v = {seed}>
{ h = MatMul(x, w) y = MatMul(h, v) }
"""


def feeds(count: int) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((4, 8)).astype(np.float32)} for _ in range(count)]


def pruned() -> tuple[Model, Model, PrunePlan]:
    original = parse(TEXT)
    plan = PrunePlan(fingerprint(original), (Cut(couple(original).groups[0].name, 32, tuple(range(16))),))
    model = original.clone()
    assert apply_plan(model, plan, Context())
    return original, model, plan


def test_what_a_refit_can_make_up_for_is_made_up_for() -> None:
    original, model, plan = pruned()
    found, note = refitting.refitted(original, model, plan, couple(original), feeds(32), 0)
    assert not note
    feed = feeds(40)[-1]
    want, sliced, got = (Evaluator(m).run(feed)["y"] for m in (original, model, found))
    assert np.abs(got - want).max() < 1e-2 * np.abs(sliced - want).max()


def test_a_refit_that_does_not_help_the_model_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def harm(original: Model, made: Model, *rest: object, seed: int, progress: object) -> None:
        value = made.graph.initializers["v"]
        array = constant(value)
        assert array is not None
        Rewriter(made).set_data(value, np.full_like(array, -100))

    monkeypatch.setattr(refitting, "refit", harm)
    original, model, plan = pruned()
    found, note = refitting.refitted(original, model, plan, couple(original), feeds(32), 0)
    assert found is model
    assert "no closer" in note
    # Of so few feeds none is spared, so nothing tells.
    assert refitting.refitted(original, model, plan, couple(original), feeds(3), 0)[0] is not model


def test_the_fit_does_not_see_what_judges_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []

    def watch(original: Model, made: Model, masks: object, data: Any, *, seed: int, progress: object) -> None:
        seen.extend([[float(f["x"][0, 0]) for f in data]] * 2)

    monkeypatch.setattr(refitting, "refit", watch)
    original, model, plan = pruned()
    given = feeds(16)
    refitting.refitted(original, model, plan, couple(original), given, 0)
    assert len(seen[0]) == 14
    assert set(seen[0]) < {float(f["x"][0, 0]) for f in given}


def test_layers_in_bodies_are_pruned_by_their_weights_and_not_refitted() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,8] x, bool c) => (float[N,4] y) <float[8,32] w = {seed}, float[32,4] v = {seed}> {
          y = If (c) <then_branch = t () => (float[N,4] p) { h = MatMul(x, w) p = MatMul(h, v) },
                      else_branch = e () => (float[N,4] q) { q = MatMul(x, u) }>
        }""".replace("float[32,4] v", "float[8,4] u = {seed}, float[32,4] v")
    )
    data = [{**feed, "c": np.array(True)} for feed in feeds(8)]
    result = prune(model, Job(Budget("params", 0.6)), feeds=data)
    assert [(g.group, g.after) for g in result.groups] == [("h:1", 16)]
    assert refitting.IN_BODIES in result.notes


def test_layers_in_bodies_beside_others_that_are_refitted_are_told() -> None:
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,8] x, bool c) => (float[N,4] y)
        <float[8,32] w = {seed}, float[32,4] v = {seed}, float[32,4] u = {seed}> {
          h = MatMul(x, w)  s = MatMul(h, u)
          t = If (c) <then_branch = a () => (float[N,4] p) { p = MatMul(h, v) },
                      else_branch = b () => (float[N,4] q) { q = Identity(s) }>
          y = Add(s, t)
        }"""
    )
    data = [{**feed, "c": np.array(True)} for feed in feeds(8)]
    notes = prune(model, Job(Budget("params", 0.6)), feeds=data).notes
    assert f"1 of 2 layers that read what was cut {refitting.IN_PART}" in notes


def test_layers_in_bodies_count_towards_macs_and_time() -> None:
    """MACs are those of the dearest branch; time is of every one, for either may run."""
    model = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[1,8] x, bool c) => (float[1,4] y)
        <float[8,32] w = {seed}, float[32,4] v = {seed}, float[8,64] u = {seed}, float[64,4] t = {seed}> {
          y = If (c) <then_branch = a () => (float[1,4] p) { h = MatMul(x, w) p = MatMul(h, v) },
                      else_branch = b () => (float[1,4] q) { g = MatMul(x, u) q = MatMul(g, t) }>
        }"""
    )
    coupling = couple(model)
    spend = Spend(model, coupling)
    assert [group.name for group in coupling.groups] == ["h:1", "g:1"]
    assert spend.left("macs", np.array([16, 64])) == pytest.approx(1)
    assert spend.left("macs", np.array([32, 48])) == pytest.approx(0.75)
    assert spend.left("macs", np.array([32, 16])) == pytest.approx(0.5)
    assert Effort(spend, model, 16, {}).left(np.array([16, 32])) < 0.75
    assert [placed.node.op_type for placed in linear_layers(model, {})] == ["MatMul"] * 4
    pruned = prune(model, Job(Budget("macs", 0.5)))
    assert [g.after for g in pruned.groups] == [16, 32]
    assert cost(pruned.model).macs == 0.5 * cost(model).macs


def test_tells_how_far_it_is() -> None:
    original, model, plan = pruned()
    told: list[tuple[str, int, int | None]] = []
    refitting.refitted(
        original,
        model,
        plan,
        couple(original),
        feeds(16),
        0,
        tell=lambda stage, done, total: told.append((stage, done, total)),
    )
    stages, done, totals = zip(*told, strict=True)
    assert set(stages) == {"refitting weights"}
    assert list(done) == list(range(len(told)))
    assert totals[-1] == done[-1] > 0
