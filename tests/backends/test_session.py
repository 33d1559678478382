# SPDX-License-Identifier: Apache-2.0
"""Sessions: signatures, options, errors in one line; and session.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.analysis.runtime_words import explain
from tersor.backends.base import BackendError
from tersor.backends.onnxruntime.config import SessionConfig
from tersor.backends.onnxruntime.session import OrtSession
from tersor.graph_ir import DataError, ModelError, UsageError

HEADER = '<ir_version: 9, opset_import: ["": 20]>'
ADD = f"{HEADER} g (float[n, 4] x, int64[2] s) => (float[a, b] y) {{ [shaper] y = Reshape(x, s) }}"
FEED = {"x": np.zeros((1, 4), np.float32), "s": np.array([2, 2])}


@pytest.fixture
def session() -> OrtSession:
    return OrtSession(onnx.parser.parse_model(ADD), threads=1)


def test_signature_and_run(session: OrtSession) -> None:
    assert [(p.name, p.dtype, p.shape) for p in session.inputs] == [
        ("x", np.dtype(np.float32), ("n", 4)),
        ("s", np.dtype(np.int64), (2,)),
    ]
    assert [p.name for p in session.outputs] == ["y"]
    (y,) = session.run(FEED)
    assert y.shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s": None}, "needs the input 's'"),
        ({"z": np.zeros(1)}, "no input 'z'"),
        ({"x": np.zeros((1, 4))}, "float64, the model takes float32"),
        ({"x": np.zeros((1, 5), np.float32)}, r"shape \[1, 5\], the model takes \['n', 4\]"),
        ({"x": np.zeros(4, np.float32)}, r"shape \[4\]"),
        ({"x": [1.0]}, "must be a numpy array"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused(
    session: OrtSession, change: dict[str, object], message: str
) -> None:
    feed = {name: value for name, value in {**FEED, **change}.items() if value is not None}
    with pytest.raises(DataError, match=message):
        session.run(feed)  # pyright: ignore[reportArgumentType]


def test_a_failing_node_is_named_in_one_line(session: OrtSession, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BackendError, match=r"node 'shaper' \(Reshape\): The input tensor") as error:
        session.run({**FEED, "s": np.array([3, 3])})
    assert "\n" not in str(error.value)
    assert "onnxruntime_src" not in str(error.value)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_closed_session_says_so(session: OrtSession) -> None:
    with session:
        pass
    with pytest.raises(BackendError, match="closed"):
        session.run(FEED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER} g (float[2] x) => (float[2] y) {{ [lost] y = Foo(x) }}", "Foo"),
        (f"{HEADER} g (double[2] x) => (double[2] y) {{ [lost] y = HardSigmoid(x) }}", "'lost'"),
    ],
)
def test_a_refused_model_is_one_silent_line(
    text: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BackendError, match=message) as error:
        OrtSession(onnx.parser.parse_model(text))
    assert "\n" not in str(error.value)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("threads", [-1, 1025, 100_000])
def test_threads_beyond_reason_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match="threads must be between 0"):
        OrtSession(onnx.parser.parse_model(ADD), threads=threads)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        OrtSession(tmp_path / "none.onnx")
    with pytest.raises(BackendError, match="protobuf parsing failed"):
        OrtSession(b"nonsense")
    with pytest.raises(BackendError, match="does not load"):
        OrtSession(b"")


def test_bytes_find_external_weights_in_the_folder_given(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    graph = onnx.parser.parse_graph("g (float[4] x) => (float[4] y) { y = Add(x, w) }")
    graph.initializer.append(weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    with OrtSession(path.read_bytes(), folder=tmp_path) as opened:
        (y,) = opened.run({"x": np.ones(4, np.float32)})
    assert y.tolist() == [1, 2, 3, 4]


def test_config_reaches_the_session() -> None:
    model = onnx.parser.parse_model(ADD)
    config = SessionConfig({"session.intra_op.allow_spinning": "0"}, ("ConstantFolding",))
    with OrtSession(model, config, threads=1, spinning=True) as opened:
        assert opened.run(FEED)[0].shape == (2, 2)
    with pytest.raises(BackendError, match="session config"):
        OrtSession(model, SessionConfig({"": "1"}))


def test_explain_leaves_other_messages_whole() -> None:
    assert explain("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not\n find X") == "Could not find X"


def test_explain_says_that_custom_operators_cannot_be_registered() -> None:
    said = "Fatal error: my.ops:Foo(-1) is not a registered function/op"
    hint = "; tersor registers no libraries of custom operators, opt and inspect need none"
    assert explain(f"[ONNXRuntimeError] : 1 : FAIL : {said}") == said + hint
    own = "Fatal error: com.microsoft:Gelu(-1) is not a registered function/op"
    assert explain(own) == own  # an onnxruntime that is too old, or built without it


def test_session_json_round_trip(tmp_path: Path) -> None:
    config = SessionConfig({"b": "2", "a": "1"}, ("MatMulAddFusion",))
    path = tmp_path / "session.json"
    config.save(path)
    assert json.loads(path.read_text()) == {
        "config": {"a": "1", "b": "2"},
        "disabled_optimizers": ["MatMulAddFusion"],
    }
    assert SessionConfig.load(path) == config
    assert SessionConfig.beside(tmp_path / "model.onnx") == config
    assert SessionConfig.from_json(SessionConfig().to_json()) == SessionConfig()
    assert SessionConfig.load(tmp_path / "none.json") == SessionConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds no JSON object"),
        ('{"conf": {}}', "unknown key 'conf'"),
        ('{"config": {"a": 1}}', "to strings"),
        ('{"disabled_optimizers": "a"}', "list of optimizer names"),
    ],
)
def test_bad_session_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SessionConfig.from_json(text)
