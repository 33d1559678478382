# SPDX-License-Identifier: Apache-2.0
"""`tersor build` on wrong input: one clear line, exit code 2, nothing left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tersor.graph_ir import parse, save
from tests.support import odd_models
from tests.support.building import DIGITS, hashes, steady, work_in
from tests.support.command import tersor
from tests.support.user_code import HERE, X


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and the current one with no files in it."""
    steady(monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return work_in(tmp_path / "work", monkeypatch)


def refused(capsys: pytest.CaptureFixture[str], folder: Path, model: Path, *options: object) -> str:
    """The line a build says, once it has been made sure that it says nothing else and leaves nothing."""
    before = hashes(folder)
    done = tersor(capsys, "build", model, "-o", folder / "out", *options)
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert hashes(folder) == before
    return done.err.removeprefix("error: ").strip()


def empty(folder: Path) -> None:
    (folder / "m.onnx").touch()


def text(folder: Path) -> None:
    (folder / "m.onnx").write_text("This is not a model.\n")


def truncated(folder: Path) -> None:
    content = (DIGITS / "digits.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(content[: len(content) // 2])


def weightless(folder: Path) -> None:
    onnx.save(
        odd_models.linear(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (folder / "w.bin").unlink()


def of(make: Callable[[], onnx.ModelProto]) -> Callable[[Path], None]:
    return lambda folder: onnx.save(make(), folder / "m.onnx")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize("data", [[], ["--data", "random"]], ids=["alone", "with data"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "no such file"),
        (empty, "is empty"),
        (text, "is text, not an ONNX model"),
        (truncated, "is not an ONNX model, or is truncated"),
        (weightless, "external data file 'w.bin' is missing beside the model"),
        (of(odd_models.cyclic), "the graph has a cycle through node 'one'"),
        (of(odd_models.custom_op), "com.example:Frobnicate(-1) is not a registered function/op"),
        (of(odd_models.unknown_op), "No Op registered for Frobnicate"),
    ],
)
def test_bad_models(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    make: Callable[[Path], None],
    message: str,
    data: list[str],
) -> None:
    make(tmp_path)
    assert message in refused(capsys, tmp_path, tmp_path / "m.onnx", *data)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(odd_models.linear(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.stack([X[:, :2]])}, "shape"),
        ({"x": np.stack([X]).astype(np.float64)}, "float64"),
        ({"x": np.stack([X]).astype(np.int64)}, "int64"),
        ({"z": np.stack([X])}, "has no array 'x'; it has z"),
        ({"x": np.stack([X]), "z": np.stack([X])}, "'z'"),
        ({"x": np.stack([X, X * np.nan])}, "NaN"),
        ({"x": np.stack([X, X + np.float32(np.inf)])}, "infinit"),
        ({"x": X[:0]}, ""),
        ({}, ""),
    ],
    ids=["shape", "double", "integer", "missing", "extra", "nan", "inf", "no samples", "no arrays"],
)
def test_bad_arrays(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: Path,
    arrays: dict[str, Any],
    message: str,
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    line = refused(capsys, tmp_path, model, "--data", tmp_path / "d.npz")
    assert message in line
    assert "d.npz" in line


@pytest.mark.parametrize("command", ["build", "compare", "prune"])
def test_values_the_model_cannot_take_are_told_by_their_sample(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """Ids beyond the vocabulary: onnxruntime knows neither the sample nor a name of the node."""
    words = """
        <ir_version: 8, opset_import: ["" : 17]>
        m (int64[N, 4] ids) => (float[N, 4, 6] y) <float[9, 6] table = {seed}> { y = Gather(table, ids) }
    """
    model = tmp_path / "words.onnx"
    save(parse(words), model)
    ids = np.zeros((5, 4), np.int64)
    ids[3, 1] = 9
    np.savez(tmp_path / "d.npz", ids=ids)
    others = {"build": ["-o", tmp_path / "o"], "compare": [model]}
    options = others.get(command, ["-o", tmp_path / "o.onnx", "--ratio", 0.3])
    done = tersor(capsys, command, model, *options, "--data", tmp_path / "d.npz")
    assert done.code == 2
    assert "error: sample 3: " in done.err
    assert "words.onnx failed: a Gather without a name: indices element out of data bounds, idx=9" in done.err


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "raises failed: ZeroDivisionError: at once; --debug shows the trace"),
        ("raises_later", "raises_later failed: ZeroDivisionError: after one; --debug shows the trace"),
        ("spent", "returns the same generator on each call, which one pass spends"),
        ("none_at_all", "gives no samples"),
        ("no_iterable", "returned an int, not an iterable of dicts"),
        ("no_dicts", "sample 0 is a ndarray, not a dict of input name to array"),
        ("wrong_shape", "shape"),
        ("wrong_type", "int64"),
        ("wrong_name", "sample 0 misses input 'x'; the model needs x"),
        ("extra", "'z'"),
        ("with_nan", "NaN"),
        ("lists", "list"),
        ("missing", "has no 'missing'"),
        ("not_callable", "is an int, not a function"),
    ],
)
def test_bad_data_functions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, function: str, message: str
) -> None:
    line = refused(capsys, tmp_path, model, "--data", f"{HERE}:{function}")
    assert message in line
    assert f"{HERE}:{function}" in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.npz", "no data at 'nowhere.npz'"),
        ("empty", "holds no .npz, .npy or picture files"),
        ("m.onnx", "is no data file"),
        ("no_such_module:feeds", "no module 'no_such_module'"),
        ("broken.npz", "broken.npz"),
        ("failing:feeds", "importing 'failing' failed: NameError: name 'oops' is not defined"),
        ("random:x", "write random, random:SEED or random:SEED:COUNT"),
    ],
)
def test_data_that_is_not_there(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "here" / "failing.py").write_text("oops\n")
    monkeypatch.syspath_prepend(tmp_path / "here")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    local = data if ":" in data or data == "nowhere.npz" else str(tmp_path / data)
    assert message in refused(capsys, tmp_path, model, "--data", local)


