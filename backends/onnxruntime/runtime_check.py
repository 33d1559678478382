# SPDX-License-Identifier: Apache-2.0
"""Whether a model answers the same however it is called: N threads in a run, M callers at once.

A session may be called from many threads, and a service often does. The check compares every answer with
that of a single caller on a single thread, on one session that all callers share and on a session for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ...graph_ir.errors import DataError
from ..base import BackendError, Feed
from .config import SessionConfig
from .graph_view import DQ, quant_of, scopes_of
from .session import OrtSession
from .source import ModelSource, graph_proto

Run: TypeAlias = Callable[[Feed], "list[NDArray[Any]]"]
Mode: TypeAlias = Literal["shared", "separate"]

_DEFAULT = SessionConfig()
_KEPT, _KEPT_BYTES = 64, 2**24  # answers of a caller that wait to be compared


class MismatchError(BackendError):
    """An answer depends on how the model is called."""

    exit_code = 1


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may lie from the single-threaded one.

    Integer kernels are exact, and onnxruntime mostly splits work by output elements, so equal bits are
    usual. A float reduction that is split differently across threads rounds otherwise; where such a value
    is quantized afterwards, it may fall into the next step.

    Attributes:
        steps: quantization steps allowed, for integer outputs and for outputs in `step_of`.
        rounding: part of the output's largest magnitude allowed on other float outputs; at least 4 units in
            the last place of their type.
        step_of: size of one step by output name (see `output_steps`).
        noise_of: the same as `rounding` by output name, where more is allowed: what is quantized on the way
            falls into the next step for a rounding before it, and moves the outputs by less than the noise
            of quantization does.
    """

    steps: float = 1.0
    rounding: float = 1e-5
    step_of: Mapping[str, float] = field(default_factory=dict[str, float])
    noise_of: Mapping[str, float] = field(default_factory=dict[str, float])

    def excess(self, name: str, got: object, want: object) -> str:
        """What is wrong with an output; empty when it is close enough (NaN matches NaN).

        Sequences are compared item by item; what is neither that nor an array has to be equal.
        """
        if isinstance(got, list) and isinstance(want, list):
            left, right = cast("list[object]", got), cast("list[object]", want)
            if len(left) != len(right):
                return f"has {len(left)} items instead of {len(right)}"
            wrong = (self.excess(name, a, b) for a, b in zip(left, right, strict=True))
            return next((text for text in wrong if text), "")
        if isinstance(got, np.ndarray) and isinstance(want, np.ndarray):
            return self._array_excess(name, cast("NDArray[Any]", got), cast("NDArray[Any]", want))
        return "" if got == want else "differs"

    def _array_excess(self, name: str, got: NDArray[Any], want: NDArray[Any]) -> str:
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"is {got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
        if np.array_equal(got, want) or want.size == 0:
            return ""
        if want.dtype.kind not in "fiu":
            return "differs"
        a, b = got.astype(np.float64), want.astype(np.float64)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return "has NaN in other places"
        same = (a == b) | np.isnan(b)
        worst = float(np.max(np.abs(np.where(same, 0.0, a - np.where(same, 0.0, b)))))
        finite = b[np.isfinite(b)]
        scale = float(np.max(np.abs(finite))) if finite.size else 0.0
        if worst <= self.noise_of.get(name, 0.0) * scale:
            return ""
        step = 1.0 if want.dtype.kind in "iu" else self.step_of.get(name)
        if step is not None:
            limit = self.steps * step * (1 + 1e-6)
            return "" if worst <= limit else f"is off by {worst / step:.3g} quantization steps"
        rounding = max(self.rounding, 4 * float(np.finfo(want.dtype).eps))  # a few units of a half, say
        return "" if worst <= rounding * scale else f"is off by {worst:.3g} (largest value {scale:.3g})"


@dataclass(frozen=True)
class Concurrency:
    """How many runs a setting gives, and how long a caller waits.

    Attributes:
        mode: `shared` where all callers have one session, `separate` where each has its own.
        threads: of one run.
        callers: at once.
        runs: that were timed.
        runs_per_s: of all callers together.
        p50_ms: half of the runs were answered within.
        p99_ms: 99 of 100 were.
    """

    mode: Mode
    threads: int
    callers: int
    runs: int
    runs_per_s: float
    p50_ms: float
    p99_ms: float


