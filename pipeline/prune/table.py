# SPDX-License-Identifier: Apache-2.0
"""How long a linear layer takes at a few widths, measured once per machine and kept in a cache folder.

The time of a layer is not proportional to its MACs: a convolution of 16 channels takes far more than a
quarter of the time of one of 64. So each distinct layer is timed by itself at whole, half and quarter width
in and out, and widths between are interpolated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...backends.base import BackendError, Feed
from ...backends.onnxruntime.config import SessionConfig
from ...backends.onnxruntime.cpu import host
from ...backends.onnxruntime.latency import measure, session_runners
from ...graph_ir import DataError, TersorError, atomic_write
from ...graph_ir.json_text import read_object
from .layers import Layer
from .widths import LEAST

if TYPE_CHECKING:
    import onnx

_FORMAT = 2
_SHARES = (0.25, 0.5, 1.0)
_ROUNDS = 5
_MIN_TIME_S = 0.003

Timer = Callable[[Layer, Sequence[tuple[int, int]], int], "list[float] | None"]
"""Milliseconds of a layer at pairs of widths (in, out) with so many threads; None when it cannot run."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Milliseconds `ms[i, j]` of a layer with `inputs[i]` channels in and `outputs[j]` out; both ascend."""

    inputs: NDArray[np.float64]
    outputs: NDArray[np.float64]
    ms: NDArray[np.float64]

    def at(self, inputs: float, outputs: float) -> float:
        """Milliseconds at any widths: bilinear between measured ones and on below them; never below 0."""
        i, u = _place(self.inputs, inputs)
        j, v = _place(self.outputs, outputs)
        low = self.ms[i, j] * (1 - v) + self.ms[i, min(j + 1, len(self.outputs) - 1)] * v
        above = min(i + 1, len(self.inputs) - 1)
        high = self.ms[above, j] * (1 - v) + self.ms[above, min(j + 1, len(self.outputs) - 1)] * v
        return max(0.0, float(low * (1 - u) + high * u))


def _place(marks: NDArray[np.float64], width: float) -> tuple[int, float]:
    """The mark below, and how far on the way to the next one."""
    if len(marks) == 1:
        return 0, 0.0
    index = min(max(int(np.count_nonzero(marks <= width)) - 1, 0), len(marks) - 2)
    return index, float((width - marks[index]) / (marks[index + 1] - marks[index]))


def cache_folder(given: Path | None = None) -> Path:
    """Where tables are kept: the folder given, else `tersor` in the user's cache folder."""
    if given is not None:
        return given
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "tersor"


class Table:
    """Measured layers of one machine, runtime version and number of threads.

    Args:
        folder: the cache; made when missing. One that cannot be written is done without; see `unkept`.
        threads: of a run.
        timer: in place of measuring, for tests.
        progress: told how many layers of how many are done.

    Attributes:
        measured: how many layers were timed rather than read.
        unkept: why measured layers could not be kept; empty when they could.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        *,
        timer: Timer | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._threads = threads
        self._timer = _time_layer if timer is None else timer
        self._progress = progress
        here = host()
        facts = [_FORMAT, here.system, here.machine, here.cpu, here.flags, here.onnxruntime, threads]
        name = blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
        self._facts = {**here.to_dict(), "threads": threads}
        self.path = folder / f"latency-{name}.json"
        self._entries: dict[str, Any] = _read(self.path)
        self.measured = 0
        self.unkept = ""

    def grids(self, layers: Sequence[Layer], align: int) -> list[Grid | None]:
        """A grid for each layer, None for one that onnxruntime does not run; new ones are kept at once.

        Args:
            layers: of a model; equal ones are measured once.
            align: the widths to measure at are multiples of it where they can be.
        """
        distinct = list({layer.key: layer for layer in layers}.values())
        for done, layer in enumerate(distinct):
            name = f"{align} {layer.key}"
            if self._progress is not None:
                self._progress(done, len(distinct))
            if name not in self._entries:
                self._entries[name] = self._measure(layer, align)
                self.measured += 1
                self._save()
        return [_grid(self._entries[f"{align} {layer.key}"]) for layer in layers]

    def _measure(self, layer: Layer, align: int) -> dict[str, Any] | None:
        ins = marks(layer.inputs, align, layer.group if not layer.depthwise else 1)
        outs = [layer.outputs] if layer.depthwise else marks(layer.outputs, align, layer.group)
        pairs = [(i, o) for i in ins for o in outs]
        times = self._timer(layer, pairs, self._threads)
        if times is None:
            return None
        ms = np.array(times).reshape(len(ins), len(outs))
        # More channels never take less time: what says so is noise of the clock.
        ms = np.maximum.accumulate(np.maximum.accumulate(ms, 0), 1)
        return {"inputs": ins, "outputs": outs, "ms": ms.tolist()}

    def _save(self) -> None:
        document = {"format": _FORMAT, "host": self._facts, "layers": self._entries}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as beside:
                beside.write_text(json.dumps(document), encoding="utf-8")
        except (OSError, TersorError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.unkept = (
                f"layers were timed, but cannot be kept for the next run in {str(self.path.parent)!r} "
                f"({reason}); name another folder by --cache or XDG_CACHE_HOME"
            )


def marks(width: int, align: int, group: int = 1) -> list[int]:
    """The widths a layer is measured at: a quarter, a half and all of it, as multiples of `align`.

    Where `align` is no divisor of the width, of a smaller power of two; always of `group`, too. Of a width of
    one step that may be halved, also at half of it.
    """
    step = align
    while step > 1 and width % step:
        step //= 2
    if step == width and width // 2 >= LEAST:
        step = width // 2
    step = max(step, group)
    found = {max(step, int(width * share) // step * step) for share in _SHARES}
    return sorted({mark for mark in found if mark < width and mark % group == 0} | {width})


def _read(path: Path) -> dict[str, Any]:
    """The layers in a cache file; none where it is missing or not one of ours."""
    try:
        layers: object = read_object(path).get("layers")
    except DataError:
        return {}
    if not isinstance(layers, dict):
        return {}
    entries = cast("dict[str, Any]", layers)
    return {name: entry for name, entry in entries.items() if entry is None or _grid(entry) is not None}


def _grid(entry: Any) -> Grid | None:
    try:
        ins, outs = np.asarray(entry["inputs"], np.float64), np.asarray(entry["outputs"], np.float64)
        ms = np.asarray(entry["ms"], np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    return Grid(ins, outs, ms) if ms.shape == (ins.size, outs.size) and np.isfinite(ms).all() else None


def _time_layer(layer: Layer, pairs: Sequence[tuple[int, int]], threads: int) -> list[float] | None:
    """Time a layer at all pairs of widths, turn by turn; each with its own input, so one after the other."""
    found: list[float] = []
    try:
        call = _least_ms(_nothing(), {"x": np.zeros((1, 1), np.float32)}, threads)
        for inputs, outputs in pairs:
            time = _least_ms(layer.proto(inputs, outputs), layer.feed(inputs), threads)
            # A model is called once, however many layers it has.
            found.append(max(time - call, time / 10))
    except BackendError:
        return None
    return found


def _least_ms(model: onnx.ModelProto, feed: Feed, threads: int) -> float:
    """The least of a few short turns: what other programs take from the machine only ever adds."""
    with session_runners({"model": (model, SessionConfig())}, [feed], threads=threads) as runners:
        times = measure(runners, rounds=_ROUNDS, min_time=_MIN_TIME_S, budget_s=1.0)
    return min(times["model"].turns_ms)


def _nothing() -> onnx.ModelProto:
    """A model that does next to nothing."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "nothing", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
