# SPDX-License-Identifier: Apache-2.0
"""What each observer promises about its range, measured on the raw data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tersor.calibration.entropy import divergences
from tersor.calibration.histogram import Histogram
from tersor.calibration.mse import Spread
from tersor.calibration.observers import Entropy, MinMax, Mse, Observer, Percentile, observer
from tersor.calibration.scheme import S8, U8, Scheme
from tersor.graph_ir.errors import UsageError

Data = NDArray[np.float64]
SCHEMES = [U8, S8, Scheme(4), Scheme(4, symmetric=True)]
OBSERVERS: list[Observer] = [MinMax(), Percentile(), Percentile(99.0), Entropy(), Mse()]
SHAPES = ["normal", "relu", "relu6", "heavy", "silu", "negative", "shifted", "outlier"]


def sample(shape: str, size: int = 20_000) -> Data:
    rng = np.random.default_rng(7)
    normal = rng.normal(size=size)
    heavy = rng.standard_t(3, size=size)
    table = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "relu6": np.clip(4 * normal, 0, 6),
        "heavy": heavy,
        "silu": 3 * normal / (1 + np.exp(-3 * normal)),
        "negative": -np.abs(normal),
        "shifted": normal + 10,
        "outlier": np.append(normal, [400.0]),
    }
    return table[shape].astype(np.float32).astype(np.float64)


def histogram(data: Data) -> Histogram:
    result = Histogram()
    result.update(data.astype(np.float32))
    return result


def measured_error(data: Data, low: float, high: float, scheme: Scheme) -> float:
    """Quantise and restore in float64, integer zero point."""
    step = (high - low) / scheme.levels
    zero = np.rint(-low / step)
    codes = np.clip(np.rint(data / step) + zero, 0, scheme.levels)
    return float(np.square((codes - zero) * step - data).mean())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_ranges_hold_zero_lie_in_the_data_and_suit_the_scheme(shape: str, scheme: Scheme) -> None:
    data = sample(shape)
    for rule in OBSERVERS:
        low, high = rule.result(histogram(data), scheme)
        assert low <= 0 <= high
        assert low < high
        if scheme.symmetric:
            assert low == -high
            assert high <= np.abs(data).max()
        else:
            assert min(data.min(), 0) <= low
            assert high <= max(data.max(), 0)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_no_worse_than_any_other_rule_when_measured(shape: str, scheme: Scheme) -> None:
    data = sample(shape)
    best = measured_error(data, *Mse().result(histogram(data), scheme), scheme)
    for rule in OBSERVERS:
        assert best <= 1.02 * measured_error(data, *rule.result(histogram(data), scheme), scheme)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_estimated_error_is_the_measured_one(shape: str) -> None:
    data = sample(shape, 100_000)
    for rule in (MinMax(), Percentile(99.0)):
        low, high = rule.result(histogram(data), U8)
        (estimate,) = Spread.of(histogram(data)).errors(np.array([low]), np.array([high]), U8)
        assert estimate == pytest.approx(measured_error(data, low, high, U8), rel=0.03)


@given(st.integers(0, 2**32 - 1), st.floats(80, 100), st.booleans())
@settings(max_examples=40, deadline=None)
def test_percentile_is_numpys_within_a_cell(seed: int, percent: float, one_sided: bool) -> None:
    data = np.random.default_rng(seed).normal(size=5000).astype(np.float32).astype(np.float64)
    data = np.abs(data) if one_sided else data
    seen = histogram(data)
    order = np.sort(data)
    low, high = Percentile(percent).result(seen, U8)
    cut = 100 - percent if one_sided else (100 - percent) / 2
    near = 2 * seen.width

    def close(value: float, q: float) -> bool:
        below = np.percentile(order, max(q - 0.02, 0), method="lower")  # one sample either side
        above = np.percentile(order, min(q + 0.02, 100), method="higher")
        return bool(below - near <= value <= above + near)

    assert close(high, 100 - cut)
    assert low == 0 if one_sided else close(low, cut)
    bound = Percentile(percent).result(seen, S8)[1]
    order = np.sort(np.abs(data))
    assert close(bound, percent)


def test_entropy_cuts_a_far_outlier_and_keeps_an_even_spread() -> None:
    assert Entropy().result(histogram(sample("outlier")), U8)[1] < 60  # of 400: the outlier is one in 20001
    even = np.linspace(0, 1, 40_000)
    assert Entropy().result(histogram(even), U8) == (0.0, 1.0)
    assert Entropy().result(histogram(sample("relu6")), U8) == (0.0, 6.0)


def plain_divergence(counts: NDArray[Any], end: int, levels: int) -> float:
    """KL(P || Q) of the window ``counts[:end]`` written out as in the slides."""
    p: Data = np.array(counts[:end])
    outliers = counts[end:].sum()
    q = np.zeros(end)
    filled: NDArray[np.bool_] = p > 0
    filled[-1] |= outliers > 0
    for level in range(levels):
        cells = slice(level * end // levels, (level + 1) * end // levels)
        number = np.count_nonzero(filled[cells])
        if number:
            q[cells][filled[cells]] = (p[cells].sum() or 0.5) / number
    p[-1] += outliers
    p, q = p / p.sum(), q / q.sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def test_running_sums_give_the_divergence_written_out() -> None:
    rng = np.random.default_rng(3)
    counts: Data = np.floor(rng.exponential(2.0, 200)) * (rng.random(200) < 0.7)
    ends = np.arange(16, 201)
    got = divergences(counts, np.zeros_like(ends), ends, 16)
    expected = [plain_divergence(counts, int(end), 16) for end in ends]
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    mirrored = divergences(np.flip(counts), 200 - ends, np.full_like(ends, 200), 8)
    assert np.isfinite(mirrored).any()


@pytest.mark.parametrize("rule", OBSERVERS, ids=lambda rule: rule.name)
def test_degenerate_tensors(rule: Observer) -> None:
    nothing, zeros, constant, negative = Histogram(), Histogram(), Histogram(), Histogram()
    zeros.update(np.zeros(5, np.float32))
    constant.update(np.full(5, 2.5, np.float32))
    negative.update(np.full(5, -2.5, np.float32))
    for scheme in SCHEMES:
        assert rule.result(nothing, scheme) == (0.0, 0.0)
        assert rule.result(zeros, scheme) == (0.0, 0.0)
        low, high = rule.result(constant, scheme)
        assert measured_error(np.full(5, 2.5), low, high, scheme) < 1e-12
        low, high = rule.result(negative, scheme)
        assert measured_error(np.full(5, -2.5), low, high, scheme) < 1e-12


def test_observers_by_name() -> None:
    assert observer("percentile:99.5") == Percentile(99.5)
    assert [observer(name).name for name in ("minmax", "entropy", "mse")] == ["minmax", "entropy", "mse"]
    for wrong in ("median", "mse:3", "percentile:x", "percentile:0"):
        with pytest.raises(UsageError):
            observer(wrong)
    with pytest.raises(UsageError, match="bits"):
        Scheme(1)
