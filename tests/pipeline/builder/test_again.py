# SPDX-License-Identifier: Apache-2.0
"""What a lock file says was shipped is made again, byte by byte, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tersor.backends.onnxruntime.latency import Latency, Runner
from tersor.graph_ir import CheckError, Model, UsageError, save
from tersor.passes.quantize.insert_qdq import InsertQdq
from tersor.pipeline.builder import BuildSettings, build
from tersor.pipeline.builder.form import Dynamic, Form, form_of
from tersor.pipeline.builder.lock import LOCK_FILE, read_lock
from tests.support.building import latency
from tests.support.int8 import graph

NET = graph(
    """i = Identity(x) a = Conv<pads=[1,1,1,1]>(i, w) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, v) d = Relu(c)
    e = GlobalAveragePool(d) f = Flatten(e) g = MatMul(f, p) h = Softmax(g) y = MatMul(h, q)""",
    """float[16,8,3,3] w = {seed}, float[16,16,3,3] v = {seed},
    float[16,24] p = {seed}, float[24,8] q = {seed}""",
    x="1,8,12,12",
)
ROWS = graph(
    "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)",
    "float[12,32] w = {seed}, float[32,8] v = {seed}",
    x="1,8,12,12",
)
PRUNED = """
recipe = 1
[[step]]
prune = { ratio = "40%" }
[[step]]
preset = "int8-ready"
[[step]]
calibrate = { observer = "mse" }
[[step]]
passes = "insert-qdq"
"""


def favour(patch: pytest.MonkeyPatch, wanted: str) -> None:
    """Replace the clock: what is called so takes a tenth of the original's time, all else twice as long."""

    def measured(runners: Mapping[str, Runner], **_: Any) -> dict[str, Latency]:
        share = {name: 0.1 if wanted in name else 2.0 for name in runners}
        return {name: latency(name, *[share[name] if name != "original" else 1.0] * 3) for name in runners}

    patch.setattr("tersor.pipeline.builder.timing.measure", measured)


def settings(folder: Path, out: str, net: Model = NET, **given: Any) -> BuildSettings:
    model, data = folder / "m.onnx", folder / "d.npz"
    if not model.exists():
        save(net, model)
        rng = np.random.default_rng(0)
        np.savez(data, x=rng.standard_normal((16, 8, 12, 12)).astype(np.float32))
    given = {"data": str(data), "rounds": 1, "min_sqnr_db": -30.0, **given}
    return BuildSettings(model, folder / out, **given)


