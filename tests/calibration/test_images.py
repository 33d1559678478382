# SPDX-License-Identifier: Apache-2.0
"""Pictures as feeds, against the arithmetic written out in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tersor.calibration import Preprocess, open_feeds
from tersor.calibration import images as images_module
from tersor.graph_ir import DataError, Signature, UsageError


def signature(kind: str = "FLOAT", dims: tuple[int | str, ...] = ("N", 3, 4, 6)) -> Signature:
    return Signature((("x", kind, dims),), (), ())


def picture(folder: Path, height: int = 4, width: int = 6, name: str = "a.png") -> NDArray[Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return pixels.astype(np.float32)


def chw(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(pixels, 2, 0)


def only(folder: Path, how: Preprocess, what: Signature) -> NDArray[Any]:
    (feed,) = open_feeds(folder, what, preprocess=how)
    return feed["x"]


def test_layout_order_mean_and_std(tmp_path: Path) -> None:
    pixels = picture(tmp_path)
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    got = only(tmp_path, Preprocess(mean=mean, std=std, scale=0.5), signature())
    expected = chw((pixels * 0.5 - mean) / std)[None].astype(np.float32)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert got.flags.c_contiguous
    got = only(tmp_path, Preprocess(order="bgr", layout="nhwc"), signature(dims=(1, 4, 6, 3)))
    np.testing.assert_array_equal(got[0], pixels[:, :, ::-1])
    gray = only(tmp_path, Preprocess(order="gray"), signature(dims=(1, 1, 4, 6)))
    assert np.abs(gray[0, 0] - pixels @ np.array([0.299, 0.587, 0.114], np.float32)).max() <= 1


def test_integer_inputs(tmp_path: Path) -> None:
    pixels = picture(tmp_path)
    got = only(tmp_path, Preprocess(layout="nhwc"), signature("UINT8", (1, 4, 6, 3)))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], pixels)


def test_sizes(tmp_path: Path) -> None:
    pixels = picture(tmp_path, 8, 12)
    assert only(tmp_path, Preprocess(), signature()).shape == (1, 3, 4, 6)  # the model's own size
    free = signature(dims=("N", 3, "h", "w"))
    assert only(tmp_path, Preprocess(), free).shape == (1, 3, 8, 12)
    np.testing.assert_array_equal(only(tmp_path, Preprocess(crop=(2, 4)), free)[0], chw(pixels[3:5, 4:8]))
    cover = only(tmp_path, Preprocess(size=(8, 8), resize="cover"), free)
    np.testing.assert_array_equal(cover[0], chw(pixels[:, 2:10]))
    pad = only(tmp_path, Preprocess(size=(12, 12), resize="pad"), free)
    np.testing.assert_array_equal(pad[0, :, 2:10], chw(pixels))
    assert not pad[0, :, :2].any()
    assert not pad[0, :, 10:].any()
    assert only(tmp_path, Preprocess(size=(5, 7), filter="bicubic"), free).shape == (1, 3, 5, 7)


def test_order_of_files_and_digest(tmp_path: Path) -> None:
    picture(tmp_path, name="b.PNG")
    Image.new("RGB", (6, 4), (9, 9, 9)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a,1")
    feeds = open_feeds(tmp_path, signature(), preprocess=Preprocess())
    assert len(feeds) == 2
    assert (next(iter(feeds))["x"] == 9).all()
    assert feeds.digest() != open_feeds(tmp_path, signature(), preprocess=Preprocess(mean=1.0)).digest()


def test_a_section_of_a_recipe() -> None:
    how = Preprocess.of({"size": [4, 6], "mean": [1, 2, 3], "std": 2.0, "order": "bgr"})
    assert how == Preprocess(size=(4, 6), mean=(1, 2, 3), std=2.0, order="bgr")
    for wrong in (
        {"sizes": [1, 2]},
        {"order": "brg"},
        {"mean": [1, 2]},
        {"std": 0.0},
        {"size": [4]},
        {"crop": [0, 4]},
        {"size": "224"},
        {"size": [True, 224]},
        {"size": [224.5, 224]},
        {"scale": "big"},
        {"scale": True},
        {"mean": [0.5, True, 0.5]},
        {"scale": [1, 1, 1]},
        {"std": float("inf")},
        {"input": 3},
    ):
        with pytest.raises(UsageError, match="preprocess"):
            Preprocess.of(wrong)
    with pytest.raises(UsageError, match=r"^preprocess: size 224 is not a height and a width: \[224, 224\]$"):
        Preprocess.of({"size": 224})


def test_wrong_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path)
    with pytest.raises(DataError, match="preprocess section"):
        open_feeds(tmp_path, signature())
    with pytest.raises(DataError, match="shape"):
        list(open_feeds(tmp_path, signature(), preprocess=Preprocess(layout="nhwc", size=(4, 6))))
    with pytest.raises(DataError, match="no input 'y'"):
        open_feeds(tmp_path, signature(), preprocess=Preprocess(input="y"))
    two = Signature((("x", "FLOAT", (1, 3, 4, 6)), ("y", "FLOAT", (1,))), (), ())
    with pytest.raises(DataError, match="one input"):
        open_feeds(tmp_path, two, preprocess=Preprocess(input="x"))
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="not a picture"):
        list(open_feeds(tmp_path, signature(), preprocess=Preprocess()))
    with pytest.raises(UsageError, match="nothing to do"):
        open_feeds("random", signature(), preprocess=Preprocess())

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(images_module.importlib, "import_module", missing)
    with pytest.raises(UsageError, match="tersor\\[images\\]"):
        open_feeds(tmp_path, signature(), preprocess=Preprocess())
