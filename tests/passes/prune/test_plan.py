# SPDX-License-Identifier: Apache-2.0
"""Plans are read as they were written, compose, and are refused for other models, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, UsageError, fingerprint, to_proto
from tersor.passes import catalog
from tersor.passes.base import Context
from tersor.passes.prune.apply import ApplyPlan, apply_plan
from tersor.passes.prune.compose import compose, continued
from tersor.passes.prune.plan import Cut, PrunePlan, Widths, load_plan
from tests.support.prune_blocks import BLOCKS
from tests.support.prune_cuts import assert_equal, half, parameters
from tests.support.prune_oracle import oracle
from tests.support.rewriting import snapshot

MARK = "0" * 32


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    atoms = draw(st.integers(1, 40))
    kept = draw(st.sets(st.integers(0, atoms - 1), min_size=1))
    count = st.integers(1, 99)
    widths = draw(st.none() | st.builds(Widths, count, st.integers(0, 99), count))
    return Cut(draw(st.text(max_size=8)), atoms, tuple(sorted(kept)), draw(st.text(max_size=8)), widths)


@given(st.lists(cuts(), max_size=4, unique_by=lambda c: c.group), st.integers(1, 9))
def test_what_is_written_is_read(given_cuts: list[Cut], rounds: int) -> None:
    plan = PrunePlan(MARK, tuple(given_cuts), rounds)
    text = plan.to_json()
    assert PrunePlan.from_json(text) == plan
    assert PrunePlan.from_json(text).to_json() == text


def test_a_plan_reads_a_line_a_group(tmp_path: Path) -> None:
    first = Cut("conv:1", 20, (*range(16), 18), "l1", Widths(20, 14, 17))
    plan = PrunePlan(MARK, (first, Cut("fc:0", 3, (0, 2))), rounds=2)
    plan.save(tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plan
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    line = '  {"group": "conv:1", "atoms": 20, "kept": "0-15,18", "widths": [20, 14, 17], "why": "l1"},\n'
    assert line in text
    assert '"kept": "0,2"' in text
    assert not plan.kept()["fc:0"][1]
    assert plan.kept()["conv:1"].sum() == 17


def test_a_plan_may_cut_nothing() -> None:
    plan = PrunePlan(MARK)
    assert PrunePlan.from_json(plan.to_json()) == plan


def one(**changes: object) -> str:
    entry = {"group": '"g"', "atoms": 4, "kept": '"0-1"', "why": '""'} | changes
    inner = ", ".join(f'"{key}": {value}' for key, value in entry.items())
    return f'{{"format": 1, "fingerprint": "{MARK}", "rounds": 1, "cuts": [{{{inner}}}]}}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "here is not JSON: Expecting value"),
        ("[]", "here holds no JSON object, but a list"),
        ("{}", "here has format None; this tersor reads 1"),
        ('{"format": 1, "cuts": []}', "lacks a fingerprint, rounds or cuts"),
        ('{"format": 1, "fingerprint": "0", "cuts": {}}', "lacks a fingerprint, rounds or cuts"),
        ('{"format": 1, "fingerprint": "0", "rounds": 0, "cuts": []}', "lacks a fingerprint"),
        ('{"format": 1, "fingerprint": "0", "attention": "all", "cuts": []}', "attention is 'heads' or"),
        (one(kept='"0-4"'), "here, group 'g': it keeps atom 4, and has atoms 0 to 3"),
        (one(kept='"1,1"'), "group 'g': atoms are out of order; list each once, ascending"),
        (one(kept='"0-3,0-3"'), "group 'g': atoms are out of order; list each once, ascending"),
        pytest.param(one(kept='"' + "9" * 5000 + '"'), "'9{40}' is no range of atoms", id="endless"),
        (one(atoms="1000000000000", kept='"0-999999999999"'), "no group has more than 16777216 atoms"),
        (one(kept='"2-1"'), "group 'g': '2-1' is no range of atoms; write them as 0-15,18"),
        (one(kept='"0,9-3"'), "group 'g': '9-3' is no range of atoms"),
        (one(kept='""'), "group 'g': nothing is kept; keep at least one atom"),
        (one(kept='"-1"'), "'-1' is no range of atoms; write them as 0-15,18"),
        (one(kept='"a"'), "'a' is no range of atoms"),
        (one(kept="[1]"), r"group 'g': \[1\] is no range of atoms"),
        (one(kept="3"), "group 'g': 3 is no range of atoms"),
        (one(atoms=0), "lacks its group, or how many atoms that has"),
        (one(atoms="true"), "lacks its group, or how many atoms that has"),
        (one(widths="[1, 2]"), "widths must be three counts"),
        (one(widths='"wide"'), "widths must be three counts"),
        (one(widths="[0, 0, 1]"), "widths must be three counts"),
        (one(widths="[2, false, 1]"), "widths must be three counts"),
    ],
)
def test_text_that_is_no_plan(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        PrunePlan.from_json(text, "here")
    assert "\n" not in str(error.value)


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the plan '.*none.json': No such file"):
        load_plan(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"the plan .* is no text"):
        load_plan(tmp_path / "bytes.json")


def test_plans_that_cannot_be_made() -> None:
    with pytest.raises(UsageError, match="cuts group 'g' twice"):
        PrunePlan(MARK, (Cut("g", 2, (0,)), Cut("g", 2, (1,))))
    with pytest.raises(UsageError, match="atom 2 is kept, and it has atoms 0 to 1"):
        Cut("g", 2, (0, 2))


def model() -> Model:
    return BLOCKS["residual over concat"]()


def test_rounds_compose() -> None:
    original, once = model(), model()
    first = half(once, couple(once), seed=1)
    apply_plan(once, first, Context())
    second = half(once, couple(once), seed=2)
    apply_plan(once, second, Context())
    both = compose(first, second)
    assert both.rounds == 2
    assert both.fingerprint == first.fingerprint
    apply_plan(original, both, Context())
    assert fingerprint(original) == fingerprint(once)


def test_groups_that_a_cut_makes_anew_do_not_continue() -> None:
    """Whole heads go first; the last one could get narrower, which no plan for the original can say."""
    once = BLOCKS["attention"]()
    before = couple(once)
    (group,) = before.groups
    plan = PrunePlan(fingerprint(once), (Cut(group.name, 4, (2,)),))
    apply_plan(once, plan, Context())
    after = couple(once)
    assert [g.atoms for g in after.groups if g.name == group.name] == [3], (
        "the width of the head that is left"
    )
    assert not continued(before, plan, after).groups


def test_groups_that_lost_atoms_and_those_that_did_not_continue() -> None:
    once = model()
    before = couple(once)
    plan = PrunePlan(fingerprint(once), half(once, before).cuts[:1])
    apply_plan(once, plan, Context())
    after = continued(before, plan, couple(once))
    assert [(g.name, g.atoms) for g in after.groups] == [("a:1", 4), ("b:1", 6)]


def test_what_composing_keeps() -> None:
    first = PrunePlan(MARK, (Cut("a", 6, (0, 2, 4, 5), "l1", Widths(6, 4, 4)), Cut("b", 3, (1, 2))))
    second = PrunePlan("1" * 32, (Cut("c", 9, (8,), "l2"), Cut("a", 4, (1, 3), "l2", Widths(4, 1, 2))))
    both = compose(first, second)
    assert both.cuts == (
        Cut("a", 6, (2, 5), "l1; l2", Widths(6, 1, 2)),
        Cut("b", 3, (1, 2)),
        Cut("c", 9, (8,), "l2"),
    )
    with pytest.raises(UsageError, match="says group 'a' has 4 atoms and the first leaves 2"):
        compose(both, second)


def test_a_plan_for_another_model_is_refused() -> None:
    target = model()
    plan = half(target, couple(target))
    other = BLOCKS["concat"]()
    with pytest.raises(UsageError, match=rf"the plan is for model {plan.fingerprint} and this is"):
        apply_plan(other, plan, Context())
    unknown = PrunePlan(plan.fingerprint, (Cut("a:2", 8, (1,)),))
    with pytest.raises(UsageError, match="the model has no group 'a:2'; did you mean 'a:1'"):
        apply_plan(target, unknown, Context())
    miscounted = PrunePlan(plan.fingerprint, (Cut(plan.cuts[0].group, 99, (1,)),))
    with pytest.raises(UsageError, match="has 8 atoms and the plan says 99"):
        apply_plan(target, miscounted, Context())


def test_the_pass_reads_a_plan(tmp_path: Path) -> None:
    target, twin = model(), model()
    plan = half(target, couple(target))
    plan.save(tmp_path / "plan.json")
    apply_plan(twin, plan, Context())
    ctx = Context()
    assert catalog.get("apply-plan") is ApplyPlan
    assert ApplyPlan(plan=str(tmp_path / "plan.json")).run(target, ctx)
    assert fingerprint(target) == fingerprint(twin)
    assert ctx.counters["groups cut"] == len(plan.cuts)
    assert ctx.counters["weights sliced"] == 4
    with pytest.raises(UsageError, match="the plan is for model"):
        ApplyPlan(plan=str(tmp_path / "plan.json")).run(target, Context())
    with pytest.raises(UsageError, match="apply-plan needs a plan"):
        ApplyPlan().run(target, Context())


def test_a_plan_that_keeps_all_changes_nothing() -> None:
    target = model()
    before = snapshot(target)
    everything = PrunePlan(
        fingerprint(target),
        tuple(Cut(g.name, g.atoms, tuple(range(g.atoms))) for g in couple(target).groups),
    )
    assert not apply_plan(target, everything, Context())
    assert_equal(before, snapshot(target))


def test_bisection_leaves_groups_out() -> None:
    target, whole = model(), model()
    plan = half(target, couple(target))
    first = couple(target).groups[0].producers[0]
    apply_plan(target, plan, Context(allow=lambda rule, node: rule != "apply-plan" or node is first))
    apply_plan(whole, plan, Context())
    assert parameters(whole) < parameters(target) < parameters(model())


def test_heads_get_narrower_by_a_plan_that_says_so() -> None:
    model = BLOCKS["attention"]()
    coupling = couple(model, attention="widths")
    assert {g.atoms for g in coupling.groups} != {g.atoms for g in couple(BLOCKS["attention"]()).groups}
    plan = replace(half(model, coupling), attention="widths")
    assert PrunePlan.from_json(plan.to_json()) == plan
    expected = to_proto(oracle(model, plan.masks(coupling)))
    assert apply_plan(model, plan, Context())
    assert_equal(expected, to_proto(model))
    with pytest.raises(UsageError, match="cuts widths of attention, the second heads"):
        compose(plan, replace(plan, attention="heads"))
