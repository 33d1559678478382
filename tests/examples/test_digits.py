# SPDX-License-Identifier: Apache-2.0
"""The digits example as it is shipped: the model is as good, and its files as small, as its README says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def score() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_metric", DIGITS / "metric.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(DIGITS / "digits.onnx", providers=["CPUExecutionProvider"])


def test_the_model_reads_the_test_pictures(score: ModuleType, session: ort.InferenceSession) -> None:
    def run(feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return session.run(None, feed)

    assert score.metric(run) == pytest.approx(447 / 450, abs=1.5 / 450)


def test_a_model_that_always_says_zero_scores_one_in_ten(score: ModuleType) -> None:
    def zero(feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [np.eye(10, dtype=np.float32)[np.zeros(len(feed["image"]), dtype=int)]]

    assert 0.05 < score.metric(zero) < 0.15


def test_feeds_are_the_test_pictures_in_order(score: ModuleType, session: ort.InferenceSession) -> None:
    feeds = list(score.feeds())
    (asked,) = session.get_inputs()
    assert [set(feed) for feed in feeds] == [{asked.name}] * len(feeds)
    joined = np.concatenate([feed["image"] for feed in feeds])
    with np.load(DIGITS / "test.npz") as arrays:
        np.testing.assert_array_equal(joined, arrays["image"])
    assert joined.dtype == np.float32


def test_splits_share_no_picture_and_match_their_labels() -> None:
    with np.load(DIGITS / "calib.npz") as calib, np.load(DIGITS / "test.npz") as test:
        seen = {image.tobytes() for image in calib["image"]}
        judged = {image.tobytes() for image in test["image"]}
        sizes = {"calib": len(calib["image"]), "test": len(test["image"])}
    assert len(seen) == sizes["calib"]
    assert not seen & judged
    with np.load(DIGITS / "labels.npz") as labels:
        assert {name: len(labels[name]) for name in labels.files} == sizes
        assert {int(label) for label in labels["test"]} == set(range(10))


def test_the_model_leaves_the_optimizer_its_work() -> None:
    model = onnx.load(DIGITS / "digits.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("BatchNormalization") == kinds.count("Conv")
    assert {"Div", "Add", "ReduceMean", "Gemm"} <= set(kinds)
    assert any(a.name == "group" and a.i > 1 for node in model.graph.node for a in node.attribute)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_the_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in DIGITS.iterdir() if path.is_file()}
    assert sizes["digits.onnx"] < 1_000_000
    assert sum(sizes.values()) < 2_000_000
