# SPDX-License-Identifier: Apache-2.0
"""Measured layers: what is timed, kept, read again and interpolated."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.analysis.coupling import couple
from tersor.backends.onnxruntime.session import OrtSession
from tersor.graph_ir import Model, parse
from tersor.pipeline.prune.layers import Layer, linear_layers
from tersor.pipeline.prune.predict import Predictor
from tersor.pipeline.prune.table import Grid, Table, cache_folder, marks
from tests.support.prune_models import chain, mlp, residual

DECONV = """
<ir_version: 8, opset_import: ["" : 17]>
up (float[1,8,4,4] x) => (float[1,6,8,8] y)
<float[8,12,2,2] w = {seed}, float[6,12,1,1] v = {seed}>
{
    u = ConvTranspose<strides=[2,2]>(x, w)
    y = Conv(u, v)
}
"""


def layers(model: Model) -> list[Layer]:
    couple(model)
    return [placed.layer for placed in linear_layers(model, {"B": 2, "T": 5, "N": 3})]


class Fake:
    """Time is MACs: channels in times channels out, of a depthwise layer channels alone."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, layer: Layer, pairs: Sequence[tuple[int, int]], threads: int) -> list[float] | None:
        self.asked.append(layer.key)
        if layer.op_type == "Gemm":
            return None
        return [float(i if layer.depthwise else i * o) for i, o in pairs]


def test_layers_are_read_with_their_sizes() -> None:
    found = layers(residual())
    assert [(x.op_type, x.inputs, x.outputs, x.depthwise) for x in found] == [
        ("Conv", 4, 32, False), ("Conv", 32, 96, False), ("Conv", 96, 96, True), ("Conv", 96, 32, False),
        ("Gemm", 32, 10, False),
    ]  # fmt: skip
    assert [(x.op_type, x.inputs, x.outputs, x.x) for x in layers(mlp())] == [
        ("MatMul", 16, 64, (2, 5, 16)), ("MatMul", 64, 16, (2, 5, 64)),
    ]  # fmt: skip


