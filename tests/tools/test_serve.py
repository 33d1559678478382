# SPDX-License-Identifier: Apache-2.0
"""The batch mode: a line of JSON in, a line out, and no model ends the process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tersor.graph_ir import load, parse, save
from tests.support.command import tersor

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { i = Identity(x)  y = Relu(i) }
"""


def test_requests_are_answered_in_order(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(parse(TEXT), tmp_path / "a.onnx")
    (tmp_path / "bad.onnx").write_text("no model")
    requests = [
        json.dumps({"in": str(tmp_path / "a.onnx"), "out": str(tmp_path / "b.onnx")}),
        "",
        "not json",
        '{"in": 3}',
        json.dumps({"in": str(tmp_path / "bad.onnx"), "out": str(tmp_path / "c.onnx")}),
        json.dumps({"in": str(tmp_path / "a.onnx"), "out": str(tmp_path / "d.onnx")}),
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(requests) + "\n"))
    done = tersor(capsys, "serve-opt", "--passes", "eliminate-identity")
    assert (done.code, done.err) == (0, "")
    ready, *answers = [json.loads(line) for line in done.out.splitlines()]
    assert ready == {"ready": True}
    assert [answer["ok"] for answer in answers] == [True, False, False, False, True]
    assert answers[0]["nodes"] == [2, 1]
    assert [answer["type"] for answer in answers[1:4]] == ["UsageError", "UsageError", "ModelError"]
    assert answers[3]["where"].startswith("graph_ir/io.py:")
    assert "is text, not an ONNX model" in answers[3]["error"]
    assert [node.op_type for node in load(tmp_path / "d.onnx").graph] == ["Relu"]
    assert not (tmp_path / "c.onnx").exists()


def test_what_is_no_path_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(parse(TEXT), tmp_path / "a.onnx")
    model = str(tmp_path / "a.onnx")
    requests = [{"in": "", "out": "o.onnx"}, {"in": model, "out": ""}, {"in": model, "out": "o\0.onnx"}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, requests))))
    answers = [json.loads(line) for line in tersor(capsys, "serve-opt").out.splitlines()[1:]]
    assert [(answer["type"], answer["error"]) for answer in answers] == [
        ("UsageError", "in is empty; give a path"),
        ("UsageError", "out is empty; give a path"),
        ("UsageError", "out 'o\\x00.onnx' holds a null character; no file is called so"),
    ]


def test_a_wrong_pipeline_is_refused_before_the_first_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for passes, said in (("nope", "no pass is called 'nope'"), ("", "expected a pass name")):
        done = tersor(capsys, "serve-opt", "--passes", passes)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
