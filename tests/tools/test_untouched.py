# SPDX-License-Identifier: Apache-2.0
"""No command writes over what its command line names, nor over what is not tersor's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.graph_ir import parse, save
from tersor.passes.base import Context
from tersor.passes.clean.sink_constants import SinkConstants
from tersor.pipeline.builder import flow
from tests.support.building import FILES, hashes, quick
from tests.support.command import tersor
from tests.support.odd_models import conv_net, one_node
from tests.support.prune_models import chain

RECIPE = 'recipe = 1\n[data.calib]\nsource = "feeds"\n[[step]]\npreset = "lossless"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, data, a recipe, a module; no build gets as far as its search."""
    monkeypatch.chdir(tmp_path)
    save(chain(), tmp_path / "m.onnx")
    (tmp_path / "feeds").mkdir()
    for name in ("calib.npz", "feeds/a.npz"):
        np.savez(tmp_path / name, x=np.zeros((1, 3, 8, 8), np.float32))
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "score.py").write_text("def feeds():\n    return []\n")

    def search(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(flow, "_search", search)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: object) -> str:
    before = hashes(folder)
    done = tersor(capsys, *options)
    assert (done.code, done.out) == (2, ""), done
    assert done.err.count("\n") == 1
    assert hashes(folder) == before
    return done.err


CHECKED = ["--validate", "end"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["opt", "m.onnx", "calib.npz", *CHECKED, "--data", "calib.npz"], "'calib.npz' is --data, which"),
        (["opt", "m.onnx", "feeds/a.npz", *CHECKED, "--data", "feeds"], "lies in the folder of --data"),
        (["opt", "m.onnx", "score.py", *CHECKED, "--data", "score:feeds"], "'score.py' is --data, which"),
        (["opt", "m.onnx", "r.toml", "--recipe", "r.toml"], "'r.toml' is --recipe, which is never touched"),
        (["opt", "m.onnx", "o.onnx", *CHECKED, "--data", "feeds", "--dump", "feeds"], "'feeds' is --data"),
        (["opt", "m.onnx", "o.onnx", *CHECKED, "--data", ""], "data is empty"),
        (["opt", "m.onnx", "-"], "'-' is no file"),
        (["build", "m.onnx", "-o", "feeds/out", "--data", "feeds"], "lies in the folder of --data"),
        (["build", "m.onnx", "-o", "o", "--trials", "calib.npz", "--data", "calib.npz"], "is --data, which"),
        (["build", "m.onnx", "-o", "o", "--trials", "m.onnx", "--data", "random"], "is the input itself"),
        (["build", "m.onnx", "-o", "o", "--trials", "score.py", "--data", "score:feeds"], "is --data, which"),
        (["build", "m.onnx", "-o", "feeds", "--recipe", "r.toml"], "the folder of data of the recipe"),
        (["build", "m.onnx", "-o", "o", "--data", ""], "data is empty"),
        (["prune", "m.onnx", "-o", "score.py", "--ratio", ".5", "--metric", "score:feeds"], "is --metric"),
        (["prune", "m.onnx", "-o", "o", "--latency=.5", "--data", "feeds", "--cache", "feeds/c"], "--data"),
        (["prune", "m.onnx", "-o", "-", "--ratio", ".5"], "'-' is no file"),
        (["opt", "m.onnx", "calib.npz"], "does not end in .onnx; give such a name"),
        (["opt", "m.onnx", "package.json"], "is there already and is no model"),
        (["prune", "m.onnx", "-o", "calib.npz", "--ratio", ".5"], "does not end in .onnx"),
        (["prune", "m.onnx", "-o", "o.onnx", "--save-plan", "score.py", "--ratio", ".5"], "not a .json file"),
    ],
)  # fmt: skip
def test_what_is_read_is_never_written_over(
    capsys: pytest.CaptureFixture[str], folder: Path, options: list[str], said: str
) -> None:
    assert said in refused(capsys, folder, *options)


@pytest.mark.parametrize("command", ["bench", "compare m.onnx", "explain", "sensitivity"])
def test_data_named_by_nothing_is_not_the_current_folder(
    capsys: pytest.CaptureFixture[str], folder: Path, command: str
) -> None:
    assert "data is empty" in refused(capsys, folder, *command.split(), "m.onnx", "--data", "")


@pytest.mark.parametrize("name", ["report.json", "model.onnx", "session.json", "build.lock.json"])
def test_a_build_has_files_of_its_own_only(
    capsys: pytest.CaptureFixture[str], folder: Path, name: str
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / name).write_text("{}")
    line = refused(capsys, folder, "build", "m.onnx", "-o", "out")
    assert f"'out/{name}' is there already and not of a build" in line
    assert "choose another folder, or remove it" in line
    (folder / "out" / "build.lock.json").write_text('{"lock": 1}')
    with_log = ["--data", "calib.npz", "--trials", f"out/{name}"]
    line = refused(capsys, folder, "build", "m.onnx", "-o", "out", *with_log)
    assert f"--trials 'out/{name}' is a file of the result" in line
    line = refused(capsys, folder, "build", "m.onnx", "-o", "out", "--recipe", f"out/{name}")
    assert "recipe" in line