@pytest.mark.parametrize("model", [chain, residual, mlp, lambda: parse(DECONV)])
def test_each_layer_runs_by_itself_at_other_widths(model: Callable[[], Model]) -> None:
    for layer in layers(model()):
        inputs = max(1, layer.inputs // 2)
        outputs = inputs if layer.depthwise else max(1, layer.outputs // 2)
        with OrtSession(layer.proto(inputs, outputs)) as session:
            (y,) = session.run(layer.feed(inputs))
        channel = 1 if "Conv" in layer.op_type else -1
        assert y.shape[channel] == outputs
        assert np.isfinite(y).all()


def test_a_layer_is_timed_at_quarter_half_and_whole_width() -> None:
    assert marks(64, 16) == [16, 32, 64]
    assert marks(48, 16) == [16, 48]
    assert marks(24, 16) == [8, 24]
    assert marks(58, 16) == [14, 28, 58]
    assert marks(16, 16) == [8, 16]
    assert marks(8, 16) == [4, 8]
    assert marks(4, 16) == [4]
    assert marks(16, 16, group=16) == [16]
    assert marks(64, 1, group=4) == [16, 32, 64]
    assert marks(3, 16) == [1, 3]


def test_widths_between_are_interpolated_and_products_are_exact() -> None:
    ins, outs = np.array([16.0, 32, 64]), np.array([16.0, 64])
    grid = Grid(ins, outs, ins[:, None] * outs)
    assert grid.at(16, 16) == 256
    assert grid.at(48, 40) == pytest.approx(48 * 40)
    assert grid.at(8, 64) == pytest.approx(8 * 64)
    flat = Grid(np.array([8.0]), np.array([4.0]), np.array([[3.0]]))
    assert flat.at(2, 1) == 3.0
    steep = Grid(np.array([16.0, 32]), np.array([4.0]), np.array([[1.0], [9.0]]))
    assert steep.at(4, 4) == 0.0


def test_equal_layers_are_timed_once_and_never_again(tmp_path: Path) -> None:
    found = [*layers(chain()), *layers(chain())]
    timer = Fake()
    first = Table(tmp_path / "cache", timer=timer)
    grids = first.grids(found, 16)
    assert len(timer.asked) == first.measured == 4
    assert [g is not None for g in grids] == [True] * 8
    again = Table(tmp_path / "cache", timer=timer)
    same = again.grids(found, 16)
    assert again.measured == 0
    assert len(timer.asked) == 4
    assert all(
        a is not None and b is not None and np.array_equal(a.ms, b.ms)
        for a, b in zip(grids, same, strict=True)
    )
    assert again.grids(found, 8)
    assert again.measured == 4  # other widths


def test_each_number_of_threads_has_a_table_of_its_own(tmp_path: Path) -> None:
    assert Table(tmp_path, 1).path != Table(tmp_path, 2).path
    Table(tmp_path, 2, timer=Fake()).grids(layers(mlp()), 16)
    document = json.loads(Table(tmp_path, 2).path.read_text())
    assert document["host"]["threads"] == 2
    assert {"cpu", "flags", "onnxruntime"} <= set(document["host"])


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"layers": 3}', '{"layers": {"16 x": {"inputs": [1]}}}'),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_a_broken_cache_is_measured_anew(tmp_path: Path, text: str) -> None:
    table = Table(tmp_path, timer=Fake())
    table.path.write_text(text)
    fresh = Table(tmp_path, timer=Fake())
    fresh.grids(layers(mlp()), 16)
    assert fresh.measured == 2
    assert Table(tmp_path, timer=Fake()).path.read_text() != text


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = Table(tmp_path / "file" / "cache", timer=Fake())
    assert not table.unkept
    assert [g is not None for g in table.grids(layers(mlp()), 16)] == [True, True]
    assert f"cannot be kept for the next run in {str(tmp_path / 'file' / 'cache')!r} (" in table.unkept
    kept = Table(tmp_path / "cache", timer=Fake())
    kept.grids(layers(mlp()), 16)
    assert not kept.unkept


def test_noise_that_says_more_is_quicker_is_smoothed_away(tmp_path: Path) -> None:
    def noisy(layer: Layer, pairs: Sequence[tuple[int, int]], threads: int) -> list[float]:
        return [1.0 + index % 2 for index in range(len(pairs))]

    for grid in Table(tmp_path, timer=noisy).grids(layers(chain()), 16):
        assert grid is not None
        assert (np.diff(grid.ms, axis=0) >= 0).all()
        assert (np.diff(grid.ms, axis=1) >= 0).all()


def test_what_any_run_takes_is_no_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(model: onnx.ModelProto, feed: object, threads: int) -> float:
        return {"nothing": 1.0}.get(model.graph.name, 1.5)

    monkeypatch.setattr("tersor.pipeline.prune.table._least_ms", taken)
    (grid,) = Table(tmp_path).grids(layers(mlp())[:1], 16)
    assert grid is not None
    assert grid.ms == pytest.approx(np.full(grid.ms.shape, 0.5))


def test_real_layers_take_time(tmp_path: Path) -> None:
    small = layers(mlp())[:1]
    (grid,) = Table(tmp_path).grids(small, 16)
    assert grid is not None
    assert (grid.ms > 0).all()


def test_the_users_cache_folder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tersor"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "tersor"
    assert cache_folder(tmp_path / "own") == tmp_path / "own"


def test_prediction_adds_up_layers_and_what_else_the_model_does(tmp_path: Path) -> None:
    model = chain()
    coupling = couple(model)
    table = Table(tmp_path, timer=Fake())
    macs = 3 * 32 + 32 * 64 + 64 * 48 + 48 * 8
    made = Predictor(model, coupling, table, bindings={}, whole_ms=macs, align=16)
    full = np.array([32, 64, 48])
    assert made.left(full) == pytest.approx(1.0)
    half = (3 * 16 + 16 * 32 + 32 * 24 + 24 * 8) / macs
    assert made.left(full // 2) == pytest.approx(half)
    slow = Predictor(model, coupling, table, bindings={}, whole_ms=2 * macs, align=16)
    # The other half of the time goes with the elements that Relu and the pool write.
    assert slow.left(full // 2) == pytest.approx((half + 0.5) / 2)


def test_layers_that_take_longer_than_the_model_are_scaled_down(tmp_path: Path) -> None:
    model = chain()
    coupling = couple(model)
    made = Predictor(model, coupling, Table(tmp_path, timer=Fake()), bindings={}, whole_ms=10.0, align=16)
    assert made.left(np.array([32, 64, 48])) == pytest.approx(1.0)
    assert 0.2 < made.left(np.array([16, 32, 24])) < 0.5


def test_an_atom_costs_the_time_it_takes(tmp_path: Path) -> None:
    model = chain()
    coupling = couple(model)
    macs = 3 * 32 + 32 * 64 + 64 * 48 + 48 * 8
    made = Predictor(model, coupling, Table(tmp_path, timer=Fake()), bindings={}, whole_ms=macs, align=16)
    assert made.costs() == pytest.approx(np.array([3 + 64, 32 + 48, 64 + 8]) / macs)
