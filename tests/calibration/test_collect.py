# SPDX-License-Identifier: Apache-2.0
"""Collecting over a model: against numpy, in groups, in parts, and with wrong data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.analysis import evaluate
from tersor.calibration import S8, Histograms, Percentile, Ranges, choose, collect, open_feeds
from tersor.calibration.collect import survey
from tersor.graph_ir import DataError, Model, fingerprint, parse

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)
  <float[4, 3, 3, 3] W = {seed}, float[4] b = {seed}>
{
  c = Conv <pads = [1, 1, 1, 1]> (x, W, b)
  r = Relu(c)
  y = Sigmoid(r)
}
"""
NAMES = ["x", "c", "r", "y"]


def model() -> Model:
    return parse(TEXT)


def data(count: int = 6) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def states(histograms: Histograms) -> dict[str, Any]:
    return {
        name: (h.exponent, h.base, h.counts.tolist(), h.minimum, h.maximum, h.zeros)
        for name, h in histograms.values.items()
    }


def raw(name: str) -> NDArray[np.float32]:
    run = evaluate.Evaluator(model(), outputs=[name]).run
    return np.concatenate([run(feed)[name] for feed in data()])


@pytest.mark.parametrize("threads", [0, 2, 3])
def test_what_is_measured_does_not_depend_on_the_threads(threads: int) -> None:
    # Where threads share this convolution, onnxruntime adds up in another order.
    wide = parse("""<ir_version: 10, opset_import: ["" : 17]>
    g (float[1,32,16,16] x) => (float[1,64,8,8] y) <float[64,32,3,3] w = {seed}> {
      y = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w)
    }""")
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 32, 16, 16)).astype(np.float32)} for _ in range(7)]
    alone, means = survey(wide, feeds, ["y"], {"y": 1})
    beside, again = survey(wide, feeds, ["y"], {"y": 1}, threads=threads)
    assert states(beside) == states(alone)
    assert again["y"].tobytes() == means["y"].tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_feeds_may_come_in_one_array_filled_anew(threads: int) -> None:
    """Regression: a feed was run while the next one was written over it."""

    class Filled(list[dict[str, NDArray[Any]]]):
        def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
            held = {name: np.empty_like(array) for name, array in self[0].items()}
            for feed in super().__iter__():
                for name, array in feed.items():
                    held[name][:] = array
                yield held

    found = collect(model(), Filled(data()), NAMES, threads=threads)
    assert states(found) == states(collect(model(), data(), NAMES))


def test_one_pass_serves_all_rules() -> None:
    before = model()
    histograms = collect(before, data(), NAMES)
    assert fingerprint(before) == fingerprint(model()) == histograms.fingerprint
    assert histograms.samples == 6
    ranges = choose(histograms, "minmax")
    for name in NAMES:
        values, found = raw(name), ranges.values[name]
        assert (found.min, found.max) == (values.min(), values.max())
        assert (found.lo, found.hi) == (min(values.min(), 0), max(values.max(), 0))
        assert found.count == values.size
        assert found.mean == pytest.approx(values.mean(dtype=np.float64), abs=1e-3)
        assert found.unsafe == ""
    for rule in ("percentile:99", "entropy", "mse"):
        chosen = choose(histograms, rule)
        assert chosen.values["r"].lo == 0
        assert 0 < chosen.values["r"].hi <= ranges.values["r"].hi
    symmetric = choose(histograms, Percentile(99.0), S8).values["c"]
    assert symmetric.lo == -symmetric.hi


def test_groups_and_parts_give_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = states(collect(model(), data(), NAMES))
    opened: list[list[str]] = []
    plain = evaluate.Evaluator

    def watch(*args: Any, **options: Any) -> evaluate.Evaluator:
        opened.append(list(options["outputs"]))
        return plain(*args, **options)

    monkeypatch.setattr(sys.modules["tersor.calibration.visit"], "Evaluator", watch)
    assert states(collect(model(), data(), NAMES)) == whole
    assert opened[-1] == NAMES  # one pass when all fits
    opened.clear()
    largest = 4 * 4 * 64  # bytes of c, r or y
    assert states(collect(model(), data(), NAMES, budget=largest)) == whole
    assert opened[-4:] == [["x"], ["c"], ["r"], ["y"]]
    parts = [collect(model(), data()[:2], NAMES), collect(model(), data()[2:], NAMES)]
    merged = parts[1].merge(parts[0])
    assert states(merged) == whole
    assert merged.samples == 6
    assert states(collect(model(), data()[::-1], NAMES)) == whole