@pytest.mark.parametrize(
    ("wanted", "net", "given"),
    [
        ("original", NET, {}),
        ("float", NET, {"data": None}),
        ("less-", NET, {}),
        ("picked-1 less-3 weight-only", NET, {}),
        ("int8 dynamic", ROWS, {}),
        ("recipe", NET, {"recipe": PRUNED}),
    ],
)
def test_what_was_shipped_is_made_again_byte_by_byte(
    wanted: str, net: Model, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, wanted)
    if "recipe" in given:
        (tmp_path / "r.toml").write_text(given["recipe"], encoding="utf-8")
        given = {"recipe": str(tmp_path / "r.toml")}
    first = build(settings(tmp_path, "first", net, **given))
    assert wanted in first.winner.name
    favour(monkeypatch, "nothing")  # the clock has no say
    lock = tmp_path / "first" / LOCK_FILE
    second = build(settings(tmp_path, "second", net, lock=lock, **given))
    assert second.winner.name == first.winner.name
    assert second.winner.path.read_bytes() == first.winner.path.read_bytes()
    assert second.why.startswith(f"{first.winner.name}, as the lock says: ")
    assert len(second.judged) <= 3, "nothing is searched"
    assert json.loads((tmp_path / "second" / LOCK_FILE).read_text()) == json.loads(lock.read_text())


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock file of a build that shipped dynamic int8."""
    favour(monkeypatch, "int8 dynamic")
    build(settings(tmp_path, "first", ROWS))
    return tmp_path / "first" / LOCK_FILE


def test_other_makers_are_noted_where_they_make_the_same_bytes(locked: Path, tmp_path: Path) -> None:
    data = json.loads(locked.read_text(encoding="utf-8"))
    data["versions"]["numpy"], data["host"]["flags"] = "0.1", ["avx", "none"]
    locked.write_text(json.dumps(data), encoding="utf-8")
    notes = " ".join(build(settings(tmp_path, "second", lock=locked)).notes)
    assert "'int8 dynamic' has the same bytes as then, though others made it: numpy 0.1 (now " in notes
    assert "flags avx none (now " in notes


def test_other_inputs_are_refused_before_any_work(locked: Path, tmp_path: Path) -> None:
    refused: dict[str, dict[str, Any]] = {
        r"with --samples 256, and this one has --samples 8": {"samples": 8},
        r"with no --passes, and this one has --passes cse": {"passes": "cse"},
        r"of a build with --data; give the same options": {"data": None},
        r"of a build without --recipe": {"recipe": "int8"},
        r"of another data": {"data": "random"},
        r"a lock searches nothing": {"trials": tmp_path / "t.jsonl"},
    }
    for message, given in refused.items():
        with pytest.raises(UsageError, match=message):
            build(settings(tmp_path, "second", lock=locked, **given))
    save(NET, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="of another model"):
        build(settings(tmp_path, "second", lock=locked))
    locked.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"is no build\.lock\.json of this version"):
        build(settings(tmp_path, "second", lock=locked))
    assert not (tmp_path / "second").exists()


def test_other_bytes_and_missed_limits_are_refused(locked: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"does not hold here: output 'y' has .* allowed 200.0 dB"):
        build(settings(tmp_path, "second", lock=locked, min_sqnr_db=200.0))
    data = json.loads(locked.read_text(encoding="utf-8"))
    data["result"]["blake2b"], data["versions"]["numpy"] = "0" * 32, "0.1"
    locked.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckError, match=r"'int8 dynamic' is not the model .* since: numpy 0\.1 \(now "):
        build(settings(tmp_path, "second", lock=locked))
    data["shipped"] = {"name": "int8 mse", "form": None}
    locked.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckError, match=r"'int8 mse', .* is not made of this model any more"):
        build(settings(tmp_path, "second", lock=locked))
    assert not (tmp_path / "second").exists()


def test_an_edited_lock_is_refused_in_one_line(locked: Path) -> None:
    edits: list[tuple[str, Any]] = [
        ("lock", 2),
        ("model", "x"),
        ("data", {}),
        ("result", None),
        ("result blake2b", ...),
        ("host", 5),
        ("shipped name", "int8 mse"),
        ("shipped name", []),
        ("shipped form bits", "8"),
        ("shipped form methods", [[1]]),
    ]
    text = locked.read_text(encoding="utf-8")
    for place, value in edits:
        section = data = json.loads(text)
        *above, last = place.split()
        for key in above:
            section = section[key]
        section[last] = value
        if value is ...:
            del section[last]
        locked.write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(UsageError, match=r"of this version of tersor|no form of a model is made of"):
            read_lock(locked)
    locked.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UsageError, match="is not JSON"):
        read_lock(locked)
    with pytest.raises(UsageError, match=r"cannot read --lock .*: No such file or directory"):
        read_lock(locked.with_name("none.json"))


@pytest.mark.parametrize(
    "form",
    [
        Dynamic(7, ("smooth-quant",)),
        Dynamic(8, per_tensor=True),
        Form(
            "percentile:99.9",
            InsertQdq(exclude=("/a/b, {c}", "d e"), mse_weights=True),
            ("smooth-quant", "adaptive-rounding{bits=8 sweeps=2}"),
            "weight-only{bits=8}",
            corrected=False,
            picked=(("/v:0", "minmax"), ("w", "mse")),
        ),
    ],
)
def test_a_form_is_read_as_it_was_written(form: Form | Dynamic) -> None:
    assert form_of(json.loads(json.dumps(form.to_dict()))) == form
    assert form_of(form.to_dict()).name == form.name
    with pytest.raises(UsageError, match="no form of a model is made of"):
        form_of({**form.to_dict(), "unheard": 1})
