# SPDX-License-Identifier: Apache-2.0
"""Feeds from files, functions and seeds: values, laziness, digests, one clear error for each wrong input."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tersor.calibration import open_feeds
from tersor.calibration.data import add_feed
from tersor.graph_ir import DataError, Signature, TersorError, UsageError

ONE = Signature((("x", "FLOAT", ("N", 3)),), (), ())
FIXED = Signature((("x", "FLOAT", (4, 3)),), (), ())
MANY = Signature((("x", "FLOAT", (1, 3)), ("state", "FLOAT", (2, 1)), ("rate", "INT64", ())), (), ())


def rows(count: int = 10) -> NDArray[np.float32]:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_one_row_at_a_time(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "d.npz", x=rows())
    feeds = open_feeds(tmp_path / "d.npz", ONE)
    assert len(feeds) == 10
    for _ in range(2):
        got = [feed["x"] for feed in feeds]
        assert {a.shape for a in got} == {(1, 3)}
        np.testing.assert_array_equal(np.concatenate(got), rows())
    assert len(list(open_feeds(tmp_path / "d.npz", ONE, limit=3))) == 3
    assert len(open_feeds(tmp_path / "d.npz", ONE, limit=30)) == 10


def test_npz_fills_a_fixed_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows())
    got = [feed["x"] for feed in open_feeds(tmp_path / "d.npz", FIXED)]
    assert [a.shape for a in got] == [(4, 3), (4, 3)]
    np.testing.assert_array_equal(np.concatenate(got), rows()[:8])


def test_npz_with_whole_inputs_per_row_and_shared_numbers(tmp_path: Path) -> None:
    state = np.arange(20, dtype=np.float32).reshape(10, 2, 1)
    np.savez(tmp_path / "d.npz", x=rows(), state=state, rate=np.int64(16000))
    feeds = list(open_feeds(tmp_path / "d.npz", MANY))
    assert len(feeds) == 10
    np.testing.assert_array_equal(feeds[7]["state"], state[7])
    assert feeds[7]["rate"] == 16000
    np.savez(tmp_path / "e.npz", x=rows(), state=state, rate=np.arange(10))
    assert [int(feed["rate"]) for feed in open_feeds(tmp_path / "e.npz", MANY)] == list(range(10))


def test_fortran_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.asfortranarray(rows()))
    np.testing.assert_array_equal(
        np.concatenate([f["x"] for f in open_feeds(tmp_path / "d.npz", ONE)]), rows()
    )


def test_a_sample_without_the_axis_of_samples(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((3, 4, 5), np.float32))
    pictures = Signature((("x", "FLOAT", ("N", 3, 4, 5)),), (), ())
    with pytest.raises(DataError, match=r"each sample; axis 0 counts samples: save array\[None\]$"):
        open_feeds(tmp_path / "0.npy", pictures)


def test_a_large_file_is_never_in_memory_whole(tmp_path: Path) -> None:
    signature = Signature((("x", "FLOAT", ("N", 1 << 16)),), (), ())
    np.savez(tmp_path / "d.npz", x=np.zeros((40, 1 << 16), np.float32))
    largest = 0
    for feed in open_feeds(tmp_path / "d.npz", signature):
        base: Any = feed["x"]
        while isinstance(base, np.ndarray):  # the buffer that backs the view
            largest = max(largest, base.nbytes)
            base = base.base
        largest = max(largest, len(base))
    assert largest == 4 << 16


def test_folders(tmp_path: Path) -> None:
    for kind in ("npz", "npy"):
        (tmp_path / kind).mkdir()
    for k in (2, 0, 1):
        np.savez(tmp_path / "npz" / f"{k}.npz", x=rows(k + 1) + k)
        np.save(tmp_path / "npy" / f"{k}.npy", rows(1) + k)
    (tmp_path / "npy" / "labels.txt").write_text("not data")
    feeds = open_feeds(tmp_path / "npz", ONE)
    assert len(feeds) == 6
    assert [feed["x"][0, 0] for feed in feeds] == [0, 1, 4, 2, 5, 8]
    assert [feed["x"][0, 0] for feed in open_feeds(tmp_path / "npy", ONE)] == [0, 1, 2]
    assert len(open_feeds(tmp_path / "npy" / "1.npy", ONE)) == 1


def test_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=rows())
    first = open_feeds(path, ONE).digest()
    assert len(first) == 32
    assert open_feeds(path, ONE).digest() == first
    assert open_feeds(path, ONE, limit=2).digest() != first
    np.savez(path, x=rows() + 1)
    assert open_feeds(path, ONE).digest() != first
    assert open_feeds("random:1", ONE).digest() == open_feeds("random:1", ONE).digest()
    assert open_feeds("random:1", ONE).digest() != open_feeds("random:2", ONE).digest()


CODE = """
import numpy as np
calls = []
def generator():
    calls.append(1)
    for k in range(3):
        yield {"x": np.full((1, 3), k, np.float32)}
