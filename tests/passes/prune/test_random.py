# SPDX-License-Identifier: Apache-2.0
"""Random networks out of all topologies, random plans: the result is what the oracle says."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import LOSSLESS
from tests.support.prune_cuts import halve
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