def check_concurrency(
    source: ModelSource,
    feeds: Sequence[Feed],
    config: SessionConfig = _DEFAULT,
    *,
    threads: Sequence[int] = (1, 2),
    callers: Sequence[int] = (1, 4),
    modes: Sequence[Mode] = ("shared", "separate"),
    runs: int = 256,
    budget_s: float = 30.0,
    tolerance: Tolerance | None = None,
) -> list[Concurrency]:
    """Run the model in every setting and hold each answer against the single-threaded one.

    Args:
        source: path, bytes or proto.
        feeds: given out in turn, best two or more that differ, so that answers mixed up between callers are
            seen; the single-threaded answers are kept in memory.
        config: the session's options; threads do not spin while idle, for the callers share the cores.
        threads: intra-op threads to try.
        callers: numbers of concurrent callers to try.
        modes: one session for all callers, or one for each.
        runs: runs per setting, over all callers.
        budget_s: seconds for all settings together; each gets an equal share and then stops early.
        tolerance: by default one quantization step where the output is dequantized, else rounding.

    Raises:
        MismatchError: at the first answer beyond the tolerance.
        BackendError: the model is refused or fails.
        DataError: no feeds, or one that does not fit.
    """
    if not feeds:
        raise DataError("the runtime check needs at least one feed")
    limits = tolerance if tolerance is not None else Tolerance(step_of=output_steps(source))
    with OrtSession(source, config, threads=1, spinning=False) as reference:
        names = [port.name for port in reference.outputs]
        expected = [reference.run(feed) for feed in feeds]
    share = budget_s / max(1, len(modes) * len(threads) * len(callers))
    found: list[Concurrency] = []
    for mode, count in product(modes, threads):
        number = max(callers, default=1) if mode == "separate" else 1
        with ExitStack() as stack:
            sessions = [
                stack.enter_context(OrtSession(source, config, threads=count, spinning=False))
                for _ in range(number)
            ]
            for many in callers:
                runners = [sessions[i % number].run for i in range(many)]
                times, elapsed = call_concurrently(
                    runners, feeds, expected, names, runs=runs, budget_s=share, tolerance=limits,
                    title=f"{mode} session, {count} threads, {many} callers",
                )  # fmt: skip
                found.append(_summary(mode, count, many, times, elapsed))
    return found


def call_concurrently(
    runners: Sequence[Run],
    feeds: Sequence[Feed],
    expected: Sequence[Sequence[NDArray[Any]]],
    names: Sequence[str],
    *,
    runs: int,
    budget_s: float,
    tolerance: Tolerance,
    title: str = "concurrent callers",
) -> tuple[list[float], float]:
    """Call each runner from a thread of its own, all starting together; a wrong answer soon stops all.

    Answers are compared when the calls are over, or before where they are many or large.

    Returns:
        Seconds of every single call, and seconds from the common start to the last end, of which no caller
        spent any comparing.

    Raises:
        MismatchError: the first wrong answer, with the output's name.
        BackendError: what a runner raised.
    """
    start = threading.Barrier(len(runners))
    stop = threading.Event()

    def caller(which: int) -> tuple[float, float, list[float]]:
        times: list[float] = []
        kept: list[tuple[int, list[NDArray[Any]]]] = []
        size, comparing = 0, 0.0

        def compare() -> None:
            for index, answer in kept:
                _judge(answer, expected[index], names, tolerance, f"{title}, feed {index}")
            kept.clear()

        start.wait()
        begun = time.perf_counter()
        end = begun + budget_s
        try:
            for turn in range(which, runs, len(runners)):
                if stop.is_set() or (times and time.perf_counter() > end):
                    break
                index = turn % len(feeds)
                begin = time.perf_counter()
                answer = runners[which](feeds[index])
                times.append(time.perf_counter() - begin)
                kept.append((index, answer))
                size += sum(getattr(item, "nbytes", 0) for item in answer)  # none of a sequence
                if len(kept) == _KEPT or size > _KEPT_BYTES:
                    begin = time.perf_counter()
                    compare()
                    size, comparing = 0, comparing + time.perf_counter() - begin
            ended = time.perf_counter() - comparing
            compare()
        except BaseException:
            stop.set()
            raise
        return begun, ended, times

    with ThreadPoolExecutor(max_workers=len(runners)) as pool:
        futures = [pool.submit(caller, which) for which in range(len(runners))]
        done = [future.result() for future in futures]
    elapsed = max(end for _, end, _ in done) - min(begun for begun, _, _ in done)
    return [t for _, _, times in done for t in times], elapsed


def output_steps(source: ModelSource) -> dict[str, float]:
    """Size of a quantization step of each output that a DequantizeLinear with one constant scale makes."""
    proto, folder = graph_proto(source)
    main = scopes_of(proto, folder)[0]
    found: dict[str, float] = {}
    for name in main.outputs:
        maker = main.producer(name)
        if maker is not None and maker.op_type == DQ:
            scale = quant_of(main, maker).scale
            if scale is not None and scale.size == 1:
                found[name] = float(scale.reshape(-1)[0])
    return found


def _judge(
    answer: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    names: Sequence[str],
    tolerance: Tolerance,
    where: str,
) -> None:
    for name, got, want in zip(names, answer, expected, strict=True):
        wrong = tolerance.excess(name, got, want)
        if wrong:
            raise MismatchError(f"{where}: output {name!r} {wrong}, against one caller on one thread")


def _summary(mode: Mode, threads: int, callers: int, times: list[float], elapsed: float) -> Concurrency:
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return Concurrency(
        mode=mode,
        threads=threads,
        callers=callers,
        runs=len(times),
        runs_per_s=len(times) / elapsed if elapsed > 0 else 0.0,
        p50_ms=1e3 * float(p50),
        p99_ms=1e3 * float(p99),
    )