def test_memory_does_not_grow_with_the_feeds() -> None:
    sizes = [
        sum(h.counts.nbytes for h in collect(model(), data(count), NAMES, bins=128).values.values())
        for count in (4, 40)
    ]
    assert max(sizes) <= len(NAMES) * 2 * 128 * 8


def test_progress() -> None:
    seen: list[tuple[int, int | None]] = []
    collect(model(), data(3), NAMES, budget=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k + 1, 12) for k in range(12)]


def test_histograms_and_means_of_one_pass() -> None:
    passes = list[int]()

    class Counted(list[Any]):
        def __iter__(self) -> Any:
            passes.append(1)
            return super().__iter__()

    found, means = survey(model(), Counted(data()), ["r", "c"], {"c": 1, "x": -1})
    assert len(passes) == 2, "one look at the first feed, one pass"
    assert states(found) == states(collect(model(), data(), ["r", "c"]))
    np.testing.assert_allclose(means["c"], raw("c").mean((0, 2, 3), dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(means["x"], raw("x").mean((0, 1, 2), dtype=np.float64), rtol=1e-9)
    assert means["c"].dtype == np.float64
    with pytest.raises(DataError, match="no axis 4"):
        survey(model(), data(), [], {"x": 4})


def test_feeds_from_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.concatenate([feed["x"] for feed in data()]))
    feeds = open_feeds(tmp_path / "d.npz", model())
    histograms = collect(model(), feeds, NAMES)
    assert states(histograms) == states(collect(model(), data(), NAMES))
    assert histograms.data == str(tmp_path / "d.npz")


def test_values_that_overflow_are_marked_unsafe() -> None:
    text = TEXT.replace("y = Sigmoid(r)", "e = Exp(r)\n  d = Mul(e, e)\n y = Mul(d, d)")
    feeds = [{"x": 30 * feed["x"]} for feed in data()]
    found = choose(collect(parse(text), feeds, ["r", "y"]), "mse")
    assert found.values["r"].unsafe == ""
    assert "infinite" in found.values["y"].unsafe
    assert np.isfinite([found.values["y"].lo, found.values["y"].hi]).all()


def test_masks_are_marked_unsafe() -> None:
    text = TEXT.replace("r = Relu(c)", "r = Mul(c, big)").replace(
        "b = {seed}>", "b = {seed}, float[1] big = {-1e30}>"
    )
    found = choose(collect(parse(text), data(), ["c", "r"]), "minmax")
    assert found.values["c"].unsafe == ""
    assert "stand for infinity" in found.values["r"].unsafe


class Shrinking:
    """Gives one feed less on each pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        self.passes += 1
        return iter(data(6 - self.passes))


def test_wrong_data() -> None:
    nan_inside = parse(TEXT.replace("r = Relu(c)", "r = Log(c)"))
    with pytest.raises(DataError, match="sample 0, value 'r': NaN"):
        collect(nan_inside, data(), ["r"])
    with pytest.raises(DataError, match="sample 1, input 'x': type float64"):
        collect(model(), [data()[0], {"x": np.zeros((1, 3, 8, 8))}], NAMES)
    with pytest.raises(DataError, match="no feeds"):
        collect(model(), [], NAMES)
    with pytest.raises(DataError, match="iterator"):
        collect(model(), iter(data()), NAMES)
    with pytest.raises(DataError, match="'nothing'"):
        collect(model(), data(), ["nothing"])
    with pytest.raises(DataError, match="feeds in one pass"):
        collect(model(), Shrinking(), NAMES, budget=1)
    histograms = collect(model(), data(), ["x"])
    with pytest.raises(DataError, match="different values"):
        histograms.merge(collect(model(), data(), ["c"]))
    with pytest.raises(DataError, match="models"):
        histograms.merge(collect(nan_inside, data(), ["x"]))
    assert isinstance(choose(histograms), Ranges)
