# SPDX-License-Identifier: Apache-2.0
"""Every node of a source model is accounted for: kernel, precision, time, reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tersor.backends.onnxruntime.account import Account, NodeAccount, account
from tersor.graph_ir import DataError
from tests.support.odd_models import Array, conv_net, model, port, weight
from tests.support.qdq_models import Qdq

IMAGE = np.random.default_rng(0).standard_normal((1, 16, 16, 16)).astype(np.float32)


def by_name(found: Account) -> Mapping[str, NodeAccount]:
    return {row.node: row for row in found.rows}


def quantized() -> onnx.ModelProto:
    """A stem with its Relu, a convolution that ends in float, and an operator without int8 kernel."""
    g = Qdq([1, 16, 16, 16])
    tensor = g.qdq(g.op("Relu", g.conv(g.qdq("x"), 16, 16, name="stem"), name="relu"))
    tensor = g.qdq(g.op("HardSwish", tensor, name="swish"))
    return g.model(g.conv(tensor, 16, 16, name="last"))


def convolutions(*shapes: tuple[int, int, int]) -> onnx.ModelProto:
    """One 3x3 convolution per (in, out, groups), each followed by a Relu, side by side."""
    nodes: list[onnx.NodeProto] = []
    arrays: dict[str, Array] = {}
    inputs: list[onnx.ValueInfoProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    for i, (wide, out, group) in enumerate(shapes):
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], f"conv{i}", group=group))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"y{i}"], f"relu{i}"))
        arrays[f"w{i}"] = weight(out, wide // group, 3, 3, seed=i)
        inputs.append(port(f"x{i}", [1, wide, 8, 8]))
        outputs.append(port(f"y{i}", [1, out, 6, 6]))
    return model(nodes, inputs, outputs, arrays)


def feed_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_each_node_has_kernel_precision_and_reason() -> None:
    found = account(quantized(), [{"x": IMAGE}], runs=3)
    rows = by_name(found)
    assert list(rows) == ["stem", "relu", "swish", "last"]
    assert (rows["stem"].kernel, rows["stem"].precision, rows["stem"].reason) == ("QLinearConv", "int8", "")
    assert rows["relu"].precision in ("gone", "int8")
    assert rows["relu"].time_us == 0
    assert (rows["swish"].precision, rows["swish"].code) == ("float", "no-int8-kernel")
    assert (rows["last"].precision, rows["last"].code) == ("float", "graph-output")
    assert {left.readers for left in found.audit.leftovers} == {("last",)}


def test_all_time_is_accounted_for() -> None:
    found = account(quantized(), [{"x": IMAGE}], runs=3)
    counted = sum(row.time_us for row in found.rows) + sum(found.added.values())
    assert counted == pytest.approx(found.total_us)
    assert 0 < found.int8_us < found.total_us
    assert found.runs == 3


def test_provenance_leads_to_the_original_nodes() -> None:
    proto = quantized()
    proto.metadata_props.add(key="tersor.origins", value='{"stem": ["conv", "norm"]}')
    sources = {"fold": "Add", "conv": "Conv", "norm": "BatchNormalization", "swish": "HardSwish"}
    rows = by_name(account(proto, [{"x": IMAGE}], runs=1, sources=sources))
    assert list(rows) == list(sources)
    assert (rows["fold"].precision, rows["fold"].kernel) == ("gone", "")
    assert (rows["conv"].kernel, rows["conv"].emitted) == ("QLinearConv", ("stem",))
    assert (rows["norm"].fused_into, rows["norm"].precision, rows["norm"].time_us) == ("conv", "int8", 0)


def test_without_the_source_model_its_operators_are_those_the_file_tells() -> None:
    proto = quantized()
    table = '{"stem": ["norm\\tBatchNormalization", "conv\\tConv"], "swish": ["act"]}'
    proto.metadata_props.add(key="tersor.origins", value=table)
    rows = by_name(account(proto, [{"x": IMAGE}], runs=1))
    assert {name: row.op_type for name, row in rows.items()} == {
        "norm": "BatchNormalization", "conv": "Conv", "relu": "Relu", "act": "", "last": "Conv"
    }  # fmt: skip
    assert rows["conv"].kernel == "QLinearConv"
    assert rows["norm"].fused_into == "conv"


def test_what_the_planner_said_is_the_reason() -> None:
    g = Qdq([1, 16, 16, 16])
    stem = g.op("Conv", "x", g.const(weight(16, 16, 3, 3)), name="stem")
    proto = g.model(g.qdq(g.conv(g.qdq(stem), 16, 16, name="body")))
    assert by_name(account(proto, [{"x": IMAGE}], runs=1))["stem"].reason == "it has no quantized input"
    proto.metadata_props.add(key="tersor.left-float", value='{"stem": "excluded"}')
    assert by_name(account(proto, [{"x": IMAGE}], runs=1))["stem"].reason == "excluded"
    for node in proto.graph.node:  # as a pass would that makes the node anew
        node.name = "anew" if node.name == "stem" else node.name
    proto.metadata_props.add(key="tersor.origins", value='{"anew": ["stem\\tConv"]}')
    assert by_name(account(proto, [{"x": IMAGE}], runs=1))["stem"].reason == "excluded"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 16, 1), ""),
        ((16, 18, 1), ""),
        ((18, 16, 1), "18 input channels are no multiple of 4"),
        ((20, 20, 20), ""),
        ((18, 18, 18), "18 channels are no multiple of 4"),
        ((64, 64, 2), ""),
        ((48, 48, 12), "12 groups of 4 to 4 channels are no whole blocks"),
    ],
)
def test_float_convolutions_are_blocked_or_it_is_said_why_not(
    shape: tuple[int, int, int], words: str
) -> None:
    proto = convolutions(shape)
    rows = by_name(account(proto, [feed_of(proto)], runs=1))
    blocked = rows["conv0"].kernel == "nchwc.Conv"
    assert blocked == (not words)
    assert words in rows["conv0"].reason
    assert bool(rows["conv0"].reason) == bool(words)
    assert rows["relu0"].fused_into == "conv0"
    assert rows["relu0"].precision == "float"


def test_a_node_between_changes_of_layout_is_named() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "one", pads=[1] * 4),
        helper.make_node("Elu", ["a"], ["b"], "elu"),
        helper.make_node("Conv", ["b", "w"], ["y"], "two", pads=[1] * 4),
    ]
    proto = model(nodes, [port("x", [1, 16, 16, 16])], [port("y", None)], {"w": weight(16, 16, 3, 3)})
    rows = by_name(account(proto, [{"x": IMAGE}], runs=1))
    assert (rows["elu"].kernel, rows["elu"].code) == ("Elu", "breaks-layout")
    assert not rows["two"].reason


def test_half_precision_is_computed_in_float_and_accounted_for() -> None:
    proto = conv_net(np.float16)
    x = np.ones((1, 3, 12, 12), np.float16)
    rows = by_name(account(proto, [{"x": x}], runs=1))
    assert rows["one"].kernel == "nchwc.Conv"
    assert rows["relu"].fused_into == "one"
    assert rows["gemm"].kernel.startswith("Gemm")


def test_a_profile_needs_feeds() -> None:
    with pytest.raises(DataError, match="at least one feed"):
        account(quantized(), [])


def test_a_profile_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    proto = quantized()
    before = proto.SerializeToString()
    assert account(proto, [{"x": IMAGE}], runs=1).runs == 1
    assert list(tmp_path.iterdir()) == []
    assert proto.SerializeToString() == before
