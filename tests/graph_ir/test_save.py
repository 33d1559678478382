# SPDX-License-Identifier: Apache-2.0
"""Saving: whole or not at all, external data, and models too large for one message."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tersor.graph_ir import (
    ExternalTensor,
    ModelError,
    atomic_write,
    constant,
    export,
    fingerprint,
    from_proto,
    load,
    parse,
    save,
    targets,
    tensor,
    to_proto,
)
from tests.support.features import port

WEIGHTS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,64] x) => (float[2,64] y) <float[64,64] a = {seed}, float[64,64] b = {seed}, float[2] c = {seed}> {
    h = MatMul(x, a)
    y = MatMul(h, b)
}"""


def external(folder: Path, name: str = "m.onnx") -> Path:
    save(parse(WEIGHTS), folder / name, external_data=True)
    return folder / name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_external_data_round_trips_and_stays_mapped(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    model = load(path)
    held = model.graph.initializers["a"].const_value
    assert isinstance(held, ExternalTensor)
    array = constant(model.graph.initializers["a"])
    assert array is not None
    assert not array.flags.writeable
    assert not array.flags.owndata
    assert fingerprint(model) == fingerprint(parse(WEIGHTS))
    # Small weights stay inside, where shape inference can read them.
    assert not isinstance(model.graph.initializers["c"].const_value, ExternalTensor)
    onnx.checker.check_model(str(path))


def test_small_weights_that_were_external_move_into_the_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    proto = to_proto(parse(WEIGHTS))
    onnx.save(
        proto, tmp_path / "in" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    save(load(tmp_path / "in" / "m.onnx"), tmp_path / "out" / "m.onnx")
    (tmp_path / "in" / "w.bin").unlink()
    assert fingerprint(load(tmp_path / "out" / "m.onnx")) == fingerprint(parse(WEIGHTS))


def test_external_models_are_saved_external_again_and_inline_when_asked(tmp_path: Path) -> None:
    model = load(external(tmp_path))
    save(model, tmp_path / "again.onnx")
    save(model, tmp_path / "inside.onnx", external_data=False)
    save(model, tmp_path / "text.textproto")
    assert names(tmp_path) == [
        "again.onnx", "again.onnx.data", "inside.onnx", "m.onnx", "m.onnx.data", "text.textproto",
    ]  # fmt: skip
    for name in ("again.onnx", "inside.onnx", "text.textproto"):
        assert fingerprint(load(tmp_path / name)) == fingerprint(model)
    assert isinstance(model.graph.initializers["a"].const_value, ExternalTensor)


def test_a_model_saved_over_itself_goes_on_seeing_its_weights(tmp_path: Path) -> None:
    model = load(external(tmp_path))
    before = fingerprint(parse(WEIGHTS))
    first = model.graph.initializers["a"]
    model.graph.initializers["b"].const_value = tensor(np.ones((64, 64), np.float32), name="b")
    del model.graph.initializers["c"]
    save(model, tmp_path / "m.onnx")
    array = constant(first)
    wanted = constant(parse(WEIGHTS).graph.initializers["a"])
    assert array is not None
    assert wanted is not None
    assert np.array_equal(array, wanted)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert fingerprint(load(tmp_path / "m.onnx")) == fingerprint(model) != before


def test_shared_tensors_are_written_once(tmp_path: Path) -> None:
    model = parse(WEIGHTS)
    model.graph.initializers["b"].const_value = model.graph.initializers["a"].const_value
    save(model, tmp_path / "m.onnx", external_data=True)
    assert (tmp_path / "m.onnx.data").stat().st_size == 64 * 64 * 4
    again = load(tmp_path / "m.onnx")
    first, second = (constant(again.graph.initializers[name]) for name in "ab")
    assert first is not None
    assert second is not None
    assert np.array_equal(first, second)


def with_locations(folder: Path, **entries: str) -> Path:
    """The external model with some entries of its first tensor changed."""
    path = external(folder)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/passwd", "..\\secret"])
def test_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1 << 16))
    (tmp_path / "in").mkdir()
    with pytest.raises(ModelError, match="leaves the model's folder; refused"):
        load(with_locations(tmp_path / "in", location=location))


