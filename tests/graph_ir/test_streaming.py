# SPDX-License-Identifier: Apache-2.0
"""Weights written and read one after the other are what protobuf writes and reads at once."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest

from tersor.graph_ir import (
    Model,
    ModelError,
    Tensor,
    Value,
    export,
    fingerprint,
    from_proto,
    io,
    load,
    parse,
    save,
)
from tersor.graph_ir.streaming import read_streamed

TEXT = """<ir_version: 10, opset_import: ["" : 21], producer_name: "someone", doc_string: "of the model">
m (float[2,300] x, bool c) => (float[2,300] y) <float[300,300] w = {seed}, float[300] b = {seed}> {
    h = MatMul(x, w)
    z = If (c) <then_branch = t () => (float[2,300] a) <float[300] k = {0.5}> { a = Add(h, k) },
                else_branch = e () => (float[2,300] n) { n = Neg(h) }>
    y = Add(z, b)
}"""


def odd() -> Model:
    """Weights in every way a file or a pass stores them."""
    text = TEXT.replace("<float[300] k = {0.5}> { a = Add(h, k) }", "{ a = Abs(h) }")
    proto = onnx.ModelProto.FromString(export.to_proto(parse(text)).SerializeToString())
    initializers = proto.graph.initializer
    initializers[1].doc_string = "of the bias"
    for stored in initializers:
        stored.metadata_props.add(key="k", value="v")
    initializers.append(onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    initializers.append(onnx.helper.make_tensor("four", onnx.TensorProto.INT4, [3], [1, -2, 3]))
    initializers.append(onnx.numpy_helper.from_array(np.array(["a", "bc"], object), "words"))
    initializers.append(onnx.numpy_helper.from_array(np.zeros((0, 4), np.float32), "none"))
    initializers[-1].metadata_props.add(key="k", value="v")
    proto.metadata_props.add(key="made", value="by hand")
    model = from_proto(proto)
    model.graph.initializers["w"].const_value = Tensor(np.ones((300, 300), np.float32), name="w")
    shared = Tensor(np.ones(3, np.float32), name="of both", doc_string="shared")
    for name in ("typed", "last"):
        value = model.graph.initializers.get(name) or Value(name=name)
        value.const_value = shared
        model.graph.initializers[name] = value
    return model


def test_the_bytes_are_those_of_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = odd()
    save(model, tmp_path / "whole.onnx", provenance=True)
    monkeypatch.setattr(export, "STREAMED_FROM", 0)
    save(model, tmp_path / "streamed.onnx", provenance=True)
    written = (tmp_path / "streamed.onnx").read_bytes()
    assert written == (tmp_path / "whole.onnx").read_bytes()
    assert written == onnx.load(tmp_path / "streamed.onnx").SerializeToString(deterministic=True)


def test_external_weights_are_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(odd(), tmp_path / "out.onnx", external_data=True)
    monkeypatch.setattr(export, "STREAMED_FROM", 0)
    save(load(tmp_path / "out.onnx"), tmp_path / "in.onnx", external_data=False)
    proto = onnx.load(tmp_path / "in.onnx", load_external_data=False)
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(proto.graph.initializer[0]), np.ones((300, 300)))


def test_a_model_over_the_limit_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "STREAMED_FROM", 0)
    monkeypatch.setattr(export, "MAX_MESSAGE_BYTES", 300 * 300 * 4)
    with pytest.raises(ModelError, match="over protobuf's 2 GB; save it with external data"):
        save(odd(), tmp_path / "m.onnx", external_data=False)
    assert not list(tmp_path.iterdir())


def test_what_is_read_in_parts_is_what_is_read_at_once(tmp_path: Path) -> None:
    save(odd(), tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    weight = onnx.numpy_helper.from_array(np.ones(3, np.float32), "more")
    again = onnx.ModelProto(graph=onnx.GraphProto(initializer=[weight], doc_string="later"), ir_version=9)
    for given in (data, data + again.SerializeToString(), b""):  # fields that come again are merged
        assert read_streamed(BytesIO(given), len(given)) == onnx.ModelProto.FromString(given)
    group, fixed = b"\x0b\x0c", b"\x0d0000"
    for wrong in (data[:-1], data[: len(data) // 2], data + group, data + fixed, data + b"\x80" * 11):
        with pytest.raises(ValueError, match=r"^$"):
            read_streamed(BytesIO(wrong), len(wrong))


def test_large_files_are_read_in_parts_and_refused_as_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = [np.full(1 << 18, k, np.float32) for k in range(8)]  # of 1 MiB each
    stored = [onnx.numpy_helper.from_array(array, f"w{k}") for k, array in enumerate(arrays)]
    proto = export.to_proto(odd())
    proto.graph.initializer.extend(stored)
    onnx.save(proto, tmp_path / "m.onnx")
    whole = fingerprint(load(tmp_path / "m.onnx"))
    monkeypatch.setattr(io, "LARGE", 0)
    tracemalloc.start()
    model = load(tmp_path / "m.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20
    assert fingerprint(model) == whole
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"cut\.onnx' is not an ONNX model, or is truncated"):
        load(tmp_path / "cut.onnx")


def test_a_large_load_lets_go_of_models_no_longer_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a build of 330 MB held a copy for each candidate it had written."""
    save(odd(), tmp_path / "m.onnx")
    monkeypatch.setattr(io, "LARGE", 0)
    gc.disable()
    try:
        gone = weakref.ref(load(tmp_path / "m.onnx").graph)
        assert gone() is not None  # a cycle
        load(tmp_path / "m.onnx")
        assert gone() is None
    finally:
        gc.enable()
