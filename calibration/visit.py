# SPDX-License-Identifier: Apache-2.0
"""Run a model over data and look at values inside it.

Values are marked as outputs in groups whose size for one feed stays within a budget; each group takes one
pass over the data. Each feed is run on one thread, several side by side, and looked at in order: onnxruntime
adds up in another order where several threads share an operator, and what is measured must not depend on how
many processors there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.cores import usable_cores
from ..analysis.evaluate import Evaluator, Feed
from ..graph_ir import DataError, Model, Value
from .data import Feeds

BUDGET = 256 << 20  # bytes of values kept at once
_PROBE = 64  # values of unknown size that are measured in one run

Progress = Callable[[int, "int | None"], None]


class UnobservableError(DataError):
    """A value inside the model cannot be measured (NaN, say), though the feed itself is fine."""


def visit(
    model: Model,
    feeds: Iterable[Feed],
    names: Sequence[str],
    action: Callable[[str, NDArray[Any]], None],
    *,
    budget: int = BUDGET,
    threads: int = 1,
    progress: Progress | None = None,
) -> int:
    """Call ``action(name, array)`` for each value and feed, group by group; the number of feeds.

    So many feeds as `threads` says are run side by side, as far as their values fit in the budget, and always
    one ahead of the action; 0 for one for each processor.

    Raises DataError as `collect` does; what `action` raises as DataError is told with sample and value.
    """
    if isinstance(feeds, Iterator):
        raise DataError("the feeds are an iterator, spent after one pass; give a list or open_feeds")
    first = next(iter(feeds), None)
    if first is None:
        raise DataError("there are no feeds to run the model on")
    parts = groups(model, list(dict.fromkeys(names)), first, budget)
    workers = threads or usable_cores()
    number = _number(feeds)
    samples: int | None = None
    for done, group in enumerate(parts):
        index, room = -1, budget // max(1, sum(group.values()))
        evaluator = Evaluator(model, outputs=list(group))
        with closing(_ahead(evaluator, feeds, max(1, min(workers, room)))) as runs:
            for index, found in enumerate(runs):
                for name in group:
                    try:
                        action(name, _tensor(found.pop(name)))
                    except DataError as error:
                        raise UnobservableError(f"sample {index}, value {name!r}: {error}") from error
                if progress is not None:
                    seen = (number or samples or 0) * done + index + 1
                    progress(seen, None if number is None else number * len(parts))
        if samples is not None and samples != index + 1:
            raise DataError(f"the data gave {samples} feeds in one pass and {index + 1} in the next")
        samples = index + 1
    return samples or 0


def _ahead(
    evaluator: Evaluator, feeds: Iterable[Feed], workers: int
) -> Generator[dict[str, NDArray[Any]], None, None]:
    """What each feed gives, in order, while the next ones run."""
    waiting: deque[Future[dict[str, NDArray[Any]]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for index, feed in enumerate(feeds):
            # The next feed may come in the same arrays, filled anew.
            held = {name: deepcopy(value) for name, value in feed.items()}
            waiting.append(pool.submit(evaluator.run, held, index=index, check=not isinstance(feeds, Feeds)))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _number(feeds: Iterable[Feed]) -> int | None:
    if isinstance(feeds, Feeds):
        return feeds.count
    return len(feeds) if isinstance(feeds, (list, tuple)) else None  # pyright: ignore[reportUnknownArgumentType]


def _tensor(found: object) -> NDArray[Any]:
    if not isinstance(found, np.ndarray):
        raise DataError("is no tensor; only tensors can be measured")
    return found  # pyright: ignore[reportUnknownVariableType]


def groups(model: Model, names: list[str], feed: Feed, budget: int) -> list[dict[str, int]]:
    """Names in order with their bytes for one feed, cut where these would pass the budget."""
    sizes = _sizes(model, names, feed)
    parts: list[dict[str, int]] = []
    room = 0
    for name in names:
        if not parts or sizes[name] > room:
            parts.append({})
            room = budget
        parts[-1][name] = sizes[name]
        room -= sizes[name]
    return parts


def _sizes(model: Model, names: list[str], feed: Feed) -> dict[str, int]:
    """Bytes of each value for one feed: from its shape where that is known, else measured."""
    symbols: dict[str, int] = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if value.shape is not None and name in feed:
            for dim, size in zip(value.shape, np.shape(feed[name]), strict=False):
                if not isinstance(dim, int) and dim.value is not None:
                    symbols[dim.value] = size
    values = {output.name: output for node in model.graph for output in node.outputs}
    sizes: dict[str, int] = {}
    unknown: list[str] = []
    for name in names:
        size = np.asarray(feed[name]).nbytes if name in feed else _static_size(values.get(name), symbols)
        if size is None:
            unknown.append(name)
        else:
            sizes[name] = size
    for start in range(0, len(unknown), _PROBE):
        found = Evaluator(model, outputs=unknown[start : start + _PROBE]).run(feed, index=0)
        sizes.update((name, np.asarray(array).nbytes) for name, array in found.items())
    return sizes


def _static_size(value: Value | None, symbols: Mapping[str, int]) -> int | None:
    if value is None or value.shape is None or value.dtype is None:
        return None
    extent: list[int] = []
    for dim in value.shape:
        size = dim if isinstance(dim, int) else symbols.get(dim.value or "")
        if size is None:
            return None
        extent.append(size)
    return int(prod(extent) * value.dtype.itemsize)