def listed():
    calls.append(1)
    return list(generator())
def number():
    return 3
def arrays():
    return [np.zeros(3)]
def nothing():
    return []
def nan():
    return [{"x": np.zeros((1, 3), np.float32)}, {"x": np.full((1, 3), np.nan, np.float32)}]
def drawn():
    yield {"x": np.random.random((1, 3)).astype(np.float32)}
value = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"feeds_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])  # as for a console script
    return name


def test_functions_are_found_in_the_current_folder(module: str) -> None:
    feeds = open_feeds(f"{module}:generator", ONE)
    for _ in range(2):
        assert [float(feed["x"][0, 0]) for feed in feeds] == [0, 1, 2]
    with pytest.raises(TypeError):
        len(feeds)
    listed = open_feeds(f"{module}:listed", ONE, limit=2)
    assert len(listed) == 2
    assert len(list(listed)) == 2


def test_texts_count_by_what_they_say() -> None:
    """Regression: they counted by where they lay, so that equal ones looked different."""

    def digest(*words: str) -> str:
        total = hashlib.blake2b()
        add_feed(total, {"x": np.array(["".join(word) for word in words], object)})
        return total.hexdigest()

    assert digest("te" + str(1), "xt") == digest("te1", "x" + "t") != digest("te", "1xt")


def test_feeds_that_are_others_each_time_are_told_so(module: str) -> None:
    feeds = open_feeds(f"{module}:drawn", ONE)
    assert len(list(feeds)) == 1
    with pytest.raises(DataError, match="drawn gives other samples each time it is gone through"):
        list(feeds)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:number", "returned an int"),
        ("{}:arrays", "sample 0 is a ndarray, not a dict"),
        ("{}:nothing", "gives no samples"),
        ("{}:nan", "sample 1, input 'x': holds NaN"),
        ("{}:value", "is an int, not a function"),
        ("{}:missing", "has no 'missing'"),
        ("no_such_module_here:feeds", "no module 'no_such_module_here'"),
        ("random:x", "write random, random:SEED"),
        ("random:1:0", "no feeds"),
        ("nowhere.npz", "no data at 'nowhere.npz'"),
    ],
)
def test_wrong_sources(module: str, spec: str, message: str) -> None:
    with pytest.raises(TersorError, match=message) as caught:
        list(open_feeds(spec.format(module), ONE))
    assert "\n" not in str(caught.value)


