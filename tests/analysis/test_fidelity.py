# SPDX-License-Identifier: Apache-2.0
"""SQNR and cosine against their definitions, and their odd cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tersor.analysis.fidelity import Fidelity, cosine, sqnr_db
from tersor.graph_ir import DataError

_vectors = arrays(np.float32, 12, elements=st.floats(-100, 100, width=32))


@given(_vectors, _vectors)
@settings(max_examples=100, deadline=None)
def test_definitions_and_merging(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    whole, left, right = Fidelity(), Fidelity(), Fidelity()
    whole.update(a, b)
    left.update(a[:5], b[:5])
    right.update(a[5:], b[5:])
    merged = left.merge(right).result()
    x, y = a.astype(np.float64), b.astype(np.float64)
    noise, signal = float(np.square(x - y).sum()), float(np.square(x).sum())
    if noise > 0 and signal > 0:
        assert whole.result().sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
        assert merged.sqnr_db == pytest.approx(whole.result().sqnr_db, abs=1e-6)
    if signal > 0 and y.any():
        expected = float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
        assert cosine(a, b) == pytest.approx(expected, abs=1e-9)
    assert merged.count == 12
    assert merged.max_abs == np.abs(x - y).max()


def test_odd_cases() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert sqnr_db(one, one) == math.inf
    assert cosine(one, one) == 1
    assert sqnr_db(zero, zero) == math.inf
    assert cosine(zero, zero) == 1
    assert sqnr_db(zero, one) == -math.inf
    assert cosine(zero, one) == cosine(one, zero) == 0
    assert sqnr_db(one, zero) == 0
    assert cosine(one, -one) == -1
    assert sqnr_db(np.array([1, 2], np.int64), np.array([1.0, 2.0])) == math.inf
    assert math.isnan(Fidelity().result().sqnr_db)


def test_nan_and_infinity() -> None:
    same = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert sqnr_db(same, same) == math.inf
    broken = Fidelity()
    broken.update(np.ones(4), np.array([1, np.nan, np.inf, 1]))
    result = broken.result()
    assert (result.broken, result.sqnr_db, result.max_abs) == (2, -math.inf, math.inf)
    assert result.cosine == pytest.approx(1.0)


def test_shapes_and_types_must_fit() -> None:
    with pytest.raises(DataError, match="shape"):
        sqnr_db(np.ones(3), np.ones((3, 1)))
    with pytest.raises(DataError, match="type"):
        sqnr_db(np.array(["a"]), np.array(["b"]))


def test_large_arrays_are_summed_up_whole() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 70, 100)).astype(np.float32)
    b = a + rng.standard_normal(a.shape).astype(np.float32) / 10
    a[2, 69, 99] = b[2, 69, 99] = np.inf  # agrees, and enters no sum
    found = Fidelity()
    found.update(a, b[..., ::-1][..., ::-1])  # not contiguous
    x, y = a.ravel()[:-1].astype(np.float64), b.ravel()[:-1].astype(np.float64)
    assert found.result().sqnr_db == pytest.approx(10 * math.log10((x @ x) / np.square(x - y).sum()))
    assert found.result().max_abs == np.abs(x - y).max()
    assert (found.count, found.broken) == (a.size, 0)
