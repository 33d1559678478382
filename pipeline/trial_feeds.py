# SPDX-License-Identifier: Apache-2.0
"""Feeds made from a model's signature to try passes on: seeded ordinary ones, and hostile ones.

Symbolic dimensions get small sizes, several in turn and odd ones among them, the same for the same symbol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..analysis.input_types import input_dtype
from ..graph_ir import Signature

Array: TypeAlias = NDArray[Any]
Feed: TypeAlias = Mapping[str, Array]

# Sizes of free dimensions: of a first axis (a batch, as a rule), and of any other.
SIZES = ((2, 33), (3, 7), (1, 1), (1, 64), (2, 2))
MAX_SIZES = 3  # how many of these pairs are used, the first ones the model runs with
TINY, DENORMAL, LARGE = 1e-30, 1e-40, 1e4
_HALF_TINY, _HALF_DENORMAL, _HALF_LARGE = 1e-4, 1e-7, 1e2


@dataclass(frozen=True)
class Trial:
    """A feed and its name; `hostile`: at the edge of floats, `extreme`: with infinities and NaN."""

    name: str
    feed: Feed
    hostile: bool = False
    extreme: bool = False


def ordinary(signature: Signature, seed: int) -> Iterator[Trial]:
    """Normal floats, integers from 0 to 3, booleans; one trial per size, or two when no size is free.

    Nothing when an input is not a tensor, or its rank is unknown.
    """
    if not feedable(signature):
        return
    free = any(not isinstance(d, int) for _, _, dims in signature.inputs for d in dims or ())
    for index, (batch, other) in enumerate(SIZES if free else SIZES[:2]):
        rng = np.random.default_rng([seed, index])
        name = f"random, free dimensions {batch} and {other}" if free else f"random {index + 1}"
        chosen: dict[str, int] = {}
        feed: dict[str, Array] = {}
        for key, kind, dims in signature.inputs:
            feed[key] = _normal(rng, kind, _shape(dims, batch, other, chosen))
        yield Trial(name, feed)


def hostile(like: Feed, seed: int) -> Iterator[Trial]:
    """Zeros, ones, large, tiny and denormal floats in the shapes of a feed the model runs with."""
    rng = np.random.default_rng([seed, len(SIZES)])
    for name in ("zeros", "ones", "large", "tiny", "denormal"):
        feed = {key: _edge(name, array, rng) for key, array in like.items()}
        if any(not np.array_equal(feed[key], like[key]) for key in like):
            yield Trial(name, feed, hostile=True)


def extreme(like: Feed, seed: int) -> Iterator[Trial]:
    """Negative zeros, infinities and NaN among ordinary floats: only a claim of equal bits covers those."""
    if not any(array.dtype.kind == "f" for array in like.values()):
        return
    rng = np.random.default_rng([seed, len(SIZES) + 1])
    special = np.array([-0.0, np.inf, -np.inf, np.nan])
    feed: dict[str, Array] = {}
    for key, array in like.items():
        feed[key] = array
        if array.dtype.kind == "f":
            mask = rng.random(array.shape) < 0.5
            feed[key] = np.where(mask, rng.choice(special, array.shape), array).astype(array.dtype)
    yield Trial("negative zero, infinity and NaN", feed, hostile=True, extreme=True)


def feedable(signature: Signature) -> bool:
    """Whether every input is a tensor of known rank."""
    return all(dims is not None and input_dtype(kind) is not None for _, kind, dims in signature.inputs)


def _shape(
    dims: tuple[int | str | None, ...] | None, batch: int, other: int, chosen: dict[str, int]
) -> tuple[int, ...]:
    """Fill in free dimensions; a symbol keeps the size of the place where it was met first."""
    found: list[int] = []
    for axis, dim in enumerate(dims or ()):
        size = other if axis else batch
        found.append(dim if isinstance(dim, int) else size if dim is None else chosen.setdefault(dim, size))
    return tuple(found)


def _normal(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    dtype = input_dtype(kind)
    assert dtype is not None
    if dtype.kind == "O":
        return rng.choice(np.array(["", "a", "b c"], dtype=object), shape)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind in "iu":
        return rng.integers(0, 4, shape).astype(dtype)
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def _edge(name: str, array: Array, rng: np.random.Generator) -> Array:
    if name in ("zeros", "ones"):
        if array.dtype.kind == "O":
            return array
        return np.full(array.shape, 0 if name == "zeros" else 1).astype(array.dtype)
    if array.dtype.kind != "f":
        return array
    half = array.dtype == np.float16
    scale = {
        "large": _HALF_LARGE if half else LARGE,
        "tiny": _HALF_TINY if half else TINY,
        "denormal": _HALF_DENORMAL if half else DENORMAL,
    }[name]
    return (rng.standard_normal(array.shape) * scale).astype(array.dtype)
