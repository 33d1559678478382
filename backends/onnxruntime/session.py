# SPDX-License-Identifier: Apache-2.0
"""A model opened in onnxruntime on CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ...analysis.cores import MOST_THREADS
from ...graph_ir.errors import DataError, ModelError, UsageError
from ..base import BackendError, Feed, Port
from .config import SessionConfig
from .runtime import PROVIDER, SILENT, one_line_errors, optimization_level, runtime
from .source import Loadable, ModelSource, loadable

if TYPE_CHECKING:
    from types import TracebackType

    import onnxruntime
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ...graph_ir import Model

Level: TypeAlias = Literal["off", "basic", "extended", "all"]

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_SPINNING = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")
_DEFAULT = SessionConfig()
_IDLE = "{} has no outputs, so there is nothing to run"
_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "object",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "complex64": "complex64", "complex128": "complex128",
}  # fmt: skip


class OrtSession:
    """An onnxruntime CPU session; a context manager, and safe to call from several threads at once.

    Args:
        source: path, bytes or proto.
        config: what `session.json` says.
        threads: threads of one run (intra-op); 0 leaves the number to onnxruntime (all cores).
        level: graph optimizations: off, basic, extended, all.
        spinning: None leaves onnxruntime's default (idle threads spin). False switches spinning off: sessions
            that live side by side otherwise burn each other's cores while one of them waits.
        folder: where the external weights of a model given as bytes or proto lie.

    Raises:
        ModelError: no such file.
        BackendError: onnxruntime is missing or refuses the model; the message names the node.
    """

    def __init__(
        self,
        source: ModelSource,
        config: SessionConfig = _DEFAULT,
        *,
        threads: int = 0,
        level: Level = "all",
        spinning: bool | None = None,
        folder: Path | None = None,
    ) -> None:
        item = loadable(source, folder)
        options = session_options(config, threads=threads, level=level, spinning=spinning)
        self.title = item.title
        try:
            self._session: onnxruntime.InferenceSession | None = make_session(item, options, config)
        except BackendError as error:
            raise BackendError(_cause(source, str(error))) from error
        self._inputs = tuple(_port(arg) for arg in self._session.get_inputs())
        self._outputs = tuple(_port(arg) for arg in self._session.get_outputs())
        if not self._outputs:
            raise BackendError(_IDLE.format(item.title))
        self._optional = frozenset(arg.name for arg in self._session.get_overridable_initializers())
        self._silent = _silent_run()

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What a feed must hold, in signature order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What `run` returns, in order."""
        return self._outputs

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """The outputs (all, or those named) in order.

        Raises:
            DataError: when the feed does not fit the signature (names, dtypes, ranks, fixed dimensions).
            BackendError: when the session is closed or the run fails; the message names the node.
        """
        self.check(feed)
        return self.run_unchecked(feed, outputs)

    def run_unchecked(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """`run` for a feed that `check` has accepted: nothing stands between the clock and the model."""
        session = self._session
        if session is None:
            raise BackendError(f"the session of {self.title} is closed; open it again")
        with one_line_errors(f"{self.title} failed"):
            return session.run(outputs, feed, self._silent)

    def check(self, feed: Feed) -> None:
        """Hold a feed against the signature.

        Raises:
            DataError: with the first thing that does not fit.
        """
        if not isinstance(feed, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - users' feeds
            raise DataError(f"a feed must be a dict of input name to array, not {type(feed).__name__}")
        for port in self._inputs:
            if port.name not in feed:
                raise DataError(f"{self.title} needs the input {port.name!r}; the feed has {sorted(feed)}")
            _check_array(port, feed[port.name])
        known = {port.name for port in self._inputs} | self._optional
        extra = sorted(set(feed) - known)
        if extra:
            raise DataError(
                f"{self.title} has no input {extra[0]!r}; it takes {[p.name for p in self._inputs]}"
            )

    def close(self) -> None:
        """Free the session; closing twice is fine."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def session_options(
    config: SessionConfig, *, threads: int = 0, level: Level = "all", spinning: bool | None = None
) -> onnxruntime.SessionOptions:
    """Options of a silent session; an explicit `spinning` wins over the config's own entry.

    Raises:
        UsageError: for a number of threads below 0 or over 1024.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be between 0, for all cores, and {MOST_THREADS}, not {threads}")
    options = runtime().SessionOptions()
    options.log_severity_level = SILENT
    options.graph_optimization_level = optimization_level(level)
    options.intra_op_num_threads = threads
    entries = dict(config.config)
    if spinning is not None:
        entries |= dict.fromkeys(_SPINNING, "1" if spinning else "0")
    with one_line_errors("the session config is refused"):
        for key, value in entries.items():
            options.add_session_config_entry(key, value)
    return options


def make_session(
    item: Loadable, options: onnxruntime.SessionOptions, config: SessionConfig
) -> onnxruntime.InferenceSession:
    """The bare runtime session.

    Raises:
        BackendError: when onnxruntime refuses the model.
    """
    if item.folder is not None:
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(item.folder.resolve()))
    with one_line_errors(f"onnxruntime does not load {item.title}"):
        session: onnxruntime.InferenceSession = runtime().InferenceSession(
            item.model,
            options,
            providers=[PROVIDER],
            disabled_optimizers=list(config.disabled_optimizers) or None,
        )
    return session


def _cause(source: ModelSource, said: str) -> str:
    """What is wrong with a model file that onnxruntime refuses, in better words than its own where there are.

    Args:
        source: the model, which is looked into only where it is a file.
        said: onnxruntime's words.
    """
    from ...analysis.shapes import misfit
    from ...graph_ir import load

    with suppress(ModelError):  # what the runtime said is all there is then
        model = load(source) if isinstance(source, (str, Path)) else None
        if model is not None:
            return _refused(model, misfit(model, said)) if model.graph.outputs else _IDLE.format(source)
    return said


def _refused(model: Model, said: str) -> str:
    """What the runtime said, and the first of the nodes that it cannot run with the reason."""
    from .supports import refusals

    found = refusals(model)
    if not found:
        return said
    (node, reason), *more = found
    return f"{said}; it cannot run node {node!r}: {reason}" + (f" (nor {len(more)} more)" if more else "")


def _silent_run() -> onnxruntime.RunOptions:
    options = runtime().RunOptions()
    options.log_severity_level = SILENT
    return options


def _port(arg: onnxruntime.NodeArg) -> Port:
    inner = arg.type.removeprefix("tensor(").removesuffix(")")
    name = _DTYPES.get(inner) if arg.type.startswith("tensor(") else None
    dtype = np.dtype(name) if name is not None else None
    return Port(arg.name, dtype, tuple(arg.shape) if arg.type.startswith("tensor(") else None)


def _check_array(port: Port, value: NDArray[Any]) -> None:
    if port.dtype is None or port.shape is None:
        return
    if not isinstance(value, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance] - users' feeds
        raise DataError(f"input {port.name!r} must be a numpy array, not {type(value).__name__}")
    same_kind = value.dtype == port.dtype or (port.dtype == object and value.dtype.kind in "OUS")
    if not same_kind:
        raise DataError(
            f"input {port.name!r} is {value.dtype}, the model takes {port.dtype}; convert it with astype"
        )
    fits = len(value.shape) == len(port.shape) and all(
        not isinstance(want, int) or want == got for want, got in zip(port.shape, value.shape, strict=True)
    )
    if not fits:
        wanted = [dim if dim is not None else "?" for dim in port.shape]
        raise DataError(f"input {port.name!r} has shape {list(value.shape)}, the model takes {wanted}")
