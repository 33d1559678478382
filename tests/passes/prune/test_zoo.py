# SPDX-License-Identifier: Apache-2.0
"""Real models lose half of every group and compute what the oracle says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import load
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import PRUNE_READY
from tests.support.prune_cuts import halve
from tests.support.zoo import zoo_feed, zoo_models


@pytest.mark.parametrize("path", zoo_models())
def test_a_real_model_is_cut(path: Path) -> None:
    model = load(path)
    manager.run(spec.parse(PRUNE_READY), model, Context())
    assert halve(model, feeds=zoo_feed(path)).groups
    assert couple(model).groups
