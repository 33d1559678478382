# SPDX-License-Identifier: Apache-2.0
"""Random networks out of all topologies, random plans: the result is what the oracle says."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, from_proto, to_proto
from tersor.passes.base import Context
from tersor.passes.prune.apply import apply_plan
from tersor.passes.prune.compose import compose, continued
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import LOSSLESS
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_cuts import half, halve
from tests.support.prune_random import networks


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 99), st.booleans())
def test_random_networks(model: Model, seed: int, simplify: bool) -> None:
    if simplify:
        manager.run(spec.parse(LOSSLESS), model, Context())
    assume(couple(model).groups)
    halve(model, seed)
    if couple(model).groups:  # what is left can be cut again
        halve(model, seed + 1)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.integers(0, 99))
def test_two_rounds_are_one(model: Model, seed: int) -> None:
    original = from_proto(to_proto(model))
    before = couple(model)
    first = half(model, before, seed)
    assume(first.cuts)
    apply_plan(model, first, Context())
    left = continued(before, first, couple(model))
    assume(left.groups)
    second = half(model, left, seed + 1)
    apply_plan(model, second, Context())
    apply_plan(original, compose(first, second), Context())
    feeds = feeds_for(to_proto(model))
    one, two = run_onnxruntime(original, feeds), run_onnxruntime(model, feeds)
    assert one is not None
    assert two is not None
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
