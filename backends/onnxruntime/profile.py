# SPDX-License-Identifier: Apache-2.0
"""Time per source node: the runtime's profiler, its kernels charged to the nodes they stand for.

The model is optimized once, each kernel of the result gets a number for a name, and that graph runs as it
is under the profiler. So every event finds its kernel, whatever the runtime had called it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

from ...graph_ir.errors import DataError
from ..base import BackendError, Feed, Profile, ProfileRow
from .config import SessionConfig
from .graph_view import DQ, Q
from .optimized import Optimized, optimized_with_sources
from .runtime import one_line_errors
from .session import make_session, session_options
from .source import ModelSource, loadable

_DEFAULT = SessionConfig()
_EVENT = re.compile(r"^tersor_kernel_(\d+)_kernel_time$")
CONTAINERS = frozenset({"If", "Loop", "Scan"})  # their time is that of the kernels within, counted there


def profile(
    source: ModelSource,
    feeds: Sequence[Feed],
    config: SessionConfig = _DEFAULT,
    *,
    runs: int = 20,
    warmup: int = 2,
    threads: int = 1,
    origins: Mapping[str, Iterable[str]] | None = None,
) -> Profile:
    """Run the model under onnxruntime's profiler and charge the time to its nodes.

    Args:
        source: path, bytes or proto.
        feeds: cycled through, one per run.
        config: the session's options.
        runs: measured runs.
        warmup: runs before these, which do not count.
        threads: intra-op threads; 0 for all cores.
        origins: further back: names of original nodes by node name (provenance). Without it, origins that the
            model's own node metadata carries are used.

    Returns:
        Rows by falling time: per group of source nodes and kernel operator, the median over the runs of the
        time in microseconds per run. Q and DQ are named only where a kernel stands for nothing else.

    Raises:
        DataError: no feeds.
        BackendError: onnxruntime refuses the model or a feed.
    """
    with optimized_with_sources(source, config) as optimized:
        measured = run_times(optimized, feeds, config, runs=runs, warmup=warmup, threads=threads)
        return _rows(optimized, measured, origins or optimized.origins)


def run_times(
    optimized: Optimized,
    feeds: Sequence[Feed],
    config: SessionConfig = _DEFAULT,
    *,
    runs: int = 20,
    warmup: int = 2,
    threads: int = 1,
) -> list[dict[int, list[float]]]:
    """For each run, the times in microseconds of each kernel, by its place in `optimized.kernels`.

    The kernels' names in `optimized.proto` are replaced. Other arguments and errors: see `profile`.
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


def _rows(
    optimized: Optimized, runs: Sequence[dict[int, list[float]]], origins: Mapping[str, Iterable[str]]
) -> Profile:
    groups: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for number, kernel in enumerate(optimized.kernels):
        if kernel.node.op_type not in CONTAINERS:
            names = _names(optimized, kernel.sources, origins)
            groups.setdefault((names, kernel.node.op_type), []).append(number)
    measured: list[tuple[tuple[str, ...], str, float, int]] = []
    for (names, op_type), numbers in groups.items():
        times = [[t for number in numbers for t in run.get(number, ())] for run in runs]
        calls = round(median(len(found) for found in times))
        if calls:
            measured.append((names, op_type, median(sum(found) for found in times), calls))
    total = sum(time for _, _, time, _ in measured)
    rows = [
        ProfileRow(names, op_type, time, time / total if total else 0.0, calls)
        for names, op_type, time, calls in sorted(measured, key=lambda row: (-row[2], row[0], row[1]))
    ]
    return Profile(tuple(rows), total, len(runs))


def _names(
    optimized: Optimized, sources: Sequence[int], origins: Mapping[str, Iterable[str]]
) -> tuple[str, ...]:
    items = [optimized.sources[index] for index in sources]
    core = [item for item in items if item.node.op_type not in {Q, DQ}] or items
    return tuple(dict.fromkeys(name for item in core for name in origins.get(item.label, (item.label,))))
