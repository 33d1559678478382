# SPDX-License-Identifier: Apache-2.0
"""Feeds to calibrate and measure with: lazily loaded, checked, and the same on each pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.evaluate import check_feed
from ..analysis.input_types import input_dtype
from ..graph_ir import DataError, Model, Signature, UsageError, a_kind, signature_of
from .arrays import plan_file, read_file
from .axes import cut_notes, free_sizes, not_samples
from .functions import load_function, names_function, user_code
from .images import SUFFIXES, Preprocess, read_picture, require_pillow

Feed = dict[str, NDArray[Any]]

RANDOM_COUNT = 8  # feeds of `random`


@dataclass(frozen=True)
class Feeds:
    """A collection of feeds that can be gone through any number of times; only one feed is in memory at once.

    Attributes:
        source: what was asked for, for messages and lock files.
        signature: each feed is checked against it as it comes.
        count: number of feeds when it is known without going through them.
        notes: what is to be said of how arrays were cut into samples.
    """

    source: str
    signature: Signature
    count: int | None
    make: Callable[[], Iterable[Mapping[str, Any]]]
    hashing: Callable[[], bytes] | None = None
    limit: int | None = None
    notes: tuple[str, ...] = ()
    # The digest of the first feed, once there was a pass.
    _first: list[str] = field(default_factory=list[str], repr=False)

    def __iter__(self) -> Iterator[Feed]:
        index = -1
        for index, feed in enumerate(self.make()):
            if index == self.limit:
                break
            if not isinstance(feed, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DataError(
                    f"{self.source}: sample {index} is {a_kind(feed)}, not a dict of input name to array"
                )
            try:
                check_feed(self.signature, feed, index)
            except DataError as error:
                raise DataError(f"{self.source}: {error}") from error
            if index == 0:
                self._same(feed)
            yield dict(feed)
        if index < 0:
            raise DataError(f"{self.source} gives no samples")

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError(f"the number of feeds of {self.source} is not known without going through them")
        return self.count

    def _same(self, feed: Mapping[str, NDArray[Any]]) -> None:
        total = hashlib.blake2b(digest_size=16)
        add_feed(total, feed)
        if not self._first:
            self._first.append(total.hexdigest())
        if total.hexdigest() != self._first[0]:
            raise DataError(
                f"{self.source} gives other samples each time it is gone through; seed what is drawn"
            )

    def digest(self) -> str:
        """32 hex digits over the content: of the files where it comes from files, else of every feed."""
        total = hashlib.blake2b(digest_size=16)
        total.update(repr(self.limit).encode())
        if self.hashing is not None:
            total.update(self.hashing())
        else:
            for feed in self:
                add_feed(total, feed)
        return total.hexdigest()


def add_feed(total: hashlib.blake2b, feed: Mapping[str, NDArray[Any]]) -> None:
    """Hash the content of a feed; of texts what they say, not where they lie."""
    for name in sorted(feed):
        array = np.asarray(feed[name])
        total.update(f"{name}:{array.dtype}:{array.shape}".encode())
        if array.dtype.hasobject:
            total.update(repr(array.ravel().tolist()).encode(errors="surrogatepass"))
        else:
            total.update(np.ascontiguousarray(array).tobytes())


def open_feeds(
    spec: str | Path,
    model_inputs: Signature | Model,
    *,
    preprocess: Preprocess | None = None,
    limit: int | None = None,
) -> Feeds:
    """Feeds for a model.

    Args:
        spec: a .npz or .npy file, a folder of them or of pictures, ``module:function`` (called without
            arguments, returns an iterable of dicts), or ``random``, ``random:SEED``, ``random:SEED:COUNT``.
        model_inputs: the model, or its signature.
        preprocess: how pictures become inputs; needed for a folder of pictures and for nothing else.
        limit: use only the first this many feeds.

    Raises:
        DataError: when there is no such data or it does not fit the model. Names, types and shapes in files
            are checked here; NaN, infinities and what functions give when they are read.
        UsageError: when `spec` has no such form, or an option does not go with it.
    """
    signature = signature_of(model_inputs) if isinstance(model_inputs, Model) else model_inputs
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} feeds leaves none")
    text = str(spec)
    if not text.strip():
        raise UsageError("data is empty; give a file, a folder, module:function or random")
    path = Path(spec)
    if preprocess is not None and not (path.is_dir() and _pictures(path)):
        raise UsageError(f"{text!r} is no folder of pictures; a preprocessing section has nothing to do")
    if text == "random" or text.startswith("random:"):
        feeds = _random(text, signature)
    elif path.is_dir():
        feeds = _folder(path, signature, preprocess, not_samples(model_inputs))
    elif path.exists():
        feeds = _files(text, [path], signature, not_samples(model_inputs))
    elif names_function(text):
        feeds = _function(text, signature)
    else:
        raise DataError(f"no data at {text!r}; give a .npz, a folder, module:function, or random by name")
    if limit is None:
        return feeds
    count = None if feeds.count is None else min(limit, feeds.count)
    return replace(feeds, count=count, limit=limit)


def _files(source: str, paths: list[Path], signature: Signature, unlike: dict[str, str]) -> Feeds:
    for path in paths:
        if path.suffix not in (".npz", ".npy"):
            raise DataError(f"{str(path)!r} is no data file; give a .npz or .npy file, or a folder of them")
    plans = [plan_file(path, signature) for path in paths]
    count = sum(feeds for feeds, _ in plans)
    if count == 0:
        raise DataError(f"{source!r} holds no samples")

    def make() -> Iterator[Feed]:
        for path in paths:
            yield from read_file(path, signature)

    notes = cut_notes(signature, [cut for _, cuts in plans for cut in cuts], unlike)
    return Feeds(source, signature, count, make, lambda: _hash_files(paths), notes=tuple(notes))


def _folder(
    folder: Path, signature: Signature, preprocess: Preprocess | None, unlike: dict[str, str]
) -> Feeds:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    kinds = {kind: [p for p in files if p.suffix == kind] for kind in (".npz", ".npy")}
    kinds["pictures"] = _pictures(folder)
    present = [kind for kind, paths in kinds.items() if paths]
    if not present:
        raise DataError(f"{str(folder)!r} holds no .npz, .npy or picture files")
    if len(present) > 1:
        raise DataError(f"{str(folder)!r} holds {' and '.join(present)}; keep one kind in a folder")
    if present != ["pictures"]:
        return _files(str(folder), kinds[present[0]], signature, unlike)
    require_pillow()
    if preprocess is None:
        raise DataError(f"{str(folder)!r} holds pictures; say in a preprocess section how they become inputs")
    paths, how = kinds["pictures"], preprocess.fitted(signature)
    kind = signature.inputs[0][1]

    def make() -> Iterator[Feed]:
        for path in paths:
            yield {how.input: read_picture(path, how, kind)}

    return Feeds(str(folder), signature, len(paths), make, lambda: _hash_files(paths) + repr(how).encode())


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _hash_files(paths: list[Path]) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}:{path.stat().st_size}:".encode())
            while block := file.read(1 << 20):
                total.update(block)
    return total.digest()


def _function(text: str, signature: Signature) -> Feeds:
    function = load_function(text)
    with user_code(text):
        given = function()
    first = _iterable(text, given)
    with user_code(text):
        is_spent = iter(first) is first
    count = len(first) if isinstance(first, (list, tuple)) else None  # pyright: ignore[reportUnknownArgumentType]
    if not is_spent:
        return Feeds(text, signature, count, lambda: _guarded(text, first))

    def again() -> Iterator[Mapping[str, Any]]:
        # A generator is spent by one pass: ask for a new one each time.
        with user_code(text):
            given = function()
        if given is first:
            raise DataError(
                f"{text} returns the same {type(first).__name__} on each call, which one pass spends; "
                "make a new one in the function"
            )
        return _guarded(text, _iterable(text, given))

    return Feeds(text, signature, None, again)


def _guarded(text: str, items: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The items; what a user's iterable raises names the function."""
    with user_code(text):
        iterator = iter(items)
    while True:
        with user_code(text):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _iterable(text: str, given: object) -> Iterable[Mapping[str, Any]]:
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping, np.ndarray)):
        kind = a_kind(given)  # pyright: ignore[reportUnknownArgumentType]
        raise DataError(f"{text} returned {kind}, not an iterable of dicts of input name to array")
    return given  # pyright: ignore[reportUnknownVariableType]


