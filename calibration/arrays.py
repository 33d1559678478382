# SPDX-License-Identifier: Apache-2.0
"""Samples from .npz and .npy files, read row by row so that no array is ever in memory whole.

Axis 0 of an array counts samples. An array with the rank of its input is cut along axis 0 into pieces as long
as the input's first dimension when that is fixed, else of one row; rows that fill no piece are left out.
An array of one rank more holds one whole input per row. An array of rank 0 is given to every sample.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..analysis.input_types import check_dtype
from ..graph_ir import DataError, Signature

_Array = NDArray[Any]


@dataclass(frozen=True)
class _Plan:
    """How one stored array becomes pieces: `rows` of axis 0 each, that axis kept or dropped."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: int
    keep: bool
    pieces: int | None  # None: the same for every sample


def plan_file(path: Path, signature: Signature) -> tuple[int, list[tuple[str, int]]]:
    """Check the headers of a file against the signature.

    Returns:
        The number of feeds it holds; name and rows of each array that is cut along axis 0.

    Raises:
        DataError: not a numpy file, an array missing or not wanted, of wrong type or shape, or of another
            number of samples than its neighbours.
    """
    plans = _plans(path, signature)
    cut = [(plan.name, plan.shape[0]) for plan in plans if plan.keep and plan.pieces is not None]
    return _samples(path, plans), cut


def read_file(path: Path, signature: Signature) -> Iterator[dict[str, _Array]]:
    """The feeds of one file, in order. Raises DataError as `plan_file` does, and for damaged data."""
    plans = _plans(path, signature)
    count = _samples(path, plans)
    try:
        with ExitStack() as stack:
            streams = {plan.name: stack.enter_context(_member(path, plan.name)) for plan in plans}
            readers = {plan.name: _pieces(plan, streams[plan.name]) for plan in plans}
            for _ in range(count):
                yield {name: next(reader) for name, reader in readers.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}") from error


def _samples(path: Path, plans: list[_Plan]) -> int:
    counted = [plan for plan in plans if plan.pieces is not None]
    if not counted:
        return 1
    first = counted[0]
    for plan in counted:
        if plan.pieces != first.pieces:
            raise DataError(
                f"{str(path)!r}: {first.name!r} has {first.pieces} samples on axis 0, "
                f"{plan.name!r} {plan.pieces}"
            )
    return first.pieces or 0


def _plans(path: Path, signature: Signature) -> list[_Plan]:
    wanted = {name: (kind, dims) for name, kind, dims in signature.inputs}
    headers = _headers(path, list(wanted))
    for name in wanted:
        if name not in headers:
            have = ", ".join(headers) or "none"
            raise DataError(f"{str(path)!r} has no array {name!r}; it has {have}")
    for name in headers:
        if name not in wanted:
            raise DataError(
                f"{str(path)!r} has an array {name!r}, which is no input; the model takes {', '.join(wanted)}"
            )
    plans = [_plan(path, name, *headers[name], *wanted[name]) for name in wanted]
    _refuse_torn(path, plans, {name: dims or () for name, (_, dims) in wanted.items()})
    return plans


def _refuse_torn(path: Path, plans: list[_Plan], dims: dict[str, tuple[int | str | None, ...]]) -> None:
    """Refuse to cut an array along an axis whose size, by its symbol, is that of an axis that stays whole.

    A symbol that stands twice in one shape is not believed: some exporters have one for all they do not know.
    """
    whole: dict[str, tuple[str, int]] = {}
    for plan in plans:
        shape = plan.shape[1:] if plan.keep else plan.shape[2:]
        for dim, size in zip(dims[plan.name][1:], shape, strict=False):
            if isinstance(dim, str) and dims[plan.name].count(dim) == 1:
                whole.setdefault(dim, (plan.name, size))
    for plan in plans:
        first = dims[plan.name][0] if dims[plan.name] else None
        if plan.keep and plan.pieces and isinstance(first, str) and dims[plan.name].count(first) == 1:
            other, size = whole.get(first, ("", 1))
            if size == plan.shape[0] > 1:
                raise DataError(
                    f"{str(path)!r}, array {plan.name!r}: axis 0 is {first!r} in the model, of which "
                    f"{other!r} has {size} in each sample, so it counts no samples; store [samples, "
                    f"{_text(dims[plan.name])[1:]}"
                )


