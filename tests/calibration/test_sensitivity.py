# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: each part alone costs what its int8 form alone costs, all together what full int8 costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis.evaluate import Evaluator
from tersor.analysis.fidelity import Fidelity
from tersor.analysis.shapes import infer_shapes
from tersor.calibration import choose, survey
from tersor.calibration.sensitivity import Sensitivity, sensitivity
from tersor.calibration.switches import Per
from tersor.graph_ir import DataError, Model, Rewriter, from_proto, parse
from tersor.graph_ir.ops import label
from tersor.passes.base import Context
from tersor.passes.quantize.bias_correction import values_for_means
from tersor.passes.quantize.insert_qdq import MEANS, RANGES, InsertQdq
from tersor.passes.quantize.kinds import LINEAR
from tersor.passes.quantize.plan import plan, tensors_to_observe
from tests.support import odd_models

MIXED = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2,16,6,6] x) => (float[2,7] y)
<float[16,16,3,3] w1 = {seed}, float[16] b1 = {seed}, float[16,16,1,1] w2 = {seed}, float[32,7] w3 = {seed},
 float[7] b3 = {seed}, float[16,32] w4 = {seed}, float[32] b4 = {seed}>
{
  a = Conv <pads: ints = [1, 1, 1, 1]> (x, w1, b1)
  r = Relu (a)
  c = Conv (r, w2)
  s = Sigmoid (c)
  m = Mul (c, s)
  d = Add (m, r)
  p = GlobalAveragePool (d)
  f = Flatten (p)
  e = MatMul (f, w4)
  h = Add (e, b4)
  t = Relu (h)
  y = Gemm <alpha: float = 0.5, beta: float = 2.0> (t, w3, b3)
}
"""

Array = NDArray[Any]


def mixed() -> Model:
    model = parse(MIXED)
    infer_shapes(model)
    return model


def conv_net() -> Model:
    model = from_proto(odd_models.conv_net())
    infer_shapes(model)
    return model


def feeds_of(shape: tuple[int, ...], count: int = 2) -> list[dict[str, Array]]:
    generator = np.random.default_rng(5)
    return [{"x": generator.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def facts(model: Model, feeds: list[dict[str, Array]]) -> dict[str, Any]:
    histograms, means = survey(model, feeds, tensors_to_observe(model), values_for_means(model))
    return {RANGES: choose(histograms, "minmax").values, MEANS: means}


def emitted_db(
    model: Model, feeds: list[dict[str, Array]], found: Mapping[str, Any], form: InsertQdq
) -> float:
    """SQNR of what insert-qdq writes; the model is edited."""
    before = Evaluator(model)
    wanted = [before.run(feed)["y"] for feed in feeds]
    form.run(model, Context(facts=dict(found)))
    after = Evaluator(model)
    total = Fidelity()
    for feed, want in zip(feeds, wanted, strict=True):
        total.update(want, after.run(feed)["y"])
    return total.result().sqnr_db


def measured(make: Any, feeds: list[dict[str, Array]], per: Per = "region") -> Sensitivity:
    found = facts(make(), feeds)
    model = make()
    planned = plan(model, found[RANGES], InsertQdq(float_stem=False).plan_options)
    return sensitivity(model, planned, feeds, per, means=found[MEANS])


def test_all_parts_together_are_the_int8_form() -> None:
    feeds = feeds_of((2, 16, 6, 6))
    model = mixed()
    whole = emitted_db(model, feeds, facts(mixed(), feeds), InsertQdq(float_stem=False))
    assert measured(mixed, feeds).together_db == pytest.approx(whole, abs=0.3)
    assert measured(mixed, feeds, "tensor").together_db == pytest.approx(whole, abs=0.3)


@pytest.mark.parametrize("name", ["two", "three", "gemm"])
def test_a_region_alone_costs_what_its_int8_form_alone_costs(name: str) -> None:
    feeds = feeds_of((1, 3, 12, 12))
    others = tuple(label(n) for n in conv_net().graph if n.op_type in LINEAR and label(n) != name)
    alone = emitted_db(
        conv_net(), feeds, facts(conv_net(), feeds), InsertQdq(float_stem=False, exclude=others)
    )
    losses = {loss.part.name: loss for loss in measured(conv_net, feeds).losses}
    assert losses[name].sqnr_db == pytest.approx(alone, abs=0.3)


def test_the_table_is_ranked_and_its_shares_make_up_the_whole() -> None:
    found = measured(mixed, feeds_of((2, 16, 6, 6)))
    noise = [loss.noise for loss in found.losses]
    assert noise == sorted(noise, reverse=True)
    assert sum(loss.share for loss in found.losses) == pytest.approx(1)
    assert found.losses[-1].cumulative == pytest.approx(1)
    assert {"Conv(a)", "Conv(c)", "Mul(m)", "Gemm(y)"} <= {loss.part.name for loss in found.losses}
    silu = next(loss.part for loss in found.losses if loss.part.name == "Mul(m)")
    assert silu.nodes == ("Sigmoid(s)", "Mul(m)")


def test_tensors_are_activations_and_weights_each_once() -> None:
    found = measured(mixed, feeds_of((2, 16, 6, 6)), "tensor")
    names = sorted(loss.part.name for loss in found.losses if loss.part.kind == "weight")
    assert names == ["w1", "w2", "w3", "w4"]
    kinds = [loss.part.name for loss in found.losses if loss.part.kind == "activation"]
    assert len(kinds) == len(set(kinds))
    assert {"x", "r", "c", "m", "d"} <= set(kinds)


def test_activations_alone_lose_what_they_lose_beside_weights() -> None:
    feeds = feeds_of((2, 16, 6, 6))[:1]  # of more, each part is run on as many as its rank is worth
    found = measured(mixed, feeds, "tensor")
    noise = {loss.part.name: loss.noise for loss in found.losses if loss.part.kind == "activation"}
    alone = measured(mixed, feeds, "activation")
    assert {loss.part.name: loss.noise for loss in alone.losses} == pytest.approx(noise, rel=1e-3)


def spoilt() -> Model:
    """The last weights have a row of 1000 behind a unit that is always off: the step of each column is 8."""
    model = mixed()
    for name, value in (("w3", 1000.0), ("b4", -1e6)):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        array: Array = np.array(tensor.numpy())
        array[0] = value
        Rewriter(model).set_data(model.graph.initializers[name], array)
    return model


def test_a_weight_that_int8_cannot_hold_comes_first() -> None:
    feeds = feeds_of((2, 16, 6, 6))
    found = measured(spoilt, feeds)
    assert found.losses[0].part.name == "Gemm(y)"
    assert found.losses[0].share > 0.9
    assert (
        found.summary()
        == f"1 of {len(found.losses)} regions makes {found.losses[0].share:.0%} of what int8 loses"
    )
    assert measured(spoilt, feeds, "tensor").losses[0].part.name == "w3"


def test_the_same_feeds_give_the_same_table_and_it_is_plain_json() -> None:
    feeds = feeds_of((1, 3, 12, 12), 3)
    first, second = measured(conv_net, feeds), measured(conv_net, feeds)
    assert first == second
    assert first.samples == 3
    report = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert report["parts"][0]["name"] == first.losses[0].part.name


def test_a_loss_says_how_many_samples_it_rests_on() -> None:
    found = measured(spoilt, feeds_of((2, 16, 6, 6), 3))
    assert found.losses[0].samples == found.samples == 3
    assert {loss.samples for loss in found.losses} == {1, 3}
    assert [part["samples"] for part in found.to_dict()["parts"]] == [loss.samples for loss in found.losses]


def test_nothing_lost_is_said() -> None:
    empty = Sensitivity((), 1, math.inf, math.inf)
    assert empty.summary() == "nothing is lost"


def test_no_feeds_are_refused() -> None:
    model = conv_net()
    planned = plan(model, facts(conv_net(), feeds_of((1, 3, 12, 12)))[RANGES])
    with pytest.raises(DataError, match="no feeds"):
        sensitivity(model, planned, [])
