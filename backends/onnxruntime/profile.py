# SPDX-License-Identifier: Apache-2.0
"""Time per kernel, by the runtime's profiler; `account` charges it to source nodes.

The model is optimized once, each kernel of the result gets a number for a name, and that graph runs as it
is under the profiler. So every event finds its kernel, whatever the runtime had called it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from ...graph_ir.errors import DataError
from ..base import BackendError, Feed
from .config import SessionConfig
from .optimized import Optimized
from .runtime import one_line_errors
from .session import make_session, session_options
from .source import loadable

_EVENT = re.compile(r"^tersor_kernel_(\d+)_kernel_time$")
CONTAINERS = frozenset({"If", "Loop", "Scan"})  # their time is that of the kernels within, counted there


def run_times(
    optimized: Optimized,
    feeds: Sequence[Feed],
    config: SessionConfig,
    *,
    runs: int,
    warmup: int,
    threads: int,
) -> list[dict[int, list[float]]]:
    """For each run, the times in microseconds of each kernel, by its place in `optimized.kernels`.

    The kernels' names in `optimized.proto` are replaced.

    Args:
        optimized: what runs.
        feeds: cycled through, one per run.
        config: the session's options.
        runs: measured runs.
        warmup: runs before these, which do not count.
        threads: intra-op threads; 0 for all cores.

    Raises:
        DataError: no feeds.
        BackendError: onnxruntime refuses the model or a feed.
    """
    if not feeds:
        raise DataError("a profile needs at least one feed")
    for number, kernel in enumerate(optimized.kernels):
        kernel.node.name = f"tersor_kernel_{number}"
    optimized.path.write_bytes(optimized.proto.SerializeToString())
    return _by_run(_events(optimized, feeds, config, warmup + runs, threads), warmup)


def _events(
    optimized: Optimized, feeds: Sequence[Feed], config: SessionConfig, runs: int, threads: int
) -> list[dict[str, Any]]:
    options = session_options(config, threads=threads, level="off")
    options.enable_profiling = True
    options.profile_file_prefix = str(optimized.path.parent / "profile")
    session = make_session(loadable(optimized.path), options, config)
    with one_line_errors("the profiled model failed"):
        for turn in range(runs):
            session.run(None, feeds[turn % len(feeds)])
        written = session.end_profiling()
    return cast("list[dict[str, Any]]", json.loads(Path(written).read_text(encoding="utf-8")))


def _by_run(events: Iterable[dict[str, Any]], warmup: int) -> list[dict[int, list[float]]]:
    runs: list[dict[int, list[float]]] = [{}]
    for event in events:
        if event.get("cat") == "Session" and event.get("name") == "model_run":
            runs.append({})
            continue
        found = _EVENT.match(str(event.get("name", "")))
        if found is not None and event.get("cat") == "Node":
            runs[-1].setdefault(int(found[1]), []).append(float(event["dur"]))
    runs = runs[warmup:-1]  # what follows the last run's end is empty
    if not runs:
        raise BackendError(
            "onnxruntime wrote no profile; its profiler stops at a million events, ask for fewer runs"
        )
    return runs