def _plan(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    kind: str,
    dims: tuple[int | str | None, ...] | None,
) -> _Plan:
    where = f"{str(path)!r}, array {name!r}"
    check_dtype(where, dtype, kind)
    if not shape:
        if dims:
            raise DataError(f"{where}: a single number, the model takes {_text(dims)}")
        return _Plan(name, dtype, shape, 1, True, None)
    keep = dims is None or len(shape) == len(dims)
    if dims is not None:
        inner = dims[1:] if keep else dims
        if not _agree(inner, shape[1:]):
            mend = _alone(shape, dims) or _transposed(shape, dims)
            raise DataError(
                f"{where}: shape {list(shape)}, the model takes {_text(dims)} for each sample{mend}"
            )
    rows = dims[0] if dims and keep and isinstance(dims[0], int) else 1
    if shape[0] < rows:
        raise DataError(f"{where}: {shape[0]} samples, the model takes {rows} at once")
    return _Plan(name, dtype, shape, rows, keep, shape[0] // rows if rows else 0)


def _agree(dims: Sequence[int | str | None], shape: Sequence[int]) -> bool:
    """Whether an array may have this shape: as many axes, and the sizes that are known."""
    return len(dims) == len(shape) and all(
        not isinstance(d, int) or d == s for d, s in zip(dims, shape, strict=True)
    )


def _alone(shape: tuple[int, ...], dims: tuple[int | str | None, ...]) -> str:
    """How to put a sample that lacks the axis of samples; nothing where that is not it."""
    return "; axis 0 counts samples: save array[None]" if _agree(dims[1:], shape) else ""


def _transposed(shape: tuple[int, ...], dims: tuple[int | str | None, ...]) -> str:
    """How to put pictures whose channels lie at the wrong end; nothing where that is not it."""
    if len(shape) != 4 or len(dims) != 4:
        return ""
    for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
        moved = [shape[axis] for axis in order]
        if _agree(dims[1:], moved[1:]):
            return f"; .transpose{order} makes it fit"
    return ""


def _text(dims: tuple[int | str | None, ...]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def _headers(path: Path, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array by name, without reading data."""
    try:
        if path.suffix == ".npy":
            if len(inputs) != 1:
                raise DataError(
                    f"{str(path)!r} holds one array, the model takes {', '.join(inputs)}; use .npz"
                )
            with path.open("rb") as stream:
                return {inputs[0]: _header(path, stream)[:2]}
        with zipfile.ZipFile(path) as archive:
            found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
            for member in archive.namelist():
                with archive.open(member) as stream:
                    found[member.removesuffix(".npy")] = _header(path, stream)[:2]
            return found
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{str(path)!r} is not a numpy {path.suffix} file, or is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type, and whether the first axis runs fastest; leaves the stream at the data."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = npy.read_array_header_2_0(stream)
    if dtype.hasobject:
        raise DataError(f"{str(path)!r} holds Python objects; save plain arrays")
    return tuple(shape), dtype, bool(fortran)


def _member(path: Path, name: str) -> IO[bytes]:
    if path.suffix == ".npy":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    member = name + ".npy" if name + ".npy" in archive.namelist() else name
    stream = archive.open(member)
    archive.close()  # the open member keeps the file
    return stream


def _pieces(plan: _Plan, stream: IO[bytes]) -> Iterator[_Array]:
    _, _, fortran = _header(Path(plan.name), stream)
    if plan.pieces is None or (fortran and len(plan.shape) > 1):
        whole = np.frombuffer(_exactly(stream, prod(plan.shape) * plan.dtype.itemsize), plan.dtype)
        array = whole.reshape(plan.shape, order="F" if fortran else "C")
        yield from _cut(plan, array)
        return
    row = plan.shape[1:]
    size = plan.rows * prod(row) * plan.dtype.itemsize
    for _ in range(plan.pieces):
        piece = np.frombuffer(_exactly(stream, size), plan.dtype).reshape(plan.rows, *row)
        yield piece if plan.keep else piece.reshape(row)


def _cut(plan: _Plan, array: _Array) -> Iterator[_Array]:
    if plan.pieces is None:
        while True:
            yield array
    for k in range(plan.pieces):
        piece = np.ascontiguousarray(array[k * plan.rows : (k + 1) * plan.rows])
        yield piece if plan.keep else piece.reshape(plan.shape[1:])


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the data ends early")
    return data
