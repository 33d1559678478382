# SPDX-License-Identifier: Apache-2.0
"""The weights that stay make up for those that go: counts, least squares, and what inputs a layer sees."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.graph_ir import Model, constant, to_proto
from tersor.passes.linear.patches import patches
from tersor.passes.prune.masks import Pattern
from tersor.passes.prune.sparse_layers import find_layers
from tersor.pipeline.prune.sparsify.inputs import hessians, squares
from tersor.pipeline.prune.sparsify.sparsegpt import output_error, prune_rows, refit
from tests.support.int8 import feeds_of, graph, run

Wide = NDArray[np.float64]


def correlated(size: int, samples: int, seed: int = 0) -> Wide:
    """Columns that a few hidden causes drive."""
    rng = np.random.default_rng(seed)
    mixed: Wide = rng.standard_normal((size, size // 4)) @ rng.standard_normal((size // 4, samples))
    return mixed + 0.1 * rng.standard_normal((size, samples))


def gram(x: Wide) -> Wide:
    return np.einsum("in,jn->ij", x, x)


def magnitude(rows: Wide, share: float) -> Wide:
    cut = np.sort(np.abs(rows), axis=None)[round(share * rows.size) - 1]
    return np.where(np.abs(rows) <= cut, 0.0, rows)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_error_is_far_below_that_of_magnitude_on_correlated_inputs(share: float) -> None:
    x, rows = correlated(200, 1000), np.random.default_rng(1).standard_normal((24, 200))
    hessian = gram(x)
    made = prune_rows(rows, hessian, share=share)
    assert np.count_nonzero(made == 0) == round(share * rows.size)
    error, plain = (output_error(rows[None], v[None], hessian[None]) for v in (made, magnitude(rows, share)))
    assert error < 0.2 * plain
    np.testing.assert_allclose(
        error, np.square((made - rows) @ x).sum() / np.square(rows @ x).sum(), rtol=1e-6
    )


def test_what_stays_answers_as_least_squares_would() -> None:
    # With one weight gone, the best answer of all columns behind it is known in closed form.
    x, row = correlated(16, 100), np.random.default_rng(1).standard_normal((1, 16))
    row[0, 0] = 1e-9  # the cheapest by far, and the first: all others may answer
    row[0, 1:] += 5
    hessian = gram(x)
    made = prune_rows(row, hessian, share=1 / 16, damping=1e-12)
    others: Wide = np.linalg.inv(hessian[1:, 1:]) @ hessian[1:] @ row[0]
    np.testing.assert_allclose(made[0, 1:], others, rtol=1e-5)
    assert made[0, 0] == 0.0


def test_uncorrelated_inputs_of_one_size_give_the_magnitude_mask() -> None:
    rows = np.random.default_rng(2).standard_normal((6, 40))
    made = prune_rows(rows, np.eye(40) * 7.0, share=0.5)
    np.testing.assert_allclose(made, magnitude(rows, 0.5), atol=1e-12)


def test_what_was_never_seen_goes_first_and_hands_nothing_on() -> None:
    rows = np.random.default_rng(2).standard_normal((6, 8)) + 3
    hessian = np.diag([0.0, 1, 1, 1, 0, 1, 1, 1])
    made = prune_rows(rows, hessian, share=0.25)
    assert (made[:, [0, 4]] == 0).all()
    np.testing.assert_array_equal(made[:, [1, 2, 3, 5, 6, 7]], rows[:, [1, 2, 3, 5, 6, 7]])
    np.testing.assert_allclose(prune_rows(rows, np.zeros((8, 8)), share=0.5), magnitude(rows, 0.5))


def test_the_fit_is_the_least_squares_one_on_each_rows_support() -> None:
    x, rows = correlated(24, 200), np.random.default_rng(1).standard_normal((3, 24))
    hessian = gram(x) + np.eye(24)
    start = magnitude(rows, 0.5)
    made = refit(rows, start, hessian, steps=60)
    np.testing.assert_array_equal(made == 0, start == 0)
    for w, v in zip(rows, made, strict=True):
        on = v != 0
        want: Wide = np.linalg.inv(hessian[np.ix_(on, on)]) @ hessian[on] @ w
        np.testing.assert_allclose(v[on], want, rtol=1e-5, atol=1e-6)
    errors = [float(np.square((refit(rows, start, hessian, steps=n) - rows) @ x).sum()) for n in (0, 2, 20)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("size", [16, 300])
def test_each_run_of_a_pattern_keeps_its_count(size: int) -> None:
    x, rows = correlated(size, 500), np.random.default_rng(1).standard_normal((5, size))
    made = prune_rows(rows, gram(x), pattern=Pattern(2, 4))
    assert (np.count_nonzero(made.reshape(5, -1, 4), axis=2) == 2).all()


LAYERS = [
    ("y = Conv(x, w)", "6,4,3,3", "2,4,7,6"),
    ("y = Conv<strides=[2,1], pads=[1,0,2,1], dilations=[1,2]>(x, w)", "6,4,3,2", "2,4,7,6"),
    ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)', "6,4,2,2", "2,4,7,6"),
    ("y = Conv<group=2, pads=[1,1]>(x, w)", "6,2,3", "2,4,9"),
    ("y = Conv<group=4>(x, w)", "4,1,2,2,2", "2,4,3,3,3"),
    ("y = Gemm<alpha=1.0>(x, w)", "5,6", "7,5"),
    ("y = Gemm<transA=1, transB=1>(x, w)", "6,5", "5,7"),
    ("y = MatMul(x, w)", "5,6", "2,3,5"),
    ("y = MatMul(w, x)", "6,5", "2,5,3"),
]


@pytest.mark.parametrize(("body", "shape", "x"), LAYERS)
def test_rows_times_columns_are_what_the_node_computes(body: str, shape: str, x: str) -> None:
    model = graph(body, f"float[{shape}] w = {{seed}}", x=x)
    (layer,), left = find_layers(model)
    feed = feeds_of(model, 1)[0]
    (use,) = layer.uses
    made = patches(use.read, "x").rows(feed["x"], None, np.random.default_rng(0))[:, :, use.order()]
    rows = layer.array().reshape(-1)[layer.positions().reshape(len(made), -1, layer.row)]
    found = np.sort((rows @ np.swapaxes(made, 1, 2)).reshape(-1))
    want = np.sort(run(to_proto(model), feed, off=True)[0].reshape(-1))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert not left


def test_sums_over_feeds_and_readers() -> None:
    model: Model = graph("t = MatMul(x, w) y = MatMul(t, w)", "float[5,5] w = {seed}", x="3,5")
    (layer,), _ = find_layers(model)
    feeds = feeds_of(model, 3)
    w = constant(layer.root)
    seen = np.concatenate([np.concatenate([f["x"], f["x"] @ w]) for f in feeds]).astype(np.float64)
    (hessian,) = hessians(model, feeds, [layer], seed=0)
    (square,) = squares(model, feeds, [layer], seed=0)
    np.testing.assert_allclose(hessian[0], np.einsum("ni,nj->ij", seen, seen), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(square[0], np.square(seen).sum(axis=0), rtol=1e-4)
