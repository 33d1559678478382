# SPDX-License-Identifier: Apache-2.0
"""Every linear fold on random chains: signature, verifier and claim hold; a second run changes nothing."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from tersor.graph_ir import from_proto, to_text
from tersor.passes.base import Context, Pass
from tersor.passes.fuse.affine import FoldAffine
from tersor.passes.fuse.batch_norm import FoldBatchNorm
from tersor.passes.fuse.canonicalize import Canonicalize
from tersor.passes.fuse.global_pool import ReduceMeanToGlobalAveragePool
from tersor.passes.fuse.matmul_add import MatMulAddToGemm
from tersor.passes.fuse.pad import FoldPad
from tests.support.graphs import chains
from tests.support.rewriting import rewrite

PASSES: tuple[Pass, ...] = (
    FoldBatchNorm(),
    FoldAffine(),
    FoldPad(),
    MatMulAddToGemm(flatten=True),
    ReduceMeanToGlobalAveragePool(),
    Canonicalize(),
)
checked = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)


@pytest.mark.parametrize("item", PASSES, ids=[p.name for p in PASSES])
@given(proto=chains())
@checked
def test_each_pass(item: Pass, proto: onnx.ModelProto) -> None:
    done = rewrite(item, from_proto(proto))
    once = done.text
    assert not item.run(done.model, Context())
    assert to_text(done.model) == once


@given(proto=chains())
@checked
def test_all_passes_in_turn(proto: onnx.ModelProto) -> None:
    done = rewrite(PASSES, from_proto(proto))
    assert len(done.ops) <= len(proto.graph.node) + 2 * sum(n.op_type == "Add" for n in proto.graph.node)
