# SPDX-License-Identifier: Apache-2.0
"""`tersor opt`: what it writes and says, and that wrong input leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from tersor.graph_ir import DataType, load, parse, save, to_text
from tersor.passes import catalog
from tests.support.command import tersor
from tests.support.passes import Crashes, Interrupts, RenamesOutput, ScaleBitwise

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y)
<float[4] w = {1.0, 2.0, 3.0, 4.0}>
{ a = Identity(x)  b = Add(a, w)  c = Add(a, w)  y = Mul(b, c) }
"""
CUSTOM = """
<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
g (float[2] x) => (float[2] y) { i = Identity(x)  y = com.acme.Secret(i) }
"""
DEFAULTS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, float[2] w = {1.0, 2.0}) => (float[2] y) { y = Add(x, w) }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of four nodes, two of them for nothing."""
    save(parse(TEXT), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.fixture(autouse=True)
def bad_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that fail, found as plug-ins."""

    def plugins() -> dict[str, str]:
        found = (Crashes, Interrupts, RenamesOutput, ScaleBitwise)
        return {p.name: f"{p.__module__}:{p.__name__}" for p in found}

    monkeypatch.setattr(catalog, "_plugins", plugins)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_default_loses_nothing(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    done = tersor(capsys, "opt", model, model.parent / "out.onnx", "--validate", "pass")
    assert (done.code, done.err) == (0, "")
    assert "Identity        1       0" in done.out
    assert "nodes 4 -> 2" in done.out
    assert "checked: pass 'eliminate-identity'" in done.out
    assert ": bitwise, by bits, on 9 feeds, SQNR inf dB" in done.out
    assert sorted(node.op_type for node in load(model.parent / "out.onnx").graph) == ["Add", "Mul"]
    assert listing(model.parent) == ["in.onnx", "out.onnx"]


def test_for_machines(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    done = tersor(
        capsys, "opt", model, model.parent / "out.onnx", "--passes", "(eliminate-identity,cse)!", "--json"
    )
    found = json.loads(done.out)
    assert found["pipeline"] == "(eliminate-identity,cse)!"
    assert found["nodes"] == {"before": 4, "after": 2}
    assert found["ops"]["before"] == {"Add": 2, "Identity": 1, "Mul": 1}
    assert found["bytes"]["before"] == model.stat().st_size
    assert set(found["seconds"]) == {"load", "passes", "save"}
    assert [entry["pass"] for entry in found["statistics"]] == ["eliminate-identity", "cse"]


def test_tables_on_request(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    flags = ["--timing", "--stats", "--explain"]
    out = tersor(
        capsys, "opt", model, model.parent / "o.onnx", "--passes", "(cse)!,eliminate-no-ops", *flags
    ).out
    assert "all passes" in out
    assert "(...)!" in out
    assert "merged 1" in out
    assert "declined" in out


def test_a_recipe_may_give_the_passes(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    recipe = model.parent / "r.toml"
    recipe.write_text('recipe = 1\n[[step]]\npasses = "cse"\n[[step]]\npasses = "eliminate-identity"\n')
    done = tersor(capsys, "opt", model, model.parent / "o.onnx", "--recipe", recipe, "--json")
    assert json.loads(done.out)["pipeline"] == "cse,eliminate-identity"
    done = tersor(capsys, "opt", model, model.parent / "o.onnx", "--recipe", recipe, "--passes", "cse")
    assert (done.code, done.err) == (2, "error: give --passes or --recipe, not both\n")
    recipe.write_text("recipe = 1\n[[step]]\ncalibrate = {}\n")
    done = tersor(capsys, "opt", model, model.parent / "o.onnx", "--recipe", recipe)
    assert "does more than run passes: use `tersor build --recipe`" in done.err


def test_inputs_with_defaults_stay_unless_frozen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(parse(DEFAULTS), tmp_path / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "kept.onnx")
    assert "note: 1 input has a default and could be overridden" in done.out
    assert [v.name for v in load(tmp_path / "kept.onnx").graph.inputs] == ["x", "w"]
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "frozen.onnx", "--freeze-default-inputs")
    assert [v.name for v in load(tmp_path / "frozen.onnx").graph.inputs] == ["x"]
    assert "note: 1 inputs with defaults were frozen" in done.out
    assert "could be overridden" not in done.out


def test_custom_operators_pass_through_with_a_note(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save(parse(CUSTOM), tmp_path / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert "note: operator com.acme.Secret is of a custom domain: 1 left untouched" in done.out
    assert [node.op_type for node in load(tmp_path / "out.onnx").graph] == ["Secret"]
    (tmp_path / "out.onnx").unlink()
    for when in ("end", "pass"):
        done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "out.onnx", "--validate", when)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith("error: numbers cannot be checked: onnxruntime cannot run this model")
        assert listing(tmp_path) == ["in.onnx"]


def test_print_ir_and_dump(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    out, steps = model.parent / "out.onnx", model.parent / "steps"
    flags = ["--print-ir", "after-change", "--dump", steps]
    done = tersor(capsys, "opt", model, out, "--passes", "eliminate-identity,inline", *flags)
    assert done.err == f"// after pass 1 eliminate-identity\n{to_text(load(out))}"
    assert listing(steps) == ["000-input.onnx", "001-eliminate-identity.onnx"]


def test_external_data_stays_external(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = parse(
        TEXT.replace("float[4] w = {1.0, 2.0, 3.0, 4.0}", "float[900,4] w = {seed}").replace("N", "900")
    )
    (tmp_path / "a").mkdir()
    save(weights, tmp_path / "a" / "in.onnx", external_data=True)
    assert tersor(capsys, "opt", tmp_path / "a" / "in.onnx", tmp_path / "out.onnx").code == 0
    assert listing(tmp_path) == ["a", "out.onnx", "out.onnx.data"]
    inside = ["opt", tmp_path / "a" / "in.onnx", tmp_path / "one.onnx", "--no-external-data"]
    assert tersor(capsys, *inside).code == 0
    assert "one.onnx.data" not in listing(tmp_path)
    # The weights of the input are the input, too.
    (tmp_path / "a" / "in.onnx").rename(tmp_path / "a" / "other.onnx")
    done = tersor(capsys, "opt", tmp_path / "a" / "other.onnx", tmp_path / "a" / "in.onnx")
    assert done.code == 2
    assert "holds weights of the model, which are never touched" in done.err


def test_what_the_ir_cannot_hold_is_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(np.ones(1, np.float32), "v"),
        indices=numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        dims=[3],
    )
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])])
    onnx.save(helper.make_model(graph), tmp_path / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert done.code == 0
    assert "note: copied unchanged:" in done.out
    assert (tmp_path / "in.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "out.onnx", "--validate", "end")
    assert "checked: no numbers, as no pass changed anything\nnote: copied unchanged:" in done.out
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "out.json")
    assert (done.code, "; only a copy of the same kind works: OUT.onnx" in done.err) == (2, True)


def test_a_copy_is_not_parted_from_its_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], np.ones(3, np.float32).tobytes(), raw=True)
    set_external_data(weight, "w.bin")
    weight.ClearField("raw_data")
    (tmp_path / "a" / "w.bin").write_bytes(np.ones(3, np.float32).tobytes())
    kinds = onnx.TypeProto(map_type=onnx.TypeProto.Map(key_type=TensorProto.INT64))
    kinds.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    port = helper.make_value_info("m", kinds)
    graph = helper.make_graph([helper.make_node("Relu", ["w"], ["y"])], "g", [port], [], [weight])
    onnx.save(helper.make_model(graph), tmp_path / "a" / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "a" / "in.onnx", tmp_path / "out.onnx")
    assert done.code == 2
    assert "has a map type, which tersor cannot hold; " in done.err
    assert "; its weights lie beside it" in done.err
    assert listing(tmp_path) == ["a"]
    assert tersor(capsys, "opt", tmp_path / "a" / "in.onnx", tmp_path / "a" / "out.onnx").code == 0


