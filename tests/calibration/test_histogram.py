# SPDX-License-Identifier: Apache-2.0
"""The streaming histogram against numpy, and its monoid laws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tersor.calibration.histogram import Histogram
from tersor.graph_ir.errors import DataError

Floats = NDArray[np.float32]

_values = st.one_of(
    st.floats(-(2.0**40), 2.0**40, width=32),
    st.floats(-1.0, 1.0, width=32),
    st.just(0.0),
    st.just(6.0),
    st.floats(-(2.0**-140), 2.0**-140, width=32),
)
_parts = st.lists(arrays(np.float32, st.integers(0, 20), elements=_values), max_size=6)


def of(parts: Sequence[NDArray[Any]], bins: int = 32) -> Histogram:
    histogram = Histogram(bins)
    for part in parts:
        histogram.update(part)
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    numbers = (histogram.minimum, histogram.maximum, histogram.zeros, histogram.infinite)
    return (histogram.exponent, histogram.base, histogram.counts.tolist(), *numbers)


@given(_parts, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_order_and_splitting_do_not_matter(parts: list[Floats], random: Any) -> None:
    whole = of([np.concatenate(parts)] if parts else [])
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert state(of(shuffled)) == state(whole)
    assert state(of([part.astype(np.float64) for part in parts])) == state(whole)


@given(_parts, _parts, _parts)
@settings(max_examples=100, deadline=None)
def test_merge_is_associative_and_commutative(a: list[Floats], b: list[Floats], c: list[Floats]) -> None:
    x, y, z = of(a), of(b), of(c)
    before = state(x)
    together = state(of([*a, *b, *c]))
    assert state(x.merge(y).merge(z)) == together
    assert state(x.merge(y.merge(z))) == together
    assert state(z.merge(y).merge(x)) == together
    assert state(x.merge(Histogram(32))) == before == state(x)


@given(_parts)
@settings(max_examples=100, deadline=None)
def test_counts_agree_with_numpy_on_the_raw_data(parts: list[Floats]) -> None:
    raw = np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float64)
    histogram = of(parts)
    assert histogram.count == raw.size
    assert histogram.counts.size <= 64
    if raw.size:
        first = np.arange(histogram.base, histogram.base + histogram.counts.size + 1)
        expected, _ = np.histogram(raw, np.ldexp(first.astype(np.float64), histogram.exponent))
        top = np.count_nonzero(
            raw == np.ldexp(float(first[-1]), histogram.exponent)
        )  # numpy closes its last cell
        expected[-1] -= top
        assert histogram.counts.tolist() == expected.tolist()
        assert (histogram.minimum, histogram.maximum) == (raw.min(), raw.max())
        assert histogram.zeros == np.count_nonzero(raw == 0)


def test_at_least_the_asked_number_of_cells_cover_the_range() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 3e4):
        histogram = of([(scale * rng.normal(size=10_000)).astype(np.float32)], bins=2048)
        assert 2048 <= histogram.counts.size <= 4096


def test_memory_is_flat_in_the_number_of_samples() -> None:
    rng = np.random.default_rng(1)
    histogram = Histogram(256)
    sizes: set[int] = set()
    for k in range(300):
        histogram.update((rng.normal(size=500) * 1.05**k).astype(np.float32))
        sizes.add(histogram.counts.nbytes)
    assert max(sizes) <= 2 * 256 * 8
    assert histogram.count == 300 * 500


def test_moments_are_within_half_a_cell() -> None:
    values = np.maximum(np.random.default_rng(2).normal(1.0, 2.0, 50_000), 0).astype(np.float32)
    histogram = of([values], bins=2048)
    mean, deviation = histogram.moments()
    assert abs(mean - values.mean(dtype=np.float64)) < histogram.width / 2
    assert abs(deviation - values.std(dtype=np.float64)) < histogram.width
    assert math.isnan(Histogram().moments()[0])


@pytest.mark.parametrize("constant", [0.0, 3.25, -7.0, 1e-40])
def test_constant_tensors(constant: float) -> None:
    histogram = of([np.full(9, constant, np.float32), np.full((2, 2), constant, np.float32)])
    value = float(np.float32(constant))
    assert (histogram.count, histogram.minimum, histogram.maximum) == (13, value, value)
    assert histogram.zeros == (13 if constant == 0 else 0)
    assert histogram.edges().tolist() == [value, value]


def test_infinities_are_recorded_and_kept_out_of_the_range() -> None:
    histogram = of([np.array([1.0, np.inf, -np.inf, 2.0], np.float32), np.array([np.inf], np.float32)])
    assert (histogram.infinite, histogram.count, histogram.maximum) == (3, 2, 2.0)


def test_extreme_magnitudes() -> None:
    values = np.array([1e-300, -1e-300, 1.7e308, -1.7e308, 0.0])
    histogram = of([values])
    assert histogram.counts.size <= 64
    assert histogram.counts[-histogram.base - 1] == 1  # the tiny negative one stays below zero
    assert state(of([values[:2], values[2:]])) == state(histogram)


def test_other_number_types() -> None:
    assert of([np.array([1, 2, 3], np.uint8)]).maximum == 3.0
    assert of([np.array([0.5], np.float16)]).maximum == 0.5
    assert of([np.array([True, False])]).zeros == 1
    with pytest.raises(DataError, match="type"):
        of([np.array(["a"])])


def test_nan_and_unlike_bins_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        of([np.array([1.0, np.nan], np.float32)])
    with pytest.raises(DataError, match="bins"):
        Histogram(32).merge(Histogram(64))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_arrays_are_counted_like_their_parts(dtype: str) -> None:
    array: NDArray[Any] = np.maximum(np.random.default_rng(0).standard_normal(200_003), 0).astype(dtype)
    whole, parts = Histogram(64), Histogram(64)
    whole.update(array)
    for part in np.array_split(array, 50):
        parts.update(part)
    assert whole.counts.tolist() == parts.counts.tolist()
    assert whole.count == array.size
    assert whole.zeros == parts.zeros == int((array == 0).sum())
