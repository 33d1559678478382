# SPDX-License-Identifier: Apache-2.0
"""Numeric validation holds passes to their claims, and refuses where it could not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from tersor.graph_ir import ClaimError, DataError, Model, ModelError, parse, signature_of
from tersor.passes.base import Context, Exactness, Pass
from tersor.pipeline import judge, manager, spec, trial_feeds, twin
from tersor.pipeline.validate import Mode, Validate, runner
from tests.support.passes import find

LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,3] y)
<float[4,3] w = {seed}> { y = MatMul(x, w) }
"""
CONV_BN = """
<ir_version: 8, opset_import: ["" : 9]>
g (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[4,3,3,3] w = {seed}, float[4] s = {1.0, 2.0, -1.5, 0.5}, float[4] b = {0.0, 1.0, 2.0, -3.0},
 float[4] m = {0.5, -0.5, 0.1, 3.0}, float[4] v = {1.0, 0.01, 4.0, 2.0}>
{ c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v) }
"""
DROPOUT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) { a = Identity(x)  b = Relu(a)  y = Identity(b) }
"""


def check(text: str, passes: str, mode: Mode = "pass", **options: Any) -> tuple[Validate, Context]:
    validate, ctx = Validate(mode, **options), Context()
    manager.run(spec.parse(passes, find), parse(text), ctx, [validate])
    return validate, ctx


def test_equal_bits_are_judged_on_hostile_feeds_too() -> None:
    validate, ctx = check(DROPOUT, "options,eliminate-identity")
    (found,) = validate.checks
    assert (found.claim, found.judged_by, found.sqnr_db) == ("bitwise", "bits", float("inf"))
    assert found.feeds == 3 + 5 + 1
    assert not ctx.notes


@pytest.mark.parametrize("mode", ["pass", "end"])
def test_a_rounding_pass_is_held_to_the_float64_run(mode: Mode) -> None:
    validate, ctx = check(CONV_BN, "fold-batch-norm", mode)
    (found,) = validate.checks
    assert (found.claim, found.judged_by) == ("rounding", "float64")
    assert found.sqnr_db > 100
    assert not ctx.notes


def test_a_wrong_rounding_pass_is_named_with_its_figures() -> None:
    with pytest.raises(ClaimError) as caught:
        check(LINEAR, "options,scale-weights{by=1.0001}")
    said = str(caught.value)
    assert said.startswith("pass 'scale-weights' (number 2) claims rounding, but output 'y': error ")
    assert "against float64, allowed" in said
    assert said.endswith("(random, free dimensions 2 and 33)")


def test_at_the_end_the_weakest_claim_counts() -> None:
    with pytest.raises(
        ClaimError, match="the passes scale-bitwise claims equal bits, but output 'y': off by"
    ):
        check(LINEAR, "scale-bitwise", "end")
    with pytest.raises(ClaimError, match="the passes scale-bitwise, scale-weights claims rounding"):
        check(LINEAR, "scale-bitwise,scale-weights", "end")
    validate, _ = check(LINEAR, "scale-bitwise,scale-lossy", "end")
    assert [c.claim for c in validate.checks] == ["lossy"]


def test_a_pass_that_claims_more_than_it_keeps_is_caught_at_once() -> None:
    with pytest.raises(ClaimError, match=r"pass 'scale-bitwise' \(number 1\) claims equal bits"):
        check(LINEAR, "scale-bitwise,scale-lossy", "pass")


def test_a_lossy_pass_is_measured_and_held_to_nothing() -> None:
    (found,) = check(LINEAR, "scale-lossy{by=1.1}")[0].checks
    assert found.judged_by == "nothing"
    assert found.sqnr_db == pytest.approx(20.0, abs=0.01)


def test_given_feeds_are_used_too() -> None:
    def feeds(model: Model) -> Iterable[trial_feeds.Feed]:
        return [{"x": np.full((5, 4), 0.5, np.float32)}]

    before = check(DROPOUT, "eliminate-identity")[0].checks[0].feeds
    assert check(DROPOUT, "eliminate-identity", feeds=feeds)[0].checks[0].feeds == before + 1


def test_random_operators_are_not_judged() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) { r = RandomNormalLike(x)  i = Identity(r)  y = Add(x, i) }
    """
    with pytest.raises(ModelError, match=r"numbers cannot be checked: node .* draws random ones; leave"):
        check(text, "eliminate-identity")


def test_a_model_without_outputs_is_not_called_checked() -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => () { y = Relu(x) }'
    with pytest.raises(ModelError, match=r"^numbers cannot be checked: the model has no outputs; leave"):
        check(text, "eliminate-dead-code")