@pytest.mark.parametrize(
    ("passes", "code", "line"),
    [
        ("interrupts", 130, "error: interrupted; nothing half-written is left\n"),
        ("renames-output", 3, "error: after pass renames-output (number 1): model signature changed"),
        ("crashes", 3, "error: a fault of tersor itself, at "),
        ("eliminate-identity,crashes", 3, "error: a fault of tersor itself, at "),
        ("eliminate-identity,renames-output,cse", 3, "error: after pass renames-output (number 2): "),
        ("scale-bitwise", 3, "error: pass 'scale-bitwise' (number 1) claims equal bits"),
    ],
)
def test_a_failing_pass_leaves_nothing(
    capsys: pytest.CaptureFixture[str], model: Path, passes: str, code: int, line: str
) -> None:
    flags = ["--validate", "pass"] if passes.startswith("scale") else []
    done = tersor(capsys, "opt", model, model.parent / "out.onnx", "--passes", passes, *flags)
    assert done.code == code
    assert done.err.startswith(line)
    assert done.err.count("\n") == 1
    assert listing(model.parent) == ["in.onnx"]


def test_interrupted_while_writing_leaves_nothing(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    monkeypatch.setattr(Path, "replace", interrupt)
    done = tersor(capsys, "opt", model, model.parent / "out.onnx")
    assert done.code == 130
    assert listing(model.parent) == ["in.onnx"]


def test_verification_can_be_left_out(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    out = model.parent / "out.onnx"
    assert tersor(capsys, "opt", model, out, "--passes", "renames-output", "--no-verify").code == 0
    assert load(out).graph.outputs[0].name == "renamed"


def test_data_for_validation(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    out, data = model.parent / "out.onnx", model.parent / "d.npz"
    np.savez(data, x=np.ones((5, 4), np.float32))
    assert tersor(capsys, "opt", model, out, "--validate", "end", "--data", data).code == 0
    done = tersor(capsys, "opt", model, out, "--data", data)
    assert done.err == "error: --data is for --validate; add --validate end or --validate pass\n"


HEAVY = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] w = {seed}, float[64,64] v = {seed}>
{ h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""


def test_what_a_pass_made_is_not_called_untouched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(parse(HEAVY), tmp_path / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "w.onnx", "--passes", "weight-only")
    assert "com.microsoft.MatMulNBits" in done.out
    assert "untouched" not in done.out
    done = tersor(capsys, "opt", tmp_path / "w.onnx", tmp_path / "again.onnx")
    assert "operator com.microsoft.MatMulNBits is of a custom domain: 2 left untouched" in done.out


def test_halves_without_types_say_what_they_need(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(parse(HEAVY), tmp_path / "in.onnx")
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "h.onnx", "--passes", "to-half")
    need = "the type of an input is not known for 1 nodes, which stay float32; put infer-shapes before it"
    assert need in done.out
    passes = ["--passes", "infer-shapes,to-half"]
    done = tersor(capsys, "opt", tmp_path / "in.onnx", tmp_path / "h.onnx", *passes)
    assert "infer-shapes" not in done.out
    assert load(tmp_path / "h.onnx").graph[1].outputs[0].dtype == DataType.FLOAT16


def test_validation_that_had_nothing_to_check_says_so(
    capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    asked = ("opt", model, model.with_name("o.onnx"), "--passes", "merge-clip")
    nothing = "checked: no numbers, as no pass changed anything"
    assert nothing in tersor(capsys, *asked, "--validate", "end").out.splitlines()
    assert "checked" not in tersor(capsys, *asked).out


def test_the_folder_of_the_result_is_made_and_goes_again_where_nothing_is_written(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = listing(model.parent)
    assert tersor(capsys, "opt", model, model.parent / "a" / "b" / "o.onnx", "--passes", "nope").code == 2
    with monkeypatch.context() as patch:
        patch.setattr("tersor.pipeline.outputs.save", interrupt)
        assert tersor(capsys, "opt", model, model.parent / "a" / "b" / "o.onnx").code == 130
    assert listing(model.parent) == before
    assert tersor(capsys, "opt", model, model.parent / "a" / "b" / "o.onnx").code == 0
    assert listing(model.parent / "a" / "b") == ["o.onnx"]
