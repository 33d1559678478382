# SPDX-License-Identifier: Apache-2.0
"""Models that do not fit together, or that take or give nothing: each command says so in one line."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest

from tersor.graph_ir import ModelError, parse, save
from tests.support.command import tersor

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
MISFIT = (
    "g (float[N,3] x) => (float[M,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { z = Relu(x)  y = MatMul(z, w) }"
)
NO_OUTPUTS = "g (float[2,3] x) => () { y = Relu(x) }"
NO_INPUTS = "g () => (float[2] y) { c = Constant<value = float[2] {1.0, 2.0}>()  y = Relu(c) }"
PLAIN = "g (float[2,3] x, float[N] e) => (float[2,3] y) { y = Relu(x) }"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    onnx.save(onnx.parser.parse_model(HEAD + text), path)
    return path


RUNNING: dict[str, list[object]] = {
    "bench": ["M"],
    "compare": ["M", "M", "--data", "random"],
    "explain": ["M"],
    "build": ["M", "-o", "OUT"],
    "prune": ["M", "-o", "OUT.onnx", "--macs", "50%"],
}


@pytest.mark.parametrize("command", RUNNING)
@pytest.mark.parametrize(
    ("text", "said"),
    [(MISFIT, "node 'MatMul(y)' with inputs [N, 3], [4, 2]"), (NO_OUTPUTS, "has no outputs")],
)
def test_what_cannot_run_says_why(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, said: str
) -> None:
    model = write(tmp_path, "m.onnx", text)
    places = {"M": model, "OUT": tmp_path / "out", "OUT.onnx": tmp_path / "out.onnx"}
    done = tersor(capsys, command, *(places.get(str(each), each) for each in RUNNING[command]))
    assert (done.code, done.out) == (2, "")
    assert "m.onnx" in done.err
    assert said in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [model]


def test_validation_of_shapes_that_do_not_fit_names_the_node(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write(tmp_path, "m.onnx", MISFIT)
    done = tersor(capsys, "opt", model, tmp_path / "o.onnx", "--validate", "end")
    assert done.code == 2
    assert "node 'MatMul(y)' with inputs [N, 3], [4, 2]" in done.err


def test_opt_says_that_a_model_without_outputs_needs_no_node(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write(tmp_path, "m.onnx", NO_OUTPUTS)
    done = tersor(capsys, "opt", model, tmp_path / "o.onnx")
    assert done.code == 0
    assert "note: the model has no outputs, so it needs no node\n" in done.out


def test_without_inputs_everything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write(tmp_path, "m.onnx", NO_INPUTS)
    done = tersor(capsys, "bench", model, "--rounds", "1", "--threads", "1")
    assert done.code == 0
    assert done.out.endswith("\nthe models take no inputs\n")
    assert tersor(capsys, "compare", model, model, "--data", "random").code == 0
    done = tersor(capsys, "explain", model)
    assert done.code == 0
    assert "1 more node with --all" in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            PLAIN.replace(" x", " q").replace("(x)", "(q)"),
            "'x' is in the first only; 'q' is in the second only",
        ),
        (PLAIN.replace("2,3", "2,5"), "'x' is float[2, 3] and float[2, 5]"),
        (PLAIN.replace("float[N]", "int64[N]"), "'e' is float[N] and int64[N]"),
        (PLAIN.replace("float[N]", "float[N,1]"), "'e' is float[N] and float[N, 1]"),
    ],
)
@pytest.mark.parametrize("command", ["bench", "compare"])
def test_other_inputs_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, text: str, said: str
) -> None:
    first, second = write(tmp_path, "a.onnx", PLAIN), write(tmp_path, "b.onnx", text)
    done = tersor(capsys, command, first, second, *(["--data", "random"] if command == "compare" else []))
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {str(first)!r} and {str(second)!r} take other inputs: {said}\n"


def test_sizes_that_one_model_leaves_free_are_no_other_inputs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = write(tmp_path, "a.onnx", PLAIN), write(tmp_path, "b.onnx", PLAIN.replace("[2,", "[B,"))
    assert tersor(capsys, "compare", first, second, "--data", "random").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["prune", "m.onnx", "-o", "o.onnx", "--macs", "50"],
            "not 50, which is 5000 %; 50 % is written 50% or 0.5",
        ),
        (["prune", "m.onnx", "-o", "o.onnx", "--macs", "100%"], "below 1, not 1\n"),
        (["prune", "m.onnx", "o.onnx", "--macs", "50%"], "; the output is given with -o; see"),
        (["build", "m.onnx", "-o", "o", "--metric", "m:m", "--max-drop", "1"], "is written 1% or 0.01"),
        (["opt", "m.onnx", "o.onnx", "--validate"], "requires an argument: off, end or pass; see"),
    ],
)
def test_messages_hold_the_mend(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    write(tmp_path, "m.onnx", PLAIN)
    monkeypatch.chdir(tmp_path)
    done = tersor(capsys, *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_weights_that_are_missing_name_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    added = "g (float[400,4] x) => (float[400,4] y) <float[400,4] w = {seed}> { y = Add(x, w) }"
    save(parse(HEAD + added), model, external_data=True)
    file = tmp_path / "m.onnx.data"
    file.write_bytes(b"short")
    about = f"error: {str(model)!r}: tensor 'w': external data file {file.name!r}"
    assert tersor(capsys, "inspect", model).err.startswith(f"{about} holds 5 bytes, 6400 are needed")
    file.unlink()
    assert tersor(capsys, "inspect", model).err == f"{about} is missing beside the model\n"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no folder '.*new'; make it first"):
        save(parse(HEAD + PLAIN), tmp_path / "new" / "m.onnx")


def test_an_option_of_one_value_is_given_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, out = write(tmp_path, "m.onnx", PLAIN), tmp_path / "o.onnx"
    done = tersor(capsys, "opt", model, out, "--passes", "cse", "--passes=inline")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: --passes is given twice; it takes one value; see `tersor opt --help`\n"
    assert not out.exists()
    assert tersor(capsys, "opt", model, out, "--stats", "--stats").code == 0
    threads = ["--threads", "1", "--threads", "2"]
    assert tersor(capsys, "bench", model, "--rounds", "1", *threads).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["opt", "m.onnx", "--json"], "missing argument 'OUT'"),
        (["inspect", "no.onnx", "--json"], "no such file: 'no.onnx'"),
        (["build", "m.onnx", "--json", "-o", "o", "--recipe", "none"], "none"),
        (["passes", "none", "--json"], "no pass is called 'none'"),
    ],
)
def test_errors_are_json_where_json_is_asked_for(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    write(tmp_path, "m.onnx", PLAIN)
    monkeypatch.chdir(tmp_path)
    done = tersor(capsys, *arguments)
    told = json.loads(done.out)
    assert done.code == 2
    assert told.keys() == {"error"}
    assert said in told["error"]
    assert done.err == f"error: {told['error']}\n"