def test_links_to_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = with_locations(tmp_path / "in", location="link/data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").write_bytes(bytes(1 << 16))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ModelError, match="symbolic link; refused"):
        load(path)
    data = tmp_path / "in" / "m.onnx.data"
    data.unlink()
    data.symlink_to(tmp_path / "out" / "data")
    with pytest.raises(ModelError, match="symbolic link; refused"):
        load(path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "gone"}, "'gone' is missing beside the model"),
        ({"location": ""}, "missing"),
        ({"offset": "1000000"}, "holds 32768 bytes, .* are needed"),
        ({"length": "8"}, "external data is 8 bytes, 16384 needed"),
        ({"length": "99999999"}, "are needed"),
        ({"offset": "-4"}, "'a': external offset '-4' is no size"),
        ({"offset": "four"}, "is no size"),
    ],
)
def test_bad_references_are_refused(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        load(with_locations(tmp_path, **entries))
    assert "\n" not in str(caught.value)


def test_truncated_data_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    os.truncate(tmp_path / "m.onnx.data", 20_000)
    with pytest.raises(ModelError, match=r"'b': external data file 'm\.onnx\.data' holds 20000 bytes"):
        load(path)


def test_external_attributes_and_body_weights_are_kept(tmp_path: Path) -> None:
    """Only the main graph's weights are easy to reach; the rest must not dangle in the new place."""
    big = np.arange(512, dtype=np.float32)
    inner = numpy_helper.from_array(big * 2, "inner")
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["t"])], "then", [], [port("t", dims=(512,))], [inner]
    )
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [], [port("e", dims=(512,))])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(big, "k")),
        helper.make_node("Add", ["x", "k"], ["h"]),
        helper.make_node("If", ["c"], ["i"], then_branch=body, else_branch=other),
        helper.make_node("Add", ["h", "i"], ["y"]),
    ]
    inputs = [port("x", dims=(512,)), port("c", onnx.TensorProto.BOOL, ())]
    graph = helper.make_graph(nodes, "main", inputs, [port("y", dims=(512,))])
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wanted = fingerprint(from_proto(before))
    then = next(a.g for a in before.graph.node[2].attribute if a.name == "then_branch")
    stored = b""
    for target in (before.graph.node[0].attribute[0].t, then.initializer[0]):
        for key, value in (("location", "w"), ("offset", str(len(stored))), ("length", str(2048))):
            target.external_data.add(key=key, value=value)
        stored += target.raw_data
        target.ClearField("raw_data")
        target.data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "w").write_bytes(stored)
    (tmp_path / "old" / "m.onnx").write_bytes(before.SerializeToString())
    model = load(tmp_path / "old" / "m.onnx")
    assert fingerprint(model) == wanted
    for external_data in (None, False):
        save(model, tmp_path / "new" / "m.onnx", external_data=external_data)
        assert fingerprint(load(tmp_path / "new" / "m.onnx")) == wanted


def test_a_failed_save_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = parse(WEIGHTS, seed=1)

    def fail(*_: object, **__: object) -> onnx.ModelProto:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "to_proto", fail)
        for external_data in (True, False):
            with pytest.raises(KeyboardInterrupt):
                save(model, path, external_data=external_data)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert not any(isinstance(v.const_value, ExternalTensor) for v in model.graph.initializers.values())


def test_model_and_data_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two renames fails: the first is taken back."""
    path = external(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target == path:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(ModelError, match="Permission denied"):
            save(parse(WEIGHTS, seed=1), path, external_data=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    save(parse(WEIGHTS, seed=1), path, external_data=True)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert fingerprint(load(path)) == fingerprint(parse(WEIGHTS, seed=1))


def test_only_ordinary_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target, reason in (
        (tmp_path / "pipe", "no ordinary file"),
        (tmp_path, "no ordinary file"),
        (tmp_path / "no" / "m.onnx", "there is no folder"),
    ):
        with pytest.raises(ModelError, match=reason), atomic_write(target) as beside:
            beside.write_bytes(b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_too_large_for_one_message_goes_external(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_PROTO_BYTES", 20_000)
    save(parse(WEIGHTS), tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 1000


def test_external_weights_never_pass_through_memory(tmp_path: Path) -> None:
    """What holds for 64 MB holds for any size: the data goes from file to file."""
    import tracemalloc

    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 << 20)
    held = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1 << 14, 1 << 10])
    held.data_location = onnx.TensorProto.EXTERNAL
    held.external_data.add(key="location", value="big")
    nodes = [helper.make_node("Gather", ["w", "x"], ["y"])]
    inputs = [port("x", onnx.TensorProto.INT64, (1,))]
    graph = helper.make_graph(nodes, "g", inputs, [port("y", dims=(1, 1024))], [held])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    tracemalloc.start()
    save(load(tmp_path / "m.onnx"), tmp_path / "again.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "again.onnx.data").stat().st_size == 64 << 20
    assert peak < 4 << 20