def test_random_only_by_name_and_by_seed() -> None:
    signature = Signature(
        (("x", "FLOAT", ("N", 3, "s")), ("ids", "INT64", ("N", "s")), ("m", "BOOL", (2,))), (), ()
    )
    feeds = list(open_feeds("random:5:4", signature))
    assert len(feeds) == 4
    assert feeds[0]["x"].shape == (1, 3, 64)
    assert feeds[0]["ids"].shape == (1, 64)
    assert set(np.unique(feeds[0]["ids"])) <= {0, 1}
    again = list(open_feeds("random:5", signature))
    np.testing.assert_array_equal(again[3]["x"], feeds[3]["x"])
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    with pytest.raises(DataError, match="cannot be made up"):
        list(open_feeds("random", Signature((("t", "STRING", (1,)),), (), ())))
    with pytest.raises(DataError, match="FLOAT of unknown rank"):
        list(open_feeds("random", Signature((("t", "FLOAT", None),), (), ())))
    with pytest.raises(DataError, match=r"is a Sequence.*runs models on arrays only"):
        list(open_feeds("random", Signature((("t", "Sequence(Tensor(FLOAT))", None),), (), ())))


def npz(**arrays: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez(path, **arrays)

    return write


def text(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def truncated(path: Path) -> None:
    np.savez(path, x=rows(1000))
    path.write_bytes(path.read_bytes()[:-4000])


def flipped(path: Path) -> None:
    np.savez(path, x=rows(1000))
    data = bytearray(path.read_bytes())
    data[5000] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (npz(y=rows()), "has no array 'x'; it has y"),
        (npz(x=rows(), labels=np.zeros(10)), "array 'labels', which is no input"),
        (npz(x=rows().astype(np.float64)), "array 'x': type float64, the model takes float32"),
        (npz(x=np.zeros((10, 4), np.float32)), "shape \\[10, 4\\], the model takes \\[N, 3\\]"),
        (npz(x=np.zeros((2, 2, 2, 3), np.float32)), "shape"),
        (npz(x=np.float32(1)), "a single number"),
        (npz(x=rows(0)), "0 samples"),
        (npz(x=np.array([{}], object)), "Python objects"),
        (npz(x=np.full((2, 3), np.inf, np.float32)), "infinite"),
        (text(b""), "not a numpy .npz file"),
        (text(b"hello, world"), "not a numpy .npz file"),
        (truncated, "damaged"),
        (flipped, "damaged"),
    ],
)
def test_wrong_files(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "d.npz")
    with pytest.raises(DataError, match=message) as caught:
        list(open_feeds(tmp_path / "d.npz", ONE))
    assert "\n" not in str(caught.value)


def test_pictures_with_channels_at_the_wrong_end_are_told_how_to_turn(tmp_path: Path) -> None:
    first = Signature((("x", "FLOAT", (1, 3, 8, 9)),), (), ())
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 8, 9, 3), np.float32))
    with pytest.raises(DataError, match=r"each sample; \.transpose\(0, 3, 1, 2\) makes it fit$"):
        open_feeds(tmp_path / "d.npz", first)
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 8, 8, 3), np.float32))
    with pytest.raises(DataError, match=r"each sample$"):
        open_feeds(tmp_path / "d.npz", first)


def test_wrong_folders_and_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        open_feeds(tmp_path, ONE)
    np.savez(tmp_path / "a.npz", x=rows(3), state=np.zeros((4, 2, 1), np.float32), rate=np.int64(1))
    with pytest.raises(DataError, match="'x' has 3 samples on axis 0, 'state' 4"):
        open_feeds(tmp_path, MANY)
    np.save(tmp_path / "b.npy", rows())
    with pytest.raises(DataError, match="keep one kind"):
        open_feeds(tmp_path, ONE)
    with pytest.raises(DataError, match="one array"):
        open_feeds(tmp_path / "b.npy", MANY)
    np.savez(tmp_path / "a.npz", x=rows(2))
    with pytest.raises(DataError, match="2 samples, the model takes 4"):
        open_feeds(tmp_path / "a.npz", FIXED)
    (tmp_path / "c.bin").write_bytes(b"1")
    with pytest.raises(DataError, match="no data file"):
        open_feeds(tmp_path / "c.bin", ONE)
    with pytest.raises(UsageError, match="limit"):
        open_feeds("random", ONE, limit=0)
