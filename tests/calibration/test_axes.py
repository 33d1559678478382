# SPDX-License-Identifier: Apache-2.0
"""What is said of arrays whose axis 0 is cut into samples, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tersor.calibration import open_feeds
from tersor.calibration.axes import free_sizes
from tersor.graph_ir import DataError, Model, Signature, parse

TORN = "the {} rows of data for input 'x' were taken as samples of {} each"
WRONG = "{}, but its axis 0 counts no samples: {}; store an array [samples, T, B, 16]"
LSTM = """<ir_version: 9, opset_import: ["" : 17]> g (float[{x}] x) => (float[{y}] y)
    <int64[1] zero = {{0}}, float[1,96,16] w = {{seed}}, float[1,96,24] r = {{seed}}> {{ {body} }}"""
DIRECT = "s = LSTM<hidden_size=24>(x, w, r) y = Identity(s)"
BATCH_FIRST = "t = Transpose<perm=[1,0,2]>(x) s = LSTM<hidden_size=24>(t, w, r) y = Identity(s)"


def model(x: str, y: str, body: str = DIRECT) -> Model:
    return parse(LSTM.format(x=x, y=y, body=body))


def notes(tmp_path: Path, given: Model, *shape: int) -> tuple[str, ...]:
    np.savez(tmp_path / "d.npz", x=np.zeros(shape, np.float32))
    return open_feeds(tmp_path / "d.npz", given).notes


@pytest.mark.parametrize(
    ("given", "shape", "said"),
    [
        (
            model("T,B,16", "T,1,B,24"),
            (40, 1, 16),
            WRONG.format(TORN.format(40, 1), "node 'LSTM(s)' (LSTM) takes it as time"),
        ),
        (
            model("T,B,16", "B,16", "y = ReduceSum<keepdims=0>(x, zero)"),
            (40, 1, 16),
            WRONG.format(TORN.format(40, 1), "axis 0 of output 'y' is its axis 1"),
        ),
        (
            model("4,N,16", "4,N,16", "y = Relu(x)"),
            (50, 1, 16),
            TORN.format(50, 4) + ", and 2 of them left out, which fill none: the model takes 4 at once",
        ),
    ],
)
def test_rows_that_are_no_samples_or_fill_none_are_told_of(
    given: Model, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    assert notes(tmp_path, given, *shape) == (said,)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (model("T,B,16", "T,1,B,24"), (5, 40, 1, 16)),  # whole inputs
        (model("6,1,16", "6,1,1,24"), (6, 1, 16)),  # one of them
        (model("1,1,16", "1,1,1,24"), (40, 1, 16)),  # a step is a sample
        (model("N,T,16", "T,1,N,24", BATCH_FIRST), (40, 6, 16)),
        (model("N,16,T", "N,16,T", "y = Relu(x)"), (40, 16, 6)),
    ],
)
def test_nothing_is_said_of_samples(given: Model, shape: tuple[int, ...], tmp_path: Path) -> None:
    assert notes(tmp_path, given, *shape) == ()


def test_rows_left_out_of_several_files_are_added_up(tmp_path: Path) -> None:
    for name, count in (("a", 5), ("b", 4), ("c", 7)):
        np.save(tmp_path / f"{name}.npy", np.zeros((count, 1, 16), np.float32))
    (said,) = open_feeds(tmp_path, model("4,N,16", "4,N,16", "y = Relu(x)")).notes
    assert said.startswith(
        "the 12 rows of data for input 'x' were taken as samples of 4 each, and 4 of them left"
    )


TWO = """<ir_version: 9, opset_import: ["" : 17]> g (float[{x}] x, float[{m}] m) => (float[a,b,c,d] y)
    {{ y = Add(x, m) }}"""


def test_an_axis_that_another_input_has_whole_is_not_cut(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 1, 16), np.float32), m=np.zeros((5, 1, 5), np.float32))
    with pytest.raises(
        DataError, match=r"axis 0 is 'T' in the model, of which 'm' has 5 in each sample.*T, 1, 16\]$"
    ):
        open_feeds(tmp_path / "d.npz", parse(TWO.format(x="T,1,16", m="1,T")))
    # A symbol for all that is not known says nothing.
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 5), np.float32), m=np.zeros((5, 5), np.float32))
    assert len(open_feeds(tmp_path / "d.npz", parse(TWO.format(x="U,U", m="U,U")))) == 5


def test_a_free_size_that_is_called_a_sum_is_that_sum() -> None:
    """A decoder's mask is as long as past and new tokens."""
    inputs = (
        ("ids", "INT64", ("batch", "seq")),
        ("mask", "INT64", ("batch", "past + seq")),
        ("past", "FLOAT", ("batch", 2, "past", 4)),
        ("next", "INT64", ("batch", "past+1")),
        ("other", "INT64", ("batch", "past + elsewhere")),
        ("nested", "INT64", ("batch", "past + seq + past + seq")),
    )
    sizes = free_sizes(Signature(inputs, (), ()))
    assert sizes["past + seq"] == sizes["past"] + sizes["seq"] == 128
    assert sizes["past+1"] == sizes["past"] + 1
    assert sizes["past + elsewhere"] == 64
    assert sizes["past + seq + past + seq"] == 256