def _random(text: str, signature: Signature) -> Feeds:
    numbers = text.split(":")[1:]
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"{text!r}: write random, random:SEED or random:SEED:COUNT")
    seed = int(numbers[0]) if numbers else 0
    count = int(numbers[1]) if len(numbers) > 1 else RANDOM_COUNT
    if count < 1:
        raise UsageError(f"{text!r} asks for no feeds")

    def make() -> Iterator[Feed]:
        for index in range(count):
            yield random_feed(signature, (seed, index))

    return Feeds(text, signature, count, make)


def random_feed(signature: Signature, seed: int | tuple[int, ...]) -> Feed:
    """One feed drawn by seed: floats standard normal, integers and booleans 0 or 1 (good as ids and masks).

    Free dimensions are as `free_sizes` says. Raises DataError for inputs without a known rank, and those that
    are not numeric tensors.
    """
    generator = np.random.default_rng(seed)
    feed: Feed = {}
    sizes = free_sizes(signature)
    for name, kind, dims in signature.inputs:
        dtype = input_dtype(kind)
        if dtype is None:
            raise DataError(f"input {name!r} is a {kind}; tersor runs models on arrays only")
        if dims is None or dtype.hasobject:
            what = f"{kind} of unknown rank" if dims is None else kind
            raise DataError(f"input {name!r} ({what}) cannot be made up; give real data")
        shape = [d if isinstance(d, int) else sizes[d or f"?{name}.{axis}"] for axis, d in enumerate(dims)]
        if dtype.kind in "iub":
            feed[name] = generator.integers(0, 2, shape).astype(dtype)
        else:
            feed[name] = generator.standard_normal(shape, np.float32).astype(dtype)
    return feed
