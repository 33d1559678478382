# SPDX-License-Identifier: Apache-2.0
"""Running a model on the host, looking inside it, and refusing feeds that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tersor.analysis.evaluate import Evaluator, check_feed
from tersor.analysis.lending import excerpt
from tersor.graph_ir import (
    DataError,
    Model,
    ModelError,
    fingerprint,
    load,
    parse,
    save,
    signature_of,
    tensor,
    to_proto,
)
from tersor.passes.base import Context
from tersor.passes.clean.sink_constants import SinkConstants
from tersor.pipeline.twin import snapshot

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[N, 300] x, int64[1] k) => (float[N, 20] y, int64[1] j)
  <float[300, 20] W = {seed}, float[20] b = {seed}>
{
  h = MatMul(x, W)
  z = Add(h, b)
  y = Relu(z)
  j = Add(k, k)
}
"""


def feed(n: int = 3, seed: int = 0) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(n, 300)).astype(np.float32)
    return {"x": x, "k": np.array([4], np.int64)}


def test_outputs_in_order_and_values_inside() -> None:
    model = parse(TEXT)
    before = fingerprint(model)
    plain = Evaluator(model).run(feed())
    assert list(plain) == ["y", "j"]
    assert plain["j"].tolist() == [8]
    inside = Evaluator(model, outputs=["z", "x", "W", "y", "h"]).run(feed())
    assert list(inside) == ["z", "x", "W", "y", "h"]
    np.testing.assert_array_equal(np.maximum(inside["z"], 0), inside["y"])
    np.testing.assert_allclose(inside["x"] @ inside["W"], inside["h"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(inside["y"], plain["y"])
    assert fingerprint(model) == before
    assert [v.name for v in model.graph.outputs] == ["y", "j"]


def test_protos_paths_and_threads_agree(tmp_path: Path) -> None:
    model = parse(TEXT)
    save(model, tmp_path / "m.onnx")
    save(model, tmp_path / "e.onnx", external_data=True)
    assert (tmp_path / "e.onnx.data").exists()
    expected = Evaluator(model).run(feed())["y"]
    for source in (to_proto(model), tmp_path / "m.onnx", str(tmp_path / "e.onnx"), load(tmp_path / "e.onnx")):
        np.testing.assert_array_equal(Evaluator(source).run(feed())["y"], expected)
    np.testing.assert_allclose(Evaluator(model, threads=2).run(feed())["y"], expected, rtol=1e-5)


def test_large_weights_are_lent_not_copied(tmp_path: Path) -> None:
    save(parse(TEXT), tmp_path / "m.onnx", external_data=True)
    model = load(tmp_path / "m.onnx")
    assert set(Evaluator(model).lent) == {"W"}
    weight = model.graph.initializers["W"].const_value
    assert weight is not None
    assert np.shares_memory(Evaluator(model).lent["W"], weight.numpy())


def test_only_weights_that_are_needed_are_written_or_lent() -> None:
    """Regression: the whole model was written, and all its weights copied, for each stretch of it."""
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
        g (float[2,32] x, float[32] d) => (float[2,32] y)
        <float[32,32] a = {seed}, float[32,32] b = {seed}, float[32] small = {seed}, float[4] other = {seed},
         float[32] d = {seed}>
        { h = MatMul(x, a) i = Add(h, small) j = Add(i, d) k = MatMul(j, b) y = Relu(k) }""")
    proto, lent = excerpt(model, ["j"], {})
    assert sorted(tensor.name for tensor in proto.graph.initializer) == ["a", "d", "small"]
    assert set(lent) == {"a"}
    feeds = {"x": np.ones((2, 32), np.float32)}
    want = feeds["x"] @ weight(model, "a") + weight(model, "small")
    np.testing.assert_allclose(
        Evaluator(model, outputs=["j"]).run(feeds)["j"], want + weight(model, "d"), rtol=1e-5
    )
    changed = {**feeds, "d": np.zeros(32, np.float32)}
    np.testing.assert_allclose(Evaluator(model, outputs=["j"]).run(changed)["j"], want, rtol=1e-5)


def test_weights_may_share_a_tensor() -> None:
    """Regression: each was written under the name of the last."""
    model = parse("""<ir_version: 9, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) <float[2] a = {seed}, float[2] b = {seed}>
        { h = Add(x, a) y = Mul(h, b) }""")
    shared = tensor(np.array([2, 3], np.float32))
    for value in model.graph.initializers.values():
        value.const_value = shared
    found = Evaluator(model).run({"x": np.zeros(2, np.float32)})["y"]
    np.testing.assert_array_equal(found, [4, 9])


def weight(model: Model, name: str) -> NDArray[np.float32]:
    found = model.graph.initializers[name].const_value
    assert found is not None
    return found.numpy()


BODIES = """<ir_version: 9, opset_import: ["" : 17]>
g (float[2,32] x, bool c) => (float[2,32] y)
<float[32,32] w = {seed}, float[32,32] u = {seed}, float[32,32] v = {seed}> {
  t = If (c) <then_branch = t () => (float[2,32] p) { p = MatMul(x, u) },
              else_branch = e () => (float[2,32] q) { k = MatMul(x, w) q = MatMul(k, v) }>
  y = Relu(t)
}"""


def test_weights_of_bodies_lie_in_files_too(tmp_path: Path) -> None:
    """Branches may give two weights one name, and an If of a constant condition is inlined under others."""
    plain = parse(BODIES)
    weight = plain.graph.initializers["u"]
    assert SinkConstants().run(plain, Context())
    weight.name = "w"
    save(plain, tmp_path / "m.onnx", external_data=True)
    model = load(tmp_path / "m.onnx")
    assert not Evaluator(model).lent
    proto = snapshot(model)
    for value in (True, False):
        feeds = {"x": np.ones((2, 32), np.float32), "c": np.array(value)}
        want = Evaluator(plain).run(feeds)["y"]
        np.testing.assert_array_equal(Evaluator(model).run(feeds)["y"], want)
        np.testing.assert_array_equal(Evaluator(proto).run(feeds)["y"], want)
        fixed = load(tmp_path / "m.onnx")
        fixed.graph.inputs.remove(condition := fixed.graph.inputs[1])
        condition.const_value = tensor(feeds.pop("c"), name="c")
        fixed.graph.register_initializer(condition)
        np.testing.assert_allclose(Evaluator(fixed).run(feeds)["y"], want, rtol=1e-5)


def test_a_model_over_two_gigabytes_runs_from_its_mapped_file(tmp_path: Path) -> None:
    rows, columns = 2**17 + 2**14, 4096  # 2.4 GB of float32, a hole on disk
    data = tmp_path / "table.bin"
    with data.open("wb") as file:
        file.truncate(rows * columns * 4)
        file.seek((rows - 1) * columns * 4)
        file.write(np.full(columns, 7, np.float32).tobytes())
    table = TensorProto(name="table", data_type=1, dims=[rows, columns], data_location=TensorProto.EXTERNAL)
    table.external_data.add(key="location", value="table.bin")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["row"]), helper.make_node("Neg", ["row"], ["y"])],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [table],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    got = Evaluator(tmp_path / "m.onnx", outputs=["row"]).run({"i": np.array([rows - 1])})["row"]
    assert got.shape == (1, columns)
    assert (got == 7).all()


def test_defaults_may_be_left_out_or_given() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "d"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "d")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("d", TensorProto.FLOAT, [2], [10.0, 20.0])],
    )
    evaluator = Evaluator(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    )
    x = np.ones(2, np.float32)
    assert evaluator.run({"x": x})["y"].tolist() == [11, 21]
    assert evaluator.run({"x": x, "d": x})["y"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "sample 5 misses input 'x'"),
        ({"extra": np.zeros(1)}, "'extra', which is no input"),
        ({"x": np.zeros((3, 300))}, "type float64, the model takes float32"),
        ({"x": np.zeros((3, 299), np.float32)}, "shape [3, 299], the model takes [N, 300]"),
        ({"x": np.zeros(300, np.float32)}, "shape [300]"),
        ({"x": [1.0]}, "a list, not a numpy array"),
        ({"x": np.full((1, 300), np.nan, np.float32)}, "sample 5, input 'x': holds NaN"),
        ({"x": np.full((1, 300), np.inf, np.float32)}, "infinite"),
        ({"k": np.zeros(1, np.int32)}, "int32"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    model = parse(TEXT)
    wrong = {name: value for name, value in {**feed(), **change}.items() if value is not None}
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        check_feed(signature_of(model), wrong, 5)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        Evaluator(model).run(wrong)


def test_infinities_pass_where_they_are_meant() -> None:
    x = {**feed(), "x": np.full((1, 300), -np.inf, np.float32)}
    model = parse(TEXT)
    check_feed(signature_of(model), x, finite=False)
    assert (Evaluator(model).run(x, check=False)["y"].shape) == (1, 20)


def test_what_cannot_be_looked_at_or_run_is_one_line() -> None:
    with pytest.raises(DataError, match="no value"):
        Evaluator(parse(TEXT), outputs=["nowhere"])
    custom = parse(
        '<ir_version: 10, opset_import: ["" : 17, "my" : 1]> g (float[2] x) => (float[2] y) { y = my.Op(x) }'
    )
    with pytest.raises(ModelError, match="onnxruntime cannot run") as caught:
        Evaluator(custom)
    assert "\n" not in str(caught.value)
    reshape = parse(
        '<ir_version: 10, opset_import: ["" : 17]> '
        "g (float[N] x, int64[2] s) => (float[a, b] y) { y = Reshape(x, s) }"
    )
    with pytest.raises(DataError, match="failed on sample 2"):
        Evaluator(reshape).run({"x": np.ones(5, np.float32), "s": np.array([2, 2])}, index=2)
