# SPDX-License-Identifier: Apache-2.0
"""What load refuses, in one line, and what it mends with a note."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tersor.graph_ir import (
    ModelError,
    UnsupportedModelError,
    constant,
    from_proto,
    load,
    notes,
    parse,
    save,
    to_proto,
    to_text,
    verify,
)
from tests.support.features import container_model, feature_model, function_model, port

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
IF = (
    "y = If(c) <then_branch = a () => (float[2] {t}) {{ {t} = Neg(x) }}, "
    "else_branch = b () => (float[2] q) {{ q = Abs(z) }}>"
)
FEATURES = feature_model().SerializeToString()


def test_folder_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for name, reason in ((".", "is a folder"), ("none.onnx", "no such file"), ("empty.onnx", "is empty")):
        with pytest.raises(ModelError, match=reason):
            load(tmp_path / name)


@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt", ".textproto", ".json"])
@pytest.mark.parametrize("content", [b"hello, world", b"\xff\xfe\x00\x01", b"{}", b"[1]", b"<html>"])
def test_other_files_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(cut=st.integers(0, len(FEATURES) - 1))
def test_no_prefix_of_a_model_crashes(cut: int) -> None:
    _loads_or_is_refused(FEATURES[:cut])


@given(edits=st.lists(st.tuples(st.integers(0, len(FEATURES) - 1), st.integers(0, 255)), max_size=4))
def test_no_damaged_model_crashes(edits: list[tuple[int, int]]) -> None:
    data = bytearray(FEATURES)
    for position, byte in edits:
        data[position] = byte
    _loads_or_is_refused(bytes(data))


@given(data=st.binary(max_size=200))
def test_no_random_bytes_crash(data: bytes) -> None:
    _loads_or_is_refused(data)


def _loads_or_is_refused(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(data)
        with suppress(ModelError):
            model = load(path)
            verify(model)
            save(model, path)
        assert [p.name for p in Path(folder).iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = Add(x, nowhere)", r"'Add\(y\)' reads 'nowhere', which is not defined"),
        ("z = Relu(x)", "output 'y' of graph 'g' is not produced"),
        ("y = Relu(x)\n y = Neg(x)", "'y' is redeclared"),
        ("y = Add(x, z)\n z = Neg(y)", "cycle through node"),
        ("y = Relu(y)", "cycle through node"),
        ("y = Relu(x, x)", "takes 1 to 1 inputs"),
        (IF.format(t="p"), r"'Abs\(q\)' reads 'z'"),
    ],
)
def test_invalid_graphs_are_refused_by_name(nodes: str, reason: str) -> None:
    proto = onnx.parser.parse_model(f"{HEAD}g (float[2] x, bool c) => (float[2] y) {{ {nodes} }}")
    with pytest.raises(ModelError, match=reason):
        from_proto(proto, name="the file")


def test_a_model_without_an_opset_is_refused() -> None:
    proto = onnx.parser.parse_model(HEAD + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    del proto.opset_import[:]
    with pytest.raises(ModelError, match="no opset import"):
        from_proto(proto)


def test_names_that_are_not_text_are_refused() -> None:
    proto = onnx.parser.parse_model(HEAD + "g (float[2] x) => (float[2] y) { zz = Relu(x)\n y = Neg(zz) }")
    data = proto.SerializeToString().replace(b"zz", b"\xff\xfe")
    with pytest.raises(ModelError):
        from_proto(onnx.ModelProto.FromString(data))


def test_damaged_initializers_are_refused() -> None:
    proto = onnx.parser.parse_model(
        HEAD + "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"
    )
    proto.graph.initializer[0].float_data.append(3)
    with pytest.raises(ModelError, match="'w': its data does not fit"):
        from_proto(proto)
    proto.graph.initializer[0].ClearField("float_data")
    proto.graph.initializer[0].raw_data = b"1234567"
    with pytest.raises(ModelError, match="'w': its data does not fit"):
        from_proto(proto)


def test_unsorted_nodes_are_sorted_with_a_note() -> None:
    text = "g (float[2] x, bool c) => (float[2] y) {{ {} }}"
    model = parse(HEAD + text.format("y = Neg(z)\n z = Relu(x)"))
    assert [node.op_type for node in model.graph] == ["Relu", "Neg"]
    assert "were sorted" in notes(model)[0]
    captured = parse(HEAD + text.format(IF.format(t="p") + "\n z = Relu(x)"))
    assert [node.op_type for node in captured.graph] == ["Relu", "If"]


def test_a_body_name_that_hides_an_outer_one_is_renamed() -> None:
    nodes = "z = Relu(x)\n " + IF.format(t="z")
    model = parse(HEAD + f"g (float[2] x, bool c) => (float[2] y) {{ {nodes} }}")
    verify(model)
    assert "z_1 = Neg(x)" in to_text(model)
    assert "q = Abs(z)" in to_text(model)
    assert "hid an outer value" in notes(model)[0]


def test_a_forgotten_import_of_a_custom_domain_is_added() -> None:
    proto = feature_model()
    del proto.opset_import[1]
    model = from_proto(proto)
    assert model.opset_imports["my.own"] == 1
    assert "had no opset import" in notes(model)[0]


def _sparse(flat: bool) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(HEAD + "g (float[2,3] x) => (float[2,3] y) { y = Add(x, s) }")
    sparse = proto.graph.sparse_initializer.add(dims=[2, 3])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5, 7], np.float32), "s"))
    indices = [1, 5] if flat else [[0, 1], [1, 2]]
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64), "i"))
    return proto


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_become_dense_with_a_note(flat: bool) -> None:
    model = from_proto(_sparse(flat))
    held = constant(model.graph.initializers["s"])
    assert held is not None
    assert held.tolist() == [[0, 5, 0], [0, 0, 7]]
    assert "made dense" in notes(model)[0]


def test_a_sparse_initializer_that_points_outside_is_refused() -> None:
    proto = _sparse(True)
    proto.graph.sparse_initializer[0].dims[0] = 1
    with pytest.raises(ModelError, match="not a valid ONNX graph"):
        from_proto(proto)


def test_a_stride_of_0_is_refused() -> None:
    proto = function_model()
    proto.graph.node.append(helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[1, 0]))
    with pytest.raises(ModelError, match="node 'MaxPool': attribute 'strides' holds a 0"):
        from_proto(proto)


@pytest.mark.parametrize("in_function", [False, True])
def test_sparse_attributes_are_refused_by_name(in_function: bool) -> None:
    sparse = _sparse(True).graph.sparse_initializer[0]
    node = helper.make_node("Constant", [], ["k"], name="here", sparse_value=sparse)
    proto = function_model()
    (proto.functions[0] if in_function else proto.graph).node.insert(0, node)
    with pytest.raises(UnsupportedModelError, match="'here': attribute 'sparse_value' is a sparse tensor"):
        from_proto(proto)


def test_map_types_are_refused_by_name() -> None:
    kind = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(1, [2]))
    proto = onnx.parser.parse_model(HEAD + "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.input.append(helper.make_value_info("table", kind))
    with pytest.raises(UnsupportedModelError, match="'table' has a map type"):
        from_proto(proto)


@pytest.mark.parametrize("make", [feature_model, function_model, container_model])
@pytest.mark.parametrize("suffix", [".onnx", ".textproto", ".json"])
def test_round_trip_loses_nothing(make: Callable[[], onnx.ModelProto], suffix: str, tmp_path: Path) -> None:
    before = make()
    onnx.checker.check_model(before)
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    form = {".onnx": "protobuf", ".textproto": "textproto", ".json": "json"}[suffix]
    onnx.save_model(before, str(first), format=form)
    save(load(first), second)
    after = onnx.load_model(str(second), format=form)
    for node in before.graph.node:
        while node.output and not node.output[-1]:
            del node.output[-1]  # a last output left out need not be said
    assert after == before
    assert to_proto(load(second)) == before


def test_training_information_is_carried() -> None:
    proto = feature_model()
    info = proto.training_info.add()
    info.initialization.name = "start"
    info.update_binding.add(key="w", value="y")
    assert to_proto(from_proto(proto)).training_info[0] == info


def test_inferred_types_are_not_written_and_declared_ones_are() -> None:
    from tersor.analysis.shapes import infer_shapes

    proto = onnx.parser.parse_model(
        HEAD + "g (float[2] x) => (float[2] y) { a = Relu(x)\n b = Neg(a)\n y = Abs(b) }"
    )
    proto.graph.value_info.append(port("b", dims=(2,)))
    model = from_proto(proto)
    infer_shapes(model)
    assert model.graph[0].outputs[0].shape is not None
    assert [v.name for v in to_proto(model).graph.value_info] == ["b"]
    assert model.graph[0].outputs[0].shape is not None


def test_packaged_models_survive() -> None:
    import onnx.backend.test

    folder = Path(onnx.backend.test.__file__).parent / "data"
    files = sorted(folder.rglob("*.onnx"))
    assert len(files) > 100
    for file in files:
        before = onnx.load(file)
        after = to_proto(load(file))
        onnx.checker.check_model(after)
        assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
        assert [list(n.input) for n in after.graph.node] == [list(n.input) for n in before.graph.node]
        assert list(after.graph.input) == list(before.graph.input)
        assert list(after.graph.output) == list(before.graph.output)
        assert {t.name: t for t in after.graph.initializer} == {t.name: t for t in before.graph.initializer}
