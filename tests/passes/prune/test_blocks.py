# SPDX-License-Identifier: Apache-2.0
"""Each topology is cut by half and computes what the oracle says, as exported and after simplification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tersor.analysis.coupling import couple
from tersor.graph_ir import Model, load, to_proto
from tersor.passes.base import Context
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import LOSSLESS
from tests.support.numerics import feeds_for, run_onnxruntime
from tests.support.prune_blocks import BLOCKS
from tests.support.prune_build import build
from tests.support.prune_cuts import half, halve
from tests.support.prune_oracle import oracle

# Simplification folds a different gain into each of two layers that shared a weight.
UNSHARED = {"shared weights"}

# Of those that onnxruntime makes operators of its own of.
FUSED = (
    *("conv relu conv", "silu chain", "grouped conv", "depthwise", "squeeze excite", "flatten HxW gemm"),
    *("attention", "multi head attention"),
)


# What onnxruntime has no kernel for up to 1.23, the last for Python 3.10.
RECENT = {"deformable conv"}


def block(name: str) -> Model:
    model = BLOCKS[name]()
    if name in RECENT and run_onnxruntime(model, feeds_for(to_proto(model))) is None:
        pytest.skip("this onnxruntime has no kernel for it")
    return model


def simplified(name: str) -> Model:
    model = block(name)
    manager.run(spec.parse(LOSSLESS), model, Context())
    return model


@pytest.mark.parametrize("name", BLOCKS)
def test_a_topology_is_cut_as_exported(name: str) -> None:
    assert halve(block(name)).groups


@pytest.mark.parametrize("name", BLOCKS)
def test_a_topology_is_cut_after_simplification(name: str) -> None:
    found = halve(simplified(name), seed=1).groups
    if name not in UNSHARED:
        before = couple(BLOCKS[name]()).groups
        assert sorted(g.atoms for g in found) == sorted(g.atoms for g in before)


@pytest.mark.parametrize("name", FUSED)
def test_a_topology_is_cut_as_the_runtime_fuses_it(name: str, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    source = to_proto(BLOCKS[name]()).SerializeToString()
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    model = load(tmp_path / "fused.onnx")
    assert any(node.domain == "com.microsoft" for node in model.graph)
    found = halve(model).groups
    assert sorted(g.atoms for g in found) == sorted(g.atoms for g in couple(BLOCKS[name]()).groups)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_oracle_differs_from_the_original(name: str) -> None:
    model = block(name)
    coupling = couple(model)
    silenced = to_proto(oracle(model, half(model, coupling).masks(coupling)))
    original = to_proto(model)
    feeds = feeds_for(original)
    first, second = run_onnxruntime(original, feeds), run_onnxruntime(silenced, feeds)
    assert first is not None
    assert second is not None
    assert not any(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(first, second, strict=True))


def test_a_window_over_channels_has_its_zeros_in_one_place_however_often_it_is_cut() -> None:
    """Regression: every round put another Pad and two more Gathers around it."""
    model = BLOCKS["window over channels"]()
    for seed in range(3):
        halve(model, seed=seed)
        assert [node.op_type for node in model.graph].count("Gather") == 2
        assert [node.op_type for node in model.graph].count("Pad") == 1
        assert all(value.uses() for value in model.graph.initializers.values())


@pytest.mark.parametrize(
    ("gate", "t"),
    [
        ("Conv", "10,5,1,1"),
        ("Conv<pads = [1, 0, 1, 0]>", "5,5,3,1"),
        ('com.microsoft.FusedConv<activation = "Relu">', "5,5,1,1"),
    ],
)
def test_a_window_of_width_one_needs_no_zeros(gate: str, t: str) -> None:
    """Regression: they were put there all the same, and in front of other operators as if these were Conv."""
    model = build(
        f"a = MatMul(x, w1)  g = {gate}(a, t)  y = MatMul(g, w2)",
        f"w1 6,12; t {t}; w2 12,4",
        x="float[2,5,7,6] x",
        y=f"float[2,{t.split(',', maxsplit=1)[0]},7,4] y",
    )
    ops = [node.op_type for node in model.graph]
    assert {group.name: group.atoms for group in halve(model).groups} == {"a:3": 12}
    assert [node.op_type for node in model.graph] == ops


def test_a_quantized_window_of_width_one_needs_no_zeros() -> None:
    """Regression: a Conv was written in its place."""
    model = build(
        """a = MatMul(x, w1)  q = QuantizeLinear(a, s, z)  g = QLinearConv(q, s, z, t, s, tz, s, z)
        f = DequantizeLinear(g, s, z)  y = MatMul(f, w2)""",
        "w1 6,12; w2 12,4",
        x="float[2,2,7,6] x",
        y="float[2,2,7,4] y",
        constants="float s = {0.03}, uint8 z = {100}, int8 tz = {0}, int8[2,2,1,1] t = {20, -30, 40, 50}",
    )
    assert halve(model).groups
    assert [node.op_type for node in model.graph].count("QLinearConv") == 1
    assert "Pad" not in [node.op_type for node in model.graph]
