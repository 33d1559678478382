# SPDX-License-Identifier: Apache-2.0
"""What a build writes: all of it or nothing, never over its input, every weight with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tersor.graph_ir import ModelError, UsageError, load, save
from tersor.pipeline.builder import BuildResult, flow, ship
from tests.support.building import FILES, default_run, hashes, quick
from tests.support.odd_models import conv_net, one_node, weight
from tests.support.user_code import HERE

X = {"x": weight(1, 3, 12, 12, seed=7)}


pytestmark = pytest.mark.usefixtures("work")


def external(folder: Path, name: str = "m.onnx", data: str = "weights.bin") -> Path:
    """A model whose weights lie in a file of their own, with an Identity to remove."""
    folder.mkdir(exist_ok=True)
    proto = conv_net()
    proto.graph.node[0].input[0] = "same"
    proto.graph.node.insert(0, onnx.helper.make_node("Identity", ["x"], ["same"]))
    onnx.save(proto, folder / name, save_as_external_data=True, location=data, size_threshold=0)
    return folder / name


def lock_of(result: BuildResult) -> Any:
    return json.loads((result.winner.path.parent / "build.lock.json").read_text(encoding="utf-8"))


def interrupt_at(stage: str) -> Callable[[str, int, int | None], None]:
    def tell(name: str, done: int, total: int | None) -> None:
        if name.startswith(stage):
            raise KeyboardInterrupt

    return tell


STAGES = ["opening", "lossless", "choosing ranges", "calibrating", "timing", "checking"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_leaves_nothing(tmp_path: Path, work: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        quick(conv_net(), tmp_path / "new" / "out", data="random", progress=interrupt_at(stage))
    assert not (tmp_path / "new").exists()
    assert not hashes(work)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of an earlier result of another model."""
    quick(one_node(), tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_leaves_an_earlier_result_alone(earlier: Path, work: Path, stage: str) -> None:
    before = hashes(earlier)
    assert sorted(before) == FILES
    with pytest.raises(KeyboardInterrupt):
        quick(conv_net(), earlier, data="random", progress=interrupt_at(stage))
    assert hashes(earlier) == before
    assert not hashes(work)


@pytest.mark.parametrize("step", ["write_report", "write_lock", "atomic_files"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_trouble_while_writing_leaves_everything_as_it_was(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Any
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = hashes(earlier)
    monkeypatch.setattr(ship, step, fail)
    for out in (earlier, tmp_path / "new" / "out"):
        with pytest.raises((KeyboardInterrupt, ModelError)) as told:
            quick(conv_net(), out)
        assert error is KeyboardInterrupt or str(told.value).endswith(
            f"cannot write into {str(out)!r}: No space left on device"
        )
    assert hashes(earlier) == before
    assert not (tmp_path / "new" / "out").exists()


def test_no_file_on_its_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, path: Path, **__: object) -> None:
        raise ModelError(f"cannot write {str(path)!r}: no")

    monkeypatch.setattr("tersor.backends.onnxruntime.config.SessionConfig.save", fail)
    with pytest.raises(ModelError) as told:
        quick(conv_net(), tmp_path / "out")
    assert str(told.value) == f"cannot write {str(tmp_path / 'out' / 'session.json')!r}: no"


def test_a_new_result_replaces_an_earlier_one(earlier: Path) -> None:
    before = hashes(earlier)
    (earlier / "mine.txt").write_text("kept")
    quick(conv_net(), earlier)
    after = hashes(earlier)
    assert sorted(after) == sorted([*FILES, "mine.txt"])
    assert all(after[name] != before[name] for name in ("model.onnx", "report.json", "build.lock.json"))


def test_weights_in_another_file_come_along(tmp_path: Path) -> None:
    model = external(tmp_path / "in")
    before = hashes(tmp_path / "in")
    result = quick(model, tmp_path / "out")
    assert sorted(hashes(tmp_path / "out")) == sorted([*FILES, "model.onnx.data"])
    assert hashes(tmp_path / "in") == before
    want = default_run(model, X)[0]
    model.with_name("weights.bin").unlink()
    np.testing.assert_allclose(default_run(result.winner.path, X)[0], want, rtol=1e-5, atol=1e-6)


def test_sizes_and_hashes_count_every_file(tmp_path: Path) -> None:
    model = external(tmp_path / "in")
    result = quick(model, tmp_path / "out")
    sizes = {
        path.name: path.stat().st_size for path in (*model.parent.iterdir(), *(tmp_path / "out").iterdir())
    }
    assert result.facts["original"].size == sizes["m.onnx"] + sizes["weights.bin"]
    assert result.facts["float"].size == sizes["model.onnx"] + sizes["model.onnx.data"]
    data = bytearray((tmp_path / "in" / "weights.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "in" / "weights.bin").write_bytes(data)
    other = quick(model, tmp_path / "other")
    assert lock_of(result)["model"] != lock_of(other)["model"]
    assert lock_of(result)["result"] != lock_of(other)["result"]


def test_an_original_with_external_weights_is_shipped_whole(tmp_path: Path) -> None:
    model = external(tmp_path / "in")
    result = quick(model, tmp_path / "out", metric=f"{HERE}:picture_as_it_was_once", max_drop=0.0)
    assert result.winner.name == "original"
    np.testing.assert_array_equal(default_run(result.winner.path, X)[0], default_run(model, X)[0])


def test_stale_weights_of_an_earlier_result_go(tmp_path: Path) -> None:
    quick(external(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx.data").exists()
    quick(one_node(), tmp_path / "out")
    assert sorted(hashes(tmp_path / "out")) == FILES


def test_the_hash_of_the_lock_changes_with_the_model(tmp_path: Path) -> None:
    first, second = quick(conv_net(), tmp_path / "a"), quick(conv_net(opset=18), tmp_path / "b")
    again = quick(conv_net(), tmp_path / "c")
    assert lock_of(first)["model"]["blake2b"] != lock_of(second)["model"]["blake2b"]
    assert lock_of(first)["model"]["blake2b"] == lock_of(again)["model"]["blake2b"]
    assert lock_of(first)["code"] == lock_of(second)["code"]


def refused(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build refuses before it has looked for anything."""
    before = hashes(model.parent)

    def search(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(flow, "_search", search)
    with pytest.raises(
        ModelError, match="is the input itself, which is never touched; choose another folder"
    ):
        quick(model, out)
    assert hashes(model.parent) == before


def test_the_input_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    onnx.save(conv_net(), tmp_path / "m" / "model.onnx")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    refused(tmp_path / "m" / "model.onnx", tmp_path / "m", monkeypatch)
    refused(tmp_path / "m" / "model.onnx", tmp_path / "link", monkeypatch)


def test_the_weights_of_the_input_are_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(external(tmp_path / "m", data="model.onnx.data"), tmp_path / "m", monkeypatch)


def test_a_model_of_another_name_may_lie_in_the_folder(tmp_path: Path) -> None:
    model = external(tmp_path / "m")
    before = hashes(tmp_path / "m")
    quick(model, tmp_path / "m")
    after = hashes(tmp_path / "m")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {*FILES, "model.onnx.data"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, message in (
        ("file", "is a file; -o names a folder"),
        ("file/out", "cannot be made: .* is a file"),
    ):
        with pytest.raises(UsageError, match=message):
            quick(conv_net(), tmp_path / out)


def test_a_text_form_is_built_like_the_model_it_holds(tmp_path: Path) -> None:
    onnx.save(conv_net(), tmp_path / "m.onnx")
    save(load(tmp_path / "m.onnx"), tmp_path / "m.textproto")
    result = quick(tmp_path / "m.textproto", tmp_path / "out")
    want = default_run(tmp_path / "m.onnx", X)[0]
    np.testing.assert_allclose(default_run(result.winner.path, X)[0], want, rtol=1e-5, atol=1e-6)
