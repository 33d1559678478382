# SPDX-License-Identifier: Apache-2.0
"""Pictures as feeds: decode, resize, crop, normalise (needs Pillow, the extra ``images``)."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..analysis.input_types import input_dtype
from ..graph_ir import DataError, Signature, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_CHOICES = {
    "resize": ("stretch", "cover", "pad"),
    "filter": ("nearest", "bilinear", "bicubic"),
    "layout": ("nchw", "nhwc"),
    "order": ("rgb", "bgr", "gray"),
}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes one input: ``(pixels * scale - mean) / std`` with pixels from 0 to 255.

    Attributes:
        input: name of the input; may be empty when the model has one.
        size: height and width to resize to; None takes the model's when fixed, else keeps the picture's.
        resize: "stretch" both sides, "cover" `size` and cut what hangs over, or "pad" inside it with zeros.
        filter: "nearest", "bilinear" or "bicubic"; the last two smooth when shrinking.
        crop: height and width of the centre kept after resizing; None keeps all.
        layout: "nchw" or "nhwc".
        order: "rgb", "bgr" or "gray" (one channel).
        scale: factor on the pixels, for example 1/255.
        mean: one number, or one for each channel in the order given.
        std: likewise.
    """

    input: str = ""
    size: tuple[int, int] | None = None
    resize: str = "stretch"
    filter: str = "bilinear"
    crop: tuple[int, int] | None = None
    layout: str = "nchw"
    order: str = "rgb"
    scale: float = 1.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"preprocess: {name} {value!r} is not one of {', '.join(allowed)}")
        channels = 1 if self.order == "gray" else 3
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, tuple) and len(value) not in (1, channels):
                raise UsageError(f"preprocess: {name} has {len(value)} numbers for {channels} channels")
        _check_types(vars(self))
        if np.any(np.equal(self.std, 0)):
            raise UsageError("preprocess: std is 0")

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Preprocess:
        """From a table of a recipe; lists are taken as tuples. Raises UsageError for a wrong key or value."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in section:
            if key not in known:
                raise UsageError(f"preprocess: {key!r} is not known; there are {', '.join(known)}")
        listed = {
            key: tuple(cast("list[Any]", value)) for key, value in section.items() if isinstance(value, list)
        }
        options: dict[str, Any] = {**section, **listed}
        return cls(**options)

    def fitted(self, signature: Signature) -> Preprocess:
        """With `input` and `size` filled in from the model's signature.

        Raises:
            DataError: when the model has no such input, or has others besides.
        """
        names = [name for name, _, _ in signature.inputs]
        name = self.input or names[0]
        if name not in names:
            raise DataError(f"no input {self.input!r} for the pictures; the model has {', '.join(names)}")
        if len(names) > 1:
            raise DataError(f"pictures feed one input, the model has {', '.join(names)}; use .npz")
        dims = signature.inputs[0][2]
        size = self.size
        if size is None and self.crop is None and dims is not None and len(dims) == 4:
            height, width = dims[2:] if self.layout == "nchw" else dims[1:3]
            if isinstance(height, int) and isinstance(width, int):
                size = (height, width)
        return dataclasses.replace(self, input=name, size=size)


def _check_types(given: Mapping[str, Any]) -> None:
    """Refuse values of another kind than `Preprocess` takes, which a recipe may have.

    Raises:
        UsageError: naming the field.
    """
    if not isinstance(given["input"], str):
        raise UsageError(f"preprocess: input {given['input']!r} is not a name")
    for name in ("scale", "mean", "std"):
        value, listed = given[name], isinstance(given[name], tuple) and name != "scale"
        for each in value if listed else (value,):
            if type(each) not in (int, float) or not math.isfinite(each):
                raise UsageError(f"preprocess: {name} {value!r} is no number{' for each channel' * listed}")
    for name in ("size", "crop"):
        value = given[name]
        pair = isinstance(value, tuple) and [type(n) is int and n > 0 for n in cast("tuple[Any]", value)]
        if value is not None and pair != [True, True]:
            shown: object = list(cast("tuple[Any]", value)) if isinstance(value, tuple) else value
            raise UsageError(f"preprocess: {name} {shown!r} is not a height and a width: [224, 224]")


def require_pillow() -> None:
    """Raise UsageError with the mend when Pillow is missing."""
    try:
        importlib.import_module("PIL.Image")
    except ImportError as error:
        raise UsageError("a folder of pictures needs Pillow: pip install 'tersor[images]'") from error


def read_picture(path: Path, how: Preprocess, kind: str) -> NDArray[Any]:
    """One picture as an input with a batch axis of 1, in the dtype of signature type `kind`.

    Raises DataError when the file is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file:
            picture = Image.open(file).convert("L" if how.order == "gray" else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{str(path)!r} is not a picture, or is damaged: {error}") from error
    pixels: NDArray[Any] = np.asarray(_crop(_resize(picture, how), how.crop), np.float32)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if how.order == "bgr":
        pixels = pixels[:, :, ::-1]
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    values: NDArray[Any] = (pixels * np.float32(how.scale) - mean) / std
    if how.layout == "nchw":
        values = np.moveaxis(values, 2, 0)
    dtype: np.dtype[Any] = input_dtype(kind) or np.dtype(np.float32)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return np.ascontiguousarray(values[None], dtype)


def _resize(picture: Image.Image, how: Preprocess) -> Image.Image:
    from PIL import Image

    if how.size is None:
        return picture
    height, width = how.size
    sampling = Image.Resampling[how.filter.upper()]
    if how.resize == "stretch":
        return picture.resize((width, height), sampling)
    pick = max if how.resize == "cover" else min
    factor = pick(height / picture.height, width / picture.width)
    inner = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    scaled = picture.resize(inner, sampling)
    if how.resize == "cover":
        return _crop(scaled, how.size)
    canvas = Image.new(picture.mode, (width, height))
    canvas.paste(scaled, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def _crop(picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    if size is None:
        return picture
    height, width = size
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
