# SPDX-License-Identifier: Apache-2.0
"""Wrong input to any command gives one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tersor.graph_ir import parse, save
from tests.support.command import tersor

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[400,4] x) => (float[400,4] y) <float[400,4] w = {seed}> { y = Add(x, w) }
"""


def empty(folder: Path) -> Path:
    (folder / "m.onnx").touch()
    return folder / "m.onnx"


def text(folder: Path) -> Path:
    (folder / "m.onnx").write_text("This is not a model.\n")
    return folder / "m.onnx"


def truncated(folder: Path) -> Path:
    save(parse(TEXT), folder / "m.onnx")
    data = (folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(data[: len(data) // 2])
    return folder / "m.onnx"


def arrays(folder: Path) -> Path:
    np.savez(folder / "m.npz", x=np.zeros(3))
    return (folder / "m.npz").rename(folder / "m.onnx")


def directory(folder: Path) -> Path:
    (folder / "m.onnx").mkdir()
    return folder / "m.onnx"


def missing(folder: Path) -> Path:
    return folder / "m.onnx"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "m.onnx")
    return folder / "m.onnx"


def weightless(folder: Path) -> Path:
    save(parse(TEXT), folder / "m.onnx", external_data=True)
    (folder / "m.onnx.data").unlink()
    return folder / "m.onnx"


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (empty, "is empty"),
    "text": (text, "is text, not an ONNX model; ONNX's own text form is told by the ending .onnxtxt"),
    "arrays": (arrays, "is a zip archive, such as .npz (give it to --data)"),
    "truncated": (truncated, "is not an ONNX model, or is truncated"),
    "directory": (directory, "is a folder; give the .onnx file itself"),
    "pipe": (pipe, "is no ordinary file; store the model in one"),
    "missing": (missing, "no such file"),
    "weightless": (weightless, "external data file 'm.onnx.data' is missing beside the model"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("command", ["opt", "inspect", "bench", "compare"])
def test_bad_models(capsys: pytest.CaptureFixture[str], tmp_path: Path, case: str, command: str) -> None:
    make, message = CASES[case]
    model = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    arguments = {"opt": [model, tmp_path / "out.onnx"], "compare": [model, model, "--data", "random"]}
    done = tersor(capsys, command, *arguments.get(command, [model]))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def good(folder: Path) -> Path:
    save(parse(TEXT), folder / "in.onnx")
    return folder / "in.onnx"


@pytest.mark.parametrize(
    ("out", "extra", "message"),
    [
        ("in.onnx", [], "is the input itself, which is never touched; give another output"),
        ("link.onnx", [], "is the input itself, which is never touched; give another output"),
        ("in.onnx/out.onnx", [], "in.onnx' is a file"),
        (".", [], "is a folder; give a file name in it"),
        ("o.onnx", ["--passes", "nope"], "pipeline, column 1: no pass is called 'nope'"),
        ("o.onnx", ["--passes", "cse{x=1}"], "pipeline, column 5: pass 'cse' has no option 'x'"),
        ("o.onnx", ["--passes", ""], "expected a pass name or '('"),
        ("o.onnx", ["--recipe", "nope"], "no recipe at 'nope'"),
        ("o.onnx", ["--validate", "maybe"], "'maybe' is not off, end or pass"),
        ("o.onnx", ["--validate", "end", "--data", "nope.npz"], "no data at 'nope.npz'"),
    ],
)
def test_bad_requests_to_opt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, out: str, extra: list[str], message: str
) -> None:
    model = good(tmp_path)
    (tmp_path / "link.onnx").symlink_to(model)
    before = sorted(tmp_path.iterdir())
    content = model.read_bytes()
    done = tersor(capsys, "opt", model, tmp_path / out, *extra)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert model.read_bytes() == content


def test_an_unwritable_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, mode: int) -> bool:
        return mode != os.W_OK

    model = good(tmp_path)
    monkeypatch.setattr("os.access", refuse)  # root may write anywhere, so the mode of a folder would not do
    done = tersor(capsys, "opt", model, tmp_path / "o.onnx")
    assert done.code == 2
    assert "is not writable" in done.err
