# SPDX-License-Identifier: Apache-2.0
"""Every topology is pruned with data: scored by what it computes, cut and refitted."""

from __future__ import annotations

import numpy as np
import pytest

from tersor.graph_ir import signature_of, to_proto, verify
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import PRUNE_READY
from tersor.pipeline.prune.budget import Budget
from tersor.pipeline.prune.job import Job
from tersor.pipeline.prune.rounds import prune
from tersor.pipeline.prune.select import Limits
from tersor.pipeline.prune.steps import replay
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_blocks import BLOCKS

RECENT = {"deformable conv"}  # what onnxruntime has no kernel for up to 1.23


@pytest.mark.parametrize("name", BLOCKS)
def test_a_topology_is_scored_cut_and_refitted(name: str) -> None:
    model = BLOCKS[name]()
    manager.run(spec.parse(PRUNE_READY), model, Context())
    original = to_proto(model)
    feed = feeds_for(original)
    before = run_onnxruntime(original, feed)
    if before is None and name in RECENT:
        pytest.skip("this onnxruntime has no kernel for it")
    found = prune(model, Job(Budget("ratio", 0.5), "reconstruction", Limits(align=1)), feeds=[feed, feed])
    assert any(group.is_cut for group in found.groups)
    verify(found.model, signature_of(model))
    after = run_onnxruntime(to_proto(found.model), feed)
    assert before is not None
    assert after is not None
    assert [a.shape for a in before] == [a.shape for a in after]
    assert all(np.isfinite(a).all() for a in after)


def test_a_window_over_channels_is_cut_again_in_the_next_round() -> None:
    """Regression: the zeros put back for what is gone must not pass for new ties."""
    model = BLOCKS["window over channels"]()
    feed = feeds_for(to_proto(model))
    result = prune(model, Job(Budget("ratio", 0.5), "l2", Limits(align=1), rounds=3))
    assert [(g.before, g.after) for g in result.groups] == [(16, 8)]
    assert not [note for note in result.notes if "cut no further" in note]
    once = replay(BLOCKS["window over channels"](), result.plan).model
    got, want = run_onnxruntime(to_proto(result.model), feed), run_onnxruntime(to_proto(once), feed)
    assert got is not None
    assert want is not None
    np.testing.assert_allclose(got[0], want[0], rtol=0, atol=1e-6)
