# SPDX-License-Identifier: Apache-2.0
"""Instruments: verify, print, dump, time, count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tersor.graph_ir import Model, Signature, UsageError, VerifyError, load, parse, to_text
from tersor.passes.base import Context
from tersor.pipeline import instruments, manager, spec
from tersor.pipeline.instrument import Instrument
from tersor.pipeline.instruments import Dump, PrintIr, RoundError, Verify, When
from tersor.pipeline.measure import PassStatistics, Statistics, TimeNode, Timing
from tests.support.passes import find

IDENTITIES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3] x) => (float[2,3] y) { a = Identity(x)  b = Relu(a)  unused = Exp(a)  y = Identity(b) }
"""


def run(text: str, *instruments: Instrument) -> None:
    manager.run(spec.parse(text, find), parse(IDENTITIES), Context(), instruments)


def test_verify_names_the_pass_that_broke_the_signature() -> None:
    with pytest.raises(VerifyError) as caught:
        run("options,renames-output", Verify())
    assert "after pass renames-output (number 2): model signature changed: outputs" in str(caught.value)


def test_verify_by_round_sees_the_fault_without_naming_the_pass() -> None:
    with pytest.raises(RoundError, match=r"^model signature changed: outputs"):
        run("renames-output,options", Verify(by_round=True))
    with pytest.raises(RoundError, match=r"^model signature changed: outputs"):
        run("(renames-output,eliminate-identity)!3,options", Verify(by_round=True))
    with pytest.raises(RoundError, match=r"pass crashes .number 2. failed: "):
        run("eliminate-identity,crashes", Verify(by_round=True))
    with pytest.raises(KeyboardInterrupt):
        run("eliminate-identity,interrupts", Verify(by_round=True))


def test_verify_by_round_verifies_before_a_pass_that_may_change_the_signature() -> None:
    freeze = "freeze-default-inputs,eliminate-dead-code"
    bad = spec.parse(f"renames-output,{freeze}", find)
    with pytest.raises(RoundError, match="outputs"):
        manager.run(bad, parse(WITH_DEFAULT), None, [Verify(by_round=True)])
    model = parse(WITH_DEFAULT)
    manager.run(spec.parse(freeze), model, None, [Verify(by_round=True)])
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_verify_by_round_asks_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Model] = []

    def count(model: Model, signature: Signature | None) -> None:
        asked.append(model)

    monkeypatch.setattr(instruments, "verify", count)
    run("(count-down{start=3},eliminate-identity)!,eliminate-dead-code", Verify(by_round=True))
    assert len(asked) == 4
    run("(count-down{start=3},eliminate-identity)!,eliminate-dead-code", Verify())
    assert len(asked) == 4 + 5


def test_without_verify_nothing_is_checked() -> None:
    model = parse(IDENTITIES)
    assert manager.run(spec.parse("renames-output", find), model, Context(), []).changed
    assert [value.name for value in model.graph.outputs] == ["renamed"]


WITH_DEFAULT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, float[2] w = {1.0, 2.0}) => (float[2] y) { y = Add(x, w) }
"""


def test_verify_takes_the_new_signature_of_a_pass_that_may_change_it() -> None:
    model = parse(WITH_DEFAULT)
    assert [value.name for value in model.graph.inputs] == ["x", "w"]
    manager.run(spec.parse("freeze-default-inputs,eliminate-dead-code"), model, None, [Verify()])
    assert [value.name for value in model.graph.inputs] == ["x"]


@pytest.mark.parametrize(
    ("when", "heads"),
    [
        ("before", ["// before pass 1 options", "// before pass 2 eliminate-identity"]),
        ("after", ["// after pass 1 options", "// after pass 2 eliminate-identity"]),
        ("after-change", ["// after pass 2 eliminate-identity"]),
    ],
)
def test_print_ir(when: When, heads: list[str]) -> None:
    written: list[str] = []
    run("options,eliminate-identity", PrintIr(when, written.append))
    assert [text.splitlines()[0] for text in written] == heads
    shown = written[-1].split("\n", 1)[1]
    assert ("Identity" in shown) == (when == "before")


def test_print_ir_says_that_a_pass_failed() -> None:
    written: list[str] = []
    with pytest.raises(KeyError):
        run("crashes", PrintIr("after-change", written.append))
    assert written == ["// pass 1 crashes failed\n"]


def test_dump_writes_a_numbered_model_per_change(tmp_path: Path) -> None:
    run("options,eliminate-identity,options,eliminate-dead-code", Dump(tmp_path / "d"))
    names = sorted(path.name for path in (tmp_path / "d").iterdir())
    assert names == ["000-input.onnx", "001-eliminate-identity.onnx", "002-eliminate-dead-code.onnx"]
    texts = [to_text(load(tmp_path / "d" / name)) for name in names]
    assert ["Exp" in text for text in texts] == [True, True, False]
    with pytest.raises(UsageError, match=r"holds dumps already \(000-input.onnx\); give an empty one"):
        run("options", Dump(tmp_path / "d"))


def test_dump_says_when_it_has_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot make the folder"):
        run("options", Dump(tmp_path / "file"))


def ticks() -> Iterator[float]:
    """A clock on which every pass takes one second more than the one before."""
    now, step = 0.0, 1.0
    while True:
        yield now
        now += step
        yield now
        now += 100.0
        step += 1.0


def test_timing_is_a_tree_with_rounds_summed() -> None:
    clock = ticks()
    timing = Timing(lambda: next(clock))
    run("options,(count-down{start=1},strict{share=0})!", timing)
    assert timing.tree() == [
        TimeNode("options,(count-down{start=1},strict{share=0})!", 0, 10.0, 1, 1),
        TimeNode("options", 1, 1.0, 1, 0),
        TimeNode("(count-down{start=1},strict{share=0})!", 1, 9.0, 2, 1),
        TimeNode("count-down{start=1}", 2, 6.0, 2, 1),
        TimeNode("strict{share=0}", 2, 3.0, 1, 0),
    ]


def test_statistics_are_per_pass_instance() -> None:
    statistics = Statistics()
    run("count-down{start=2},options,(count-down)!", statistics)
    found = statistics.result()
    assert [(s.text, s.runs, s.changed, dict(s.counters)) for s in found] == [
        ("count-down{start=2}", 1, 1, {"asked": 1}),
        ("options", 1, 0, {}),
        ("count-down", 2, 1, {"asked": 2}),
    ]
    assert dict(found[2].misses) == {("rule", "why"): 2}
    assert isinstance(found[0], PassStatistics)