def test_weights_of_another_model_stay(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "o.onnx.data").write_text("notes")
    foreign = "'o.onnx.data' is there already and is not of 'o.onnx'; give another output, or remove it"
    assert foreign in refused(capsys, folder, "opt", "m.onnx", "o.onnx", "--external-data")
    save(chain(), folder / "outside.onnx", external_data=True)
    assert foreign in refused(capsys, folder, "opt", "outside.onnx", "o.onnx")
    assert foreign in refused(capsys, folder, "prune", "outside.onnx", "-o", "o.onnx", "--ratio", "0.5")
    onnx.save(one_node(), folder / "o.onnx")
    assert foreign in refused(capsys, folder, "opt", "outside.onnx", "o.onnx")
    assert tersor(capsys, "opt", "m.onnx", "o.onnx").code == 0
    assert (folder / "o.onnx.data").read_text() == "notes"


def test_weights_of_an_earlier_result_are_replaced_and_go(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for _ in range(2):
        assert tersor(capsys, "opt", "m.onnx", "o.onnx", "--external-data").code == 0
        assert (folder / "o.onnx.data").exists()
    assert tersor(capsys, "opt", "m.onnx", "o.onnx").code == 0
    assert not (folder / "o.onnx.data").exists()


def test_weights_of_bodies_alone_are_known_as_the_models_own(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    ports = "(int64 i, bool c, float[64,64] h) => (bool d, float[64,64] k)"
    body = f"body {ports} {{ d = Identity(c) k = MatMul(h, w) }}"
    model = parse(f"""<ir_version: 9, opset_import: ["" : 17]> g (float[64,64] x, int64 n) => (float[64,64] y)
    <float[64,64] w = {{seed}}> {{ y = Loop (n, , x) <body = {body}> }}""")
    SinkConstants().run(model, Context())
    save(model, folder / "loop.onnx", external_data=True)
    for options in (["--external-data"], ["--external-data"], ["--no-external-data"]):
        assert tersor(capsys, "opt", "loop.onnx", "o.onnx", *options).code == 0
        assert (folder / "o.onnx.data").exists() == (options == ["--external-data"])


@pytest.mark.parametrize(
    ("out", "closed"), [("iso", "iso"), ("iso/rob", "iso"), ("iso/a/b", "iso"), ("/proc/x", "/proc")]
)
def test_a_folder_that_cannot_be_written_is_found_at_once(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    closed: str,
) -> None:
    (folder / "iso").mkdir()

    def access(path: object, mode: int) -> bool:  # root may write anywhere, whatever the mode of a folder
        return mode != os.W_OK or str(path) != "iso"

    if closed == "iso":
        monkeypatch.setattr("os.access", access)
    said = f"cannot write {out!r}: folder {closed!r} is not writable"
    assert said in refused(capsys, folder, "build", "m.onnx", "-o", out)
    if closed == "iso":
        line = refused(
            capsys, folder, "build", "m.onnx", "-o", "o", "--data", "calib.npz", "--trials", "iso/t"
        )
        assert "cannot write 'iso/t': folder 'iso' is not writable" in line


def test_the_folder_of_an_earlier_build_may_be_used_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    for _ in range(2):
        quick(conv_net(), folder / "out")
        assert sorted(hashes(folder / "out")) == FILES


@pytest.mark.parametrize("command", [["build", "m.onnx", "-o"], ["opt", "m.onnx"]])
def test_a_link_to_nothing_is_no_place_to_write(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (folder / "link").symlink_to(folder / "nowhere")
    done = tersor(capsys, *command, "link")
    assert (done.code, done.out) == (2, "")
    assert "'link'" in done.err
    assert not (folder / "nowhere").exists()


def test_the_name_of_a_result_is_judged_before_any_work(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for options in (["opt", "m.onnx", "o.txt"], ["prune", "m.onnx", "-o", "o", "--ratio", ".5"]):
        assert "does not end in .onnx; give such a name" in refused(capsys, folder, *options)
    line = refused(capsys, folder, "opt", "m.onnx", "o.onnxtxt", "--external-data")
    assert "'o.onnxtxt' is a text format, which holds all weights itself; save as .onnx" in line
    for _ in range(2):
        assert tersor(capsys, "opt", "m.onnx", "o.textproto").code == 0


def test_no_empty_file_of_weights_is_written(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    onnx.save(one_node(), folder / "small.onnx")
    assert tersor(capsys, "opt", "small.onnx", "o.onnx", "--external-data").code == 0
    assert not (folder / "o.onnx.data").exists()
