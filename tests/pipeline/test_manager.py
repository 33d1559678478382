# SPDX-License-Identifier: Apache-2.0
"""The manager: order, loops, what passes require and ensure, and the protocol of instruments."""

from __future__ import annotations

import pytest

from tersor.graph_ir import Model, UsageError, VerifyError, parse
from tersor.passes import catalog
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.instrument import Instrument, Outcome, Step
from tests.support.passes import find

SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3] x) => (float[2,3] y) { y = Relu(x) }
"""
CALLS = """
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2,3] x) => (float[2,3] y) { y = local.twice(x) }
<opset_import: ["" : 17], domain: "local">
twice (a) => (b) { b = Add(a, a) }
"""


class Log(Instrument):
    """Writes down every call."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    def begin(self, pipeline: spec.Pipeline, model: Model, ctx: Context) -> None:
        self.log.append(f"{self.name} begin {pipeline}")

    def before(self, step: Step, model: Model) -> None:
        self.log.append(f"{self.name} before {step.number} {step.name} {step.path} {step.rounds}")

    def after(self, step: Step, model: Model, outcome: Outcome) -> None:
        self.log.append(f"{self.name} after {step.number} {outcome.changed} {dict(outcome.counters)}")

    def failed(self, step: Step, model: Model, error: BaseException) -> None:
        self.log.append(f"{self.name} failed {step.number} {type(error).__name__}")

    def end(self, model: Model) -> None:
        self.log.append(f"{self.name} end")


def run(
    text: str, model: str = SMALL, ctx: Context | None = None, *instruments: Instrument
) -> manager.Result:
    return manager.run(spec.parse(text, find), parse(model), ctx, instruments)


def test_instruments_are_a_stack() -> None:
    log: list[str] = []
    run("count-down{start=1}", SMALL, None, Log("a", log), Log("b", log))
    assert log == [
        "a begin count-down{start=1}",
        "b begin count-down{start=1}",
        "a before 1 count-down (0,) ()",
        "b before 1 count-down (0,) ()",
        "b after 1 True {'asked': 1}",
        "a after 1 True {'asked': 1}",
        "b end",
        "a end",
    ]


def test_a_loop_runs_until_nothing_changes() -> None:
    log: list[str] = []
    ctx = Context()
    result = run("(count-down{start=2},options)!", SMALL, ctx, Log("a", log))
    befores = [line for line in log if "before" in line]
    assert befores == [
        "a before 1 count-down (0, 0) (1,)",
        "a before 2 options (0, 1) (1,)",
        "a before 3 count-down (0, 0) (2,)",
        "a before 4 options (0, 1) (2,)",
        "a before 5 count-down (0, 0) (3,)",
    ]
    assert (result.ran, result.changed) == (5, 2)
    assert result.spared == 1  # `options` had nothing to do, and nothing changed since
    assert not ctx.notes


def test_a_loop_with_a_limit_says_when_it_used_it_up() -> None:
    ctx = Context()
    assert run("(count-down{start=9})!3", SMALL, ctx).ran == 3
    assert ctx.notes == [
        "the loop (count-down{start=9})!3 used all its 3 rounds; more might still change something"
    ]


def test_a_loop_without_limit_ends_in_any_case() -> None:
    ctx = Context()
    assert run("(count-down{start=100000})!", SMALL, ctx).ran == manager.MAX_ROUNDS
    assert "was stopped after 64 rounds that each changed something" in ctx.notes[0]


def test_loops_nest() -> None:
    log: list[str] = []
    run("((count-down{start=1})!,options)!", SMALL, None, Log("a", log))
    assert [line for line in log if "before" in line] == [
        "a before 1 count-down (0, 0, 0) (1, 1)",
        "a before 2 count-down (0, 0, 0) (1, 2)",
        "a before 3 options (0, 1) (1,)",
    ]


def test_what_is_required_is_named_with_the_pass_that_ensures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def plugins() -> dict[str, str]:
        return {"ensures-inlined": "tests.support.passes:EnsuresInlined"}

    monkeypatch.setattr(catalog, "_plugins", plugins)
    message = "'needs-inlined' requires 'no-functions'; run 'ensures-inlined' before it"
    with pytest.raises(UsageError, match=message):
        run("needs-inlined", CALLS)
    assert run("inline,needs-inlined", CALLS).ran == 2


def test_missing_facts_are_named() -> None:
    with pytest.raises(
        UsageError, match="'needs-ranges' needs 'ranges', which nothing measured; calibrate first"
    ):
        run("needs-ranges")
    assert run("needs-ranges", SMALL, Context(facts={"ranges": {}})).ran == 1


def test_a_broken_promise_is_a_fault_of_the_pass() -> None:
    log: list[str] = []
    with pytest.raises(VerifyError, match="'breaks-promise' says it ensures 'never', which does not hold"):
        run("breaks-promise", SMALL, None, Log("a", log))
    assert log[-1] == "a failed 1 VerifyError"


@pytest.mark.parametrize(("name", "error"), [("crashes", KeyError), ("interrupts", KeyboardInterrupt)])
def test_instruments_hear_of_a_failure_and_it_goes_on(name: str, error: type[BaseException]) -> None:
    log: list[str] = []
    with pytest.raises(error):
        run(f"options,{name},options", SMALL, None, Log("a", log), Log("b", log))
    assert log[-2:] == [f"b failed 2 {error.__name__}", f"a failed 2 {error.__name__}"]
