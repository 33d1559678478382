# SPDX-License-Identifier: Apache-2.0
"""`tersor prune` on wrong input: one clear line, exit code 2, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tersor.graph_ir import parse, save
from tests.support.building import hashes
from tests.support.command import tersor
from tests.support.prune_models import chain, pinned, residual


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the models."""
    for name, make in {"chain": chain, "residual": residual, "pinned": pinned}.items():
        save(make(), tmp_path / f"{name}.onnx")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The line it says, once it is sure that it says nothing else and leaves nothing."""
    before = hashes(folder)
    done = tersor(capsys, "prune", *arguments)
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert hashes(folder) == before
    return done.err.removeprefix("error: ").strip()


CUSTOM = """
<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] w = {seed}, float[64,64] v = {seed}>
{ h = MatMul(x, w)  r = Relu(h)  i = MatMul(r, v)  y = com.acme.Secret(i) }
"""
CODES = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] w = {seed}, float[64,64] v = {seed}, float s = {0.1}>
{ h = MatMul(x, w)  r = Relu(h)  c = QuantizeLinear(r, s)  d = DequantizeLinear(c, s)  y = MatMul(d, v) }
"""


def test_the_model_is_called_by_its_own_name(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    save(parse(CUSTOM), folder / "custom.onnx")
    line = refused(capsys, folder, folder / "custom.onnx", "-o", folder / "out.onnx", "--ratio", "0.5")
    assert line.startswith(f"onnxruntime does not load {folder / 'custom.onnx'}: ")
    assert "original.onnx" not in line


def test_a_quantized_model_gets_a_note(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    save(parse(CODES), folder / "codes.onnx")
    for name, said in (("codes", True), ("chain", False)):
        done = tersor(capsys, "prune", folder / f"{name}.onnx", "--dry-run", "--ratio", "0.5")
        assert done.code == 0, done.err
        assert ("note: the model is quantized already" in done.out) == said


def test_a_ratio_goes_as_far_as_it_can(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    done = tersor(capsys, "prune", folder / "chain.onnx", "--dry-run", "--ratio", "99%")
    assert done.code == 0, done.err
    assert "of the channels are left where 1.0% were wanted" in done.out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--ratio", "1.5"], "--ratio is the share of channels to remove, above 0 and below 1, not 1.5"),
        (["--ratio", "30"], "--ratio is the share of channels to remove, above 0 and below 1, not 30"),
        (["--macs", "0"], "--macs is the share of the MACs to keep, above 0 and below 1, not 0"),
        (["--latency", "fast"], "--latency: 'fast' is no share; write 1% or 0.01"),
        (["--ratio", "0.5", "--macs", "0.5"], "give one budget, not --ratio and --macs"),
        ([], "say how much is to go: --ratio 0.3, --macs 0.5, --latency 0.6, or a --plan"),
        (["--ratio", "0.5", "--criterion", "l22"], "no criterion is called 'l22'; did you mean"),
        (["--ratio", "0.5", "--criterion", "wanda"], "criterion 'wanda' looks at activations; give --data"),
        (["--ratio", "0.5", "--exclude", "secnod"], "--exclude 'secnod' fits no node and no value; did you"),
        (["--ratio", "0.5", "--exclude", "*"], "nothing can be pruned: --exclude leaves out every group"),
        (["--ratio", "0.5", "--align", "0"], "--align must be at least 1, not 0"),
        (["--ratio", "0.5", "--target", "gpu"], "no target is called 'gpu'; there is onnxruntime-cpu"),
        (["--ratio", "0.5", "--min-keep", "2"], "--min-keep is a share of a group's channels from 0 to 1"),
        (
            ["--ratio", "0.5", "--min-keep", "0.5", "--min-keep", "20%"],
            "--min-keep '20%': the share of every group is given already",
        ),
        (
            ["--ratio", "0.5", "--max-keep", "h*=0.5", "--max-keep", "h*=0.2"],
            "--max-keep 'h*=0.2': the share of 'h*' is given already",
        ),
        (["--ratio", "0.5", "--min-keep", "0.9", "--max-keep", "0.5"], "every group: --min-keep 0.9 is"),
        (["--ratio", "0.5", "--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--ratio", "0.5", "--sparsity", "0.5"], "--sparsity and --pattern set single weights to zero"),
        (["--sparsity", "0.5", "--save-plan", "p.json"], "--save-plan is for channels"),
        (["--plan", "p.json", "--rounds", "3"], "--rounds needs a budget to share out"),
        (["--plan", "none.json"], "cannot read the plan 'none.json': No such file or directory"),
        (["--ratio", "0.05"], "nothing is cut: every group rounds back to the width it has with --align 16"),
        (["--macs", "0.01"], "1.0% of the original cannot be reached: with every group at its least width"),
        (["--ratio", "0.5", "--max-drop", "1%"], "--max-drop is a share of the metric; give --metric too"),
        (["--ratio", "0.5", "--min-keep", "zzz=0.5"], "--min-keep 'zzz' fits no group"),
        (["--ratio", "0.5", "--max-keep", "a:2=1"], "--max-keep 'a:2' fits no group; did you mean 'a:1'?"),
        (["--plan", "p.json", "--align", "4"], "a plan alone is replayed as it is, and --align would be"),
        (["--plan", "p.json", "--criterion", "l2"], "a plan alone is replayed as it is, and --criterion"),
        (["--plan", "p.json", "--global"], "a plan alone is replayed as it is, and --global would be"),
        (["--plan", "p.json", "--exclude", "a"], "a plan alone is replayed as it is, and --exclude would be"),
        (["--ratio", "0.5", "--data", "none.npz"], "no data at 'none.npz'"),
        (["--ratio", "0.5", "--data", ""], "data is empty; give a file, a folder, module:function"),
        (["--ratio", "0.5", "--exclude", ""], "--exclude is empty; give a name, op:OPERATOR or a chain"),
        (["--ratio", "0.5", "--exclude", "op:"], "--exclude 'op:': the model has no such operator"),
        (["--ratio", "nan"], "--ratio is the share of channels to remove, above 0 and below 1, not nan"),
        (["--ratio", "0.5", "--metric", "no_such:f"], "'no_such:f': no module 'no_such' in "),
        (["--ratio", "0.5", "--metric", "no_colon"], "'no_colon' is not of the form module:function"),
        (["--ratio", "0.5", "--metric", "math:no"], "'math:no': module 'math' has no 'no'"),
        (["--ratio", "0.5", "--attention", "both"], "invalid value for '--attention': "),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, options: list[str], line: str
) -> None:
    said = refused(capsys, folder, folder / "chain.onnx", "-o", folder / "o.onnx", *options)
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("model.onnx", "these are no bytes of a model", "is text, not an ONNX model"),
        ("model.onnx", "", "is empty"),
        ("model.onnx", None, "is a folder; give the .onnx file itself"),
    ],
)
def test_what_is_no_model_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str | None, line: str
) -> None:
    model = tmp_path / name
    if content is None:
        model.mkdir()
    else:
        model.write_text(content)
    said = refused(capsys, tmp_path, model, "-o", tmp_path / "o.onnx", "--ratio", "0.5")
    assert said.startswith(f"'{model}' {line}")


