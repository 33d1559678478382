# SPDX-License-Identifier: Apache-2.0
"""The feedback of errors among columns: against the closed form, in any blocks, for layers side by side."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.passes.linear.feedback import damped, feed_back, inverse_root

Wide = NDArray[np.float64]


def hessians(count: int, size: int) -> Wide:
    x = np.random.default_rng(0).standard_normal((count, size, 3 * size))
    return np.asarray(x @ np.swapaxes(x, 1, 2), np.float64)


def test_the_root_is_that_of_the_inverse() -> None:
    hessian = hessians(2, 20)
    upper = inverse_root(hessian)
    np.testing.assert_allclose(np.swapaxes(upper, 1, 2) @ upper @ hessian, [np.eye(20)] * 2, atol=1e-8)
    assert not np.tril(upper, -1).any()


def test_damping_adds_a_share_of_the_mean_and_what_was_never_seen_answers_nothing() -> None:
    seen = np.diag([1.0, 3.0])
    np.testing.assert_array_equal(damped(np.stack([seen, 0 * seen]), 0.5), [seen + np.eye(2), np.eye(2)])


@pytest.mark.parametrize("block", [1, 4, 128])
def test_the_columns_to_come_answer_as_least_squares_would(block: int) -> None:
    hessian, rows = hessians(2, 9), np.random.default_rng(1).standard_normal((2, 5, 9))
    work = np.array(rows)

    def settle(j: int, inside: slice) -> Wide:
        assert inside.start <= j < inside.stop <= inside.start + block
        return np.array(work[..., j]) if j else np.zeros((2, 5))

    feed_back(work, inverse_root(hessian), settle, block=block)
    assert not work[..., 0].any()
    for layer in range(2):
        others: Wide = np.linalg.inv(hessian[layer, 1:, 1:]) @ hessian[layer, 1:] @ np.transpose(rows[layer])
        np.testing.assert_allclose(np.transpose(work[layer, :, 1:]), others, rtol=1e-8, atol=1e-10)
