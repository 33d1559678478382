# SPDX-License-Identifier: Apache-2.0
"""Going through a model front to back: the same numbers as from the start, each node run once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tersor.analysis import evaluate
from tersor.analysis.evaluate import Evaluator
from tersor.graph_ir import parse
from tersor.pipeline.prune import walk
from tersor.pipeline.prune.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

DEEP = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8] x) => (float[N,8] y)
<float[8,8] W1 = {seed}, float[8,8] W2 = {seed}, float[8,8] W3 = {seed}, float[8,8] W4 = {seed}>
{
    a = MatMul(x, W1)
    b, c = Split<axis = 1>(a)
    d = Concat<axis = 1>(c, b)
    e = MatMul(d, W2)
    f = Add(e, a)
    g = Relu(f)
    h = MatMul(g, W3)
    i = Add(h, f)
    j = Tanh(i)
    y = MatMul(j, W4)
}
"""
STRETCHES = (["x"], ["d"], ["g", "a"], ["j", "f"])
FEEDS = [{"x": np.random.default_rng(i).standard_normal((4, 8)).astype("f")} for i in range(3)]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators of every session opened, in order."""
    found: list[str] = []
    opened = evaluate._open  # pyright: ignore[reportPrivateUsage]

    def spy(proto: onnx.ModelProto, *rest: Any) -> Any:
        found.extend(node.op_type for node in proto.graph.node)
        return opened(proto, *rest)

    monkeypatch.setattr(evaluate, "_open", spy)
    return found


def _agree(passes: Walk) -> None:
    model = parse(DEEP)
    for wanted in STRETCHES:
        got = list(passes.values(wanted))
        alone = Evaluator(model, outputs=wanted)
        assert len(got) == len(FEEDS)
        for feed, found in zip(FEEDS, got, strict=True):
            _same(alone.run(feed), found)


def _same(want: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    assert want.keys() == got.keys()
    assert all(np.array_equal(want[name], got[name]) for name in want)


def test_gives_what_the_whole_model_gives() -> None:
    _agree(Walk(parse(DEEP), FEEDS, 1))


def test_runs_each_node_once(ran: list[str]) -> None:
    passes = Walk(parse(DEEP), FEEDS, 1)
    for wanted in STRETCHES:
        list(passes.values(wanted))
    assert ran == ["MatMul", "Split", "Concat", "MatMul", "Add", "Relu", "MatMul", "Add", "Tanh"]


def test_begins_at_the_inputs_where_too_much_would_be_carried(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_CARRIED", 2 * 4 * 8 * 4)  # of two feeds of three
    passes = Walk(parse(DEEP), FEEDS, 1)
    _agree(passes)
    ran.clear()
    list(passes.values(["j"]))
    assert ran.count("MatMul") == 3


def test_may_be_asked_for_what_lies_behind() -> None:
    passes = Walk(parse(DEEP), FEEDS, 1)
    list(passes.values(["j"]))
    (want, *_), (got, *_) = (
        [Evaluator(parse(DEEP), outputs=["e"]).run(f) for f in FEEDS],
        passes.values(["e"]),
    )
    _same(want, got)
