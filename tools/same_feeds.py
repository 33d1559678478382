# SPDX-License-Identifier: Apache-2.0
"""Several models on the same feeds: whether that can be, and what is wrong where it cannot."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph_ir import Model

    _Type = tuple[str, tuple[int | str | None, ...] | None]


def refuse_other_inputs(yardstick: Model, first: Path, *others: Path) -> None:
    """Refuse models that cannot run on one feed, as far as their signatures tell.

    Raises:
        DataError: naming the models, and each input that differs with what each has.
        ModelError: a file cannot be read.
    """
    from ..graph_ir import DataError, UnsupportedModelError, load, signature_of

    mine = signature_of(yardstick)
    wanted = {name: (kind, dims) for name, kind, dims in mine.inputs}
    for path in others:
        with suppress(UnsupportedModelError):  # what tersor cannot hold may run nonetheless
            theirs = signature_of(load(path))
            given = {name: (kind, dims) for name, kind, dims in theirs.inputs}
            lacking = [name for name in wanted if name not in given and name not in theirs.optional]
            added = [name for name in given if name not in wanted and name not in mine.optional]
            differing = [name for name in wanted if name in given and not _alike(wanted[name], given[name])]
            said = [
                *(f"{name!r} is in the first only" for name in lacking),
                *(f"{name!r} is in the second only" for name in added),
                *(f"{name!r} is {_typed(*wanted[name])} and {_typed(*given[name])}" for name in differing),
            ]
            if said:
                raise DataError(f"{str(first)!r} and {str(path)!r} take other inputs: {'; '.join(said)}")


def _alike(one: _Type, other: _Type) -> bool:
    """Whether an array may be of both types: where either leaves a size free, data decides."""
    (kind, dims), (other_kind, others) = one, other
    if kind != other_kind:
        return False
    if dims is None or others is None:
        return True
    return len(dims) == len(others) and all(
        a == b for a, b in zip(dims, others, strict=True) if isinstance(a, int) and isinstance(b, int)
    )


def _typed(kind: str, dims: tuple[int | str | None, ...] | None) -> str:
    """A type for people."""
    shape = "" if dims is None else f"[{', '.join('?' if d is None else str(d) for d in dims)}]"
    return f"{kind.lower()}{shape}"


@contextmanager
def in_words(*models: Path, drawn: bool = False) -> Generator[None]:
    """Where onnxruntime does not open one of the models, say what is wrong with its file, if that is known.

    Args:
        models: the files.
        drawn: whether the inputs are drawn at random, which a model may not run on.

    Raises:
        ModelError: a file is no model, or is truncated.
        BackendError: onnxruntime's own words.
    """
    from ..backends.base import BackendError
    from ..graph_ir import UnsupportedModelError, load
    from ..pipeline.explain import DRAWN_AT_RANDOM

    try:
        yield
    except BackendError as error:
        for path in models:
            with suppress(UnsupportedModelError):  # of such the runtime knows more
                load(path)
        if drawn and " failed: " in str(error):
            raise BackendError(f"{error}; {DRAWN_AT_RANDOM}") from error
        raise
