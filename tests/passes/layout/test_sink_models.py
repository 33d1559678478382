# SPDX-License-Identifier: Apache-2.0
"""Models exported channel-last: what the pass, and the whole preset, make of them; and how long it takes."""

from __future__ import annotations

from collections import Counter

import pytest

from tersor.graph_ir import Model, Node
from tersor.passes.base import Context
from tersor.passes.clean.infer_shapes import InferShapes
from tersor.passes.layout import borders, region
from tersor.passes.layout.sink_transpose import SinkTransposes
from tersor.pipeline import manager, spec
from tersor.pipeline.presets import preset
from tests.support.layouts import TO_FIRST, TO_LAST, X, Y, sink, transposes
from tests.support.numerics import assert_rounding, feeds_for, snapshot
from tests.support.rewriting import model_of


def channel_last(blocks: int) -> Model:
    """Residual blocks as TensorFlow's exporter writes them: NHWC around every Conv, Pad, ReLU6 in two."""
    body, last = "", "x"
    weights: list[str] = []
    for i in range(blocks):
        weights += [f"float[3,3,6,6] k{i} = {{seed}}", f"float[6] b{i} = {{seed}}"]
        body += f"""
            a{i} = Pad({last}, pads)
            c{i} = {TO_FIRST}(a{i})
            t{i} = Transpose<perm = [3, 2, 0, 1]>(k{i})
            d{i} = Conv(c{i}, t{i})
            e{i} = {TO_LAST}(d{i})
            f{i} = Add(e{i}, b{i})
            g{i} = Relu(f{i})
            h{i} = Min(g{i}, six)
            r{i} = Add(h{i}, {last})"""
        last = f"r{i}"
    shared = ["float six = {6}", "int64[8] pads = {0,1,1,0, 0,1,1,0}"]
    body += f"\nm = {TO_FIRST}({last})\np = GlobalAveragePool(m)\ny = {TO_LAST}(p)"
    return model_of(body, ", ".join([*weights, *shared]), x="float[N,7,8,6] x", y=Y)


def test_only_the_ends_keep_a_transpose() -> None:
    result = sink(channel_last(3), bitwise=False)
    weights = 3
    assert transposes(result.model) == weights + 2
    counts = Counter(result.ops)
    assert counts["Conv"] == 3
    assert counts["Add"] == 6


def test_the_preset_leaves_convs_with_their_biases() -> None:
    model = channel_last(3)
    before = snapshot(model)
    manager.run(spec.parse(preset("lossless")), model)
    assert_rounding(before, snapshot(model), feeds_for(before))
    counts = Counter(node.op_type for node in model.graph)
    assert counts == {"Transpose": 2, "Conv": 3, "Clip": 3, "Add": 3, "GlobalAveragePool": 1}
    assert all(len(node.inputs) == 3 for node in model.graph if node.op_type == "Conv")


def test_preprocessing_moves_behind_the_transpose_of_the_input() -> None:
    """As many Transposes as before, but the Conv can now take the scale."""
    body = f"""
        s = Mul(x, scale)
        m = Sub(s, mean)
        t = {TO_FIRST}(m)
        y = Conv(t, k)"""
    weights = "float scale = {0.5}, float[6] mean = {seed}, float[2,6,1,1] k = {seed}"
    result = sink(model_of(body, weights, x="float[2,4,5,6] x", y=Y))
    assert result.ops == ["Transpose", "Mul", "Sub", "Conv"]


def test_what_follows_the_last_conv_moves_before_the_transpose_of_the_output() -> None:
    body = f"c = Conv(x, k)\nt = {TO_LAST}(c)\na = Add(t, b)\ny = Clip(a, lo, hi)"
    weights = "float[2,6,1,1] k = {seed}, float[2] b = {1,2}, float lo = {0}, float hi = {6}"
    result = sink(model_of(body, weights, x=X, y=Y))
    assert result.ops == ["Conv", "Add", "Clip", "Transpose"]


def test_a_matmul_keeps_its_scale_beside_it() -> None:
    """Channel-last operators that end in a MatMul, as in ConvNeXt: the scale belongs to the MatMul."""
    body = f"""
        c = Conv(x, k)
        v = {TO_LAST}(c)
        n = LayerNormalization(v, g)
        m = MatMul(n, w)
        s = Mul(m, scale)
        t = {TO_FIRST}(s)
        y = Add(t, x)"""
    weights = "float[6,6,1,1] k = {seed}, float[6] g = {seed}, float[6,6] w = {seed}, float[6] scale = {seed}"
    assert not sink(model_of(body, weights, x=X, y=Y)).changed


def test_a_second_reader_shares_the_transpose_there_is() -> None:
    """The input's own Transpose serves both; where it stands does not matter."""
    there = f"t = {TO_FIRST}(x)"
    rest = f"s = Relu(x)\nu = {TO_FIRST}(s)"
    for order in ((there, rest), (rest, there)):
        body = "\n".join([*order, "a = Conv(t, k)", "b = Conv(u, k)", "y = Add(a, b)"])
        result = sink(model_of(body, "float[6,6,1,1] k = {seed}", x="float[2,4,5,6] x", y=Y))
        assert Counter(result.ops) == {"Transpose": 1, "Relu": 1, "Conv": 2, "Add": 1}


def test_running_again_changes_nothing() -> None:
    model = channel_last(2)
    InferShapes().run(model, Context())
    assert SinkTransposes().run(model, Context())
    assert not SinkTransposes().run(model, Context())


def _steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the pass plans a node or weighs one at the border."""
    count = 0

    def counted(function: object) -> object:
        def call(*args: object) -> object:
            nonlocal count
            count += 1
            return function(*args)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]

        return call

    InferShapes().run(model, Context())
    with monkeypatch.context() as patch:
        patch.setattr(region, "plan", counted(region.plan))
        patch.setattr(borders.Borders, "gain", counted(borders.Borders.gain))
        SinkTransposes().run(model, Context())
    return count


@pytest.mark.parametrize("kind", ["saved", "pruned", "fork"])
def test_steps_grow_with_the_nodes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(size: int) -> Model:
        if kind == "saved":
            return channel_last(size)
        chain = "\n".join(f"n{i + 1} = Neg(n{i})" for i in range(8 * size))
        if kind == "pruned":
            return model_of(f"n0 = {TO_LAST}(x)\n{chain}\ny = Identity(n{8 * size})", x=X, y=Y)
        fan = "\n".join(f"n{i + 1} = Neg(n0)\nm{i} = MatMul(n{i + 1}, k)" for i in range(8 * size))
        last = ", ".join(f"m{i}" for i in range(8 * size))
        return model_of(f"n0 = {TO_LAST}(x)\n{fan}\ny = Sum({last})", "float[6,6] k = {seed}", x=X, y=Y)

    small, large = _steps(model(10), monkeypatch), _steps(model(40), monkeypatch)
    assert small > 0
    assert large <= 4.4 * small


def test_the_steps_of_a_node_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    model = channel_last(20)
    nodes: list[Node] = list(model.graph)
    assert _steps(model, monkeypatch) <= 12 * len(nodes)