def test_what_is_no_data_no_plan_or_no_cache_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "empty").mkdir()
    (folder / "plan.json").write_text("[1]")
    given = [folder / "chain.onnx", "-o", folder / "o.onnx"]
    for option, path, line in (
        ("--data", "empty", "holds no .npz, .npy or picture files"),
        ("--data", "chain.onnx", "is no data file; give a .npz or .npy file, or a folder of them"),
        ("--plan", "plan.json", "holds no JSON object, but a list"),
        ("--cache", "plan.json", f"--cache '{folder / 'plan.json'}': "),
        ("--cache", "plan.json/inside", "is a file, not a folder"),
    ):
        budget = [] if option == "--plan" else ["--latency", "0.5"]
        said = refused(capsys, folder, *given, *budget, option, folder / path)
        assert line in said


def test_a_cache_is_for_a_budget_that_is_measured(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    said = refused(
        capsys, folder, folder / "chain.onnx", "--dry-run", "--macs", "0.5", "--cache", folder / "tables"
    )
    assert said == "--cache holds what --latency measures; leave it out or give --latency"
    assert not (folder / "tables").exists()


def test_the_input_is_never_overwritten(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    model = folder / "chain.onnx"
    said = refused(capsys, folder, model, "-o", model, "--ratio", "0.5")
    assert said.endswith("is the input itself, which is never touched; give another output")
    said = refused(capsys, folder, model, "-o", folder / "o.onnx", "--ratio", "0.5", "--save-plan", model)
    assert said.endswith("is the input itself, which is never touched; give another output")


def test_an_output_is_wanted(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    said = refused(capsys, folder, folder / "chain.onnx", "--ratio", "0.5")
    assert said == "give -o OUT for the result, or --dry-run to write no model"


def test_a_plan_for_another_model_is_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    plan = folder / "plan.json"
    tersor(capsys, "prune", folder / "chain.onnx", "--dry-run", "--ratio", "0.5", "--save-plan", plan)
    said = refused(capsys, folder, folder / "residual.onnx", "-o", folder / "o.onnx", "--plan", plan)
    assert said.startswith("the plan is for model ")


def test_nothing_prunable_names_what_pins(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments = [folder / "pinned.onnx", "-o", folder / "o.onnx", "--ratio", "0.5"]
    said = refused(capsys, folder, *arguments)
    assert said == "nothing can be pruned, its only layer must stay: 'only': it is an output of the model"
    done = tersor(capsys, "prune", *arguments, "--explain")
    assert done.code == 2
    assert "only" in done.out
    assert "8 of 8" in done.out
