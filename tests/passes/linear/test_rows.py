# SPDX-License-Identifier: Apache-2.0
"""A weight as rows: what each output sums over, there and back, for every operator and either operand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.passes.linear.rows import RowView
from tests.support.int8 import graph

CASES = [
    ("Conv<group=2>(x, w)", (6, 2, 3, 2), 1, (2, 6, 2, 6), -3),
    ("ConvTranspose<group=2>(x, w)", (4, 3, 2, 2), 1, (2, 6, 2, 4), -3),
    ("Gemm(x, w)", (5, 6), 1, (1, 6, 5, 1), -1),
    ("Gemm<transA=1, transB=1>(x, w)", (6, 5), 1, (1, 6, 5, 1), -2),
    ("Gemm(w, x)", (6, 5), 0, (1, 6, 5, 1), -2),
    ("Gemm<transA=1, transB=1>(w, x)", (5, 6), 0, (1, 6, 5, 1), -1),
    ("MatMul(x, w)", (5, 6), 1, (1, 6, 5, 1), -1),
    ("MatMul(w, x)", (6, 5), 0, (1, 6, 5, 1), -2),
    ("MatMul(x, w)", (7, 5, 6), 1, (1, 6, 5, 1), -1),
    ("MatMul(x, w)", (5,), 1, (1, 1, 5, 1), -1),
]


def seen(body: str, shape: tuple[int, ...], slot: int) -> tuple[RowView, NDArray[np.int64]]:
    node = graph(f"y = {body}", f"float[{','.join(map(str, shape))}] w = {{seed}}").graph.node(0)
    return RowView(node, shape, slot), np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize(("body", "shape", "slot", "sizes", "in_axis"), CASES)
def test_rows_and_back(
    body: str, shape: tuple[int, ...], slot: int, sizes: tuple[int, ...], in_axis: int
) -> None:
    read, array = seen(body, shape, slot)
    assert (read.groups, read.outputs, read.inputs, read.taps) == sizes
    assert read.in_axis == in_axis
    rows = read.rows(array)
    assert rows.shape[0] == read.outputs
    assert rows.shape[1 if read.is_conv else -1] == read.inputs
    np.testing.assert_array_equal(read.back(rows), array)


@pytest.mark.parametrize(("body", "shape", "slot"), [case[:3] for case in CASES])
def test_the_weights_of_an_input_are_those_of_its_column(
    body: str, shape: tuple[int, ...], slot: int
) -> None:
    read, array = seen(body, shape, slot)
    by_input = read.by_input(array)
    assert len(by_input) == read.groups * read.inputs
    rows = np.moveaxis(read.rows(array), 1 if read.is_conv else -1, 1)
    each = read.outputs // read.groups
    for channel, weights in enumerate(by_input):
        group, at = divmod(channel, read.inputs)
        np.testing.assert_array_equal(
            np.sort(weights), np.sort(rows[group * each : (group + 1) * each, at].reshape(-1))
        )


def test_a_transposed_convolution_sums_over_the_channels_of_its_group() -> None:
    read, array = seen("ConvTranspose<group=2>(x, w)", (4, 3, 1, 1), 1)
    np.testing.assert_array_equal(
        read.rows(array)[:, :, 0, 0], [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    )