def test_models_that_run_nowhere_are_not_judged() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    g (float[2] x) => (float[2] y) { i = Identity(x)  y = com.acme.Secret(i) }
    """
    with pytest.raises(ModelError, match="numbers cannot be checked: onnxruntime cannot run this model"):
        check(text, "eliminate-identity")


def test_models_that_run_on_no_made_up_feed_are_not_judged_without_data() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (float[3, 5, 7] y)
    { s = Constant<value_ints = [3, 5, 7]>()  i = Identity(x)  y = Reshape(i, s) }
    """
    with pytest.raises(
        ModelError, match=r"runs on no feed made from its signature: .*: a Reshape .*: .*; give --data"
    ):
        check(text, "eliminate-identity")

    def feeds(model: Model) -> Iterable[trial_feeds.Feed]:
        return [{"x": np.ones(105, np.float32)}]

    assert check(text, "eliminate-identity", feeds=feeds)[0].checks[0].feeds >= 1

    def wrong(model: Model) -> Iterable[trial_feeds.Feed]:
        return [{"x": np.ones(105, np.float32)}, {"x": np.ones(104, np.float32)}]

    with pytest.raises(DataError, match=r"^numbers cannot be checked: the model does not run on sample 1 of"):
        check(text, "eliminate-identity", feeds=wrong)


def test_without_a_float64_run_the_stated_bound_is_used_and_noted() -> None:
    # com.microsoft.Gelu has no float64 kernel, and the reference evaluator does not know it.
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[2,4] x) => (float[2,3] y)
    <float[4,3] w = {seed}> { m = MatMul(x, w)  y = com.microsoft.Gelu(m) }
    """
    with pytest.raises(ClaimError, match=r"off by .* \(no float64 run to judge by\)"):
        check(text, "scale-weights{by=1.01}")
    validate, ctx = check(text, "scale-weights{by=1.000001}")
    assert validate.checks[0].judged_by == "stated bound"
    assert ctx.notes == [
        "pass 'scale-weights' (number 1): judged by a stated bound; no float64 run could be had"
    ]


@dataclass(frozen=True)
class BreaksModel(Pass):
    """Leave a model that onnxruntime refuses."""

    name: ClassVar[str] = "breaks-model"
    exact: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: Model, ctx: Context) -> bool:
        for node in model.graph:
            node.op_type = "Concat"
        return True


def test_a_model_that_no_longer_runs_breaks_the_claim() -> None:
    tree = spec.Pipeline((spec.spec_of(BreaksModel()),))
    with pytest.raises(ClaimError, match=r"'breaks-model' \(number 1\): the model does not run any more"):
        manager.run(tree, parse(DROPOUT), Context(), [Validate("pass")])


def test_a_pass_that_moves_the_signature_starts_afresh() -> None:
    @dataclass(frozen=True)
    class DropOutput(Pass):
        """Remove an output."""

        name: ClassVar[str] = "drop-output"
        exact: ClassVar[Exactness] = Exactness.BITWISE
        changes_signature: ClassVar[bool] = True

        def run(self, model: Model, ctx: Context) -> bool:
            del model.graph.outputs[1]
            return True

    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, float[2] z) { i = Identity(x)  y = Relu(i)  z = Exp(i) }
    """
    ctx, validate = Context(), Validate("pass")
    tree = spec.Pipeline((spec.spec_of(DropOutput()), *spec.parse("eliminate-identity").elements))
    manager.run(tree, parse(text), ctx, [validate])
    assert ctx.notes == ["numbers are checked from pass 'drop-output' on: it changed the signature"]
    assert len(validate.checks) == 1


def test_feeds_share_symbols_and_vary_sizes() -> None:
    model = parse("""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,T] x, int64[T,N] i, bool[2] f, double[3] d) => (float[N,T] y) { y = Relu(x) }
    """)
    found = list(trial_feeds.ordinary(signature_of(model), 0))
    assert [t.feed["x"].shape for t in found] == [(2, 33), (3, 7), (1, 1), (1, 64), (2, 2)]
    assert all(t.feed["i"].shape == t.feed["x"].shape[::-1] for t in found)
    assert [str(found[0].feed[k].dtype) for k in "xifd"] == ["float32", "int64", "bool", "float64"]
    again = list(trial_feeds.ordinary(signature_of(model), 0))
    assert all(np.array_equal(a.feed["x"], b.feed["x"]) for a, b in zip(found, again, strict=True))


def test_the_twin_is_float64_throughout() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3] x) => (float[2,3] y) {
      h = Cast <to = 10> (x)  f = Cast <to = 1> (h)  c = Constant <value_float = 0.1> ()  y = Mul(f, c)
    }
    """
    model = parse(text)
    x = np.full((2, 3), 1 / 3, np.float32)
    (narrow,) = runner(model)({"x": x})
    run = twin.twin_runner(twin.snapshot(model))
    assert run is not None
    (wide,) = run({"x": x})
    assert wide.dtype == np.float64
    assert wide[0, 0] == np.float64(x[0, 0]) * np.float64(np.float32(0.1))
    assert abs(narrow[0, 0] - wide[0, 0]) > 1e-6


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([0.0], [-0.0], False),
        ([np.nan], [-np.nan], True),
        ([np.nan, 1], [1, np.nan], False),
        ([np.inf], [np.inf], True),
    ],
)
def test_bits(a: list[float], b: list[float], same: bool) -> None:
    assert judge.equal_bits(np.array(a, np.float32), np.array(b, np.float32)) is same