@pytest.mark.parametrize("function", ["text", "fails", "nan", "nothing", "wrong_feed", "missing"])
def test_bad_metrics(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, function: str) -> None:
    line = refused(capsys, tmp_path, model, "--data", f"{HERE}:feeds", "--metric", f"{HERE}:{function}")
    assert f"'{HERE}:{function}'" in line


def test_debug_shows_the_trace_of_a_users_function(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    done = tersor(capsys, "build", model, "-o", tmp_path / "out", "--metric", f"{HERE}:fails", "--debug")
    assert done.code == 2
    assert 'raise RuntimeError("no such' in done.err
    assert done.err.splitlines()[-1].startswith("error: metric")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-drop", "2%"], "--max-drop is a share of the metric; give --metric too"),
        (["--min-sqnr", "9", "--metric", "m:f"], "--min-sqnr judges outputs where there is no metric"),
        (["--trials", "t"], "--trials logs what is tried with data; give --data too"),
        (["--trials", "t", "--recipe", "int8"], "a recipe searches nothing; leave one out"),
        (["--budget", "soon"], "--budget: 'soon' is no time; write 90s, 2m or 1h30m"),
        (
            ["--metric", "m:f", "--max-drop", "200%"],
            "--max-drop is a share of the metric from 0 to below 1, not 2, which",
        ),
        (["--metric", "m:f", "--max-drop", "-1%"], "--max-drop is a share of the metric"),
        (["--metric", "m:f", "--max-drop", "much"], "--max-drop: 'much' is no share; write 1% or 0.01"),
        (["--min-sqnr", "nan"], "--min-sqnr is a number of dB, not nan"),
        (["--target", "foo"], "no target is called 'foo'; there is onnxruntime-cpu"),
        (["--passes", "nope"], "pipeline, column 1: no pass is called 'nope'"),
        (["--passes", ""], "expected a pass name or '('"),
        (["--passes", "insert-qdq"], "needs 'ranges', which nothing measured; calibrate first"),
        (["--recipe", "int8"], "calibrates on the command line's data; give --data"),
        (["--passes", "cse{x=1}"], "pass 'cse' has no option 'x'"),
        (["--passes", "cse", "--recipe", "int8"], "give --passes or --recipe, not both"),
        (["--recipe", "nope"], "no recipe at 'nope'"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--rounds", "many"], "invalid value for '--rounds'"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, options: list[str], message: str
) -> None:
    assert message in refused(capsys, tmp_path, model, *options)


def test_the_folder_of_the_result_is_asked_for(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    done = tersor(capsys, "build", model)
    assert done.code == 2
    assert "missing option '-o' / '--out'" in done.err


def test_an_interrupt_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tersor.pipeline.builder.timing.measure", interrupt)
    done = tersor(capsys, "build", model, "-o", tmp_path / "out")
    assert (done.code, done.err) == (130, "error: interrupted; nothing half-written is left\n")
    assert not (tmp_path / "out").exists()
