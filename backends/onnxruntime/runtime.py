# SPDX-License-Identifier: Apache-2.0
"""The one place where onnxruntime is imported, and where its exceptions become one-line errors."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from ...analysis.runtime_words import explain
from ...graph_ir.errors import one_line
from ..base import BackendError

if TYPE_CHECKING:
    import onnxruntime

PROVIDER = "CPUExecutionProvider"
SILENT = 4  # only fatal lines reach standard error; everything else arrives as an exception

_ERRORS = (
    "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded",
    "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException",
)  # fmt: skip


def runtime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        BackendError: when it is not installed or does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"onnxruntime does not load ({one_line(error)}); install it with `pip install onnxruntime`"
        ) from error
    return onnxruntime


@cache
def runtime_errors() -> tuple[type[Exception], ...]:
    """Every exception class with which onnxruntime reports a failure."""
    runtime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = [getattr(state, name) for name in _ERRORS if hasattr(state, name)]
    return (*found, RuntimeError, ValueError)


@contextmanager
def one_line_errors(doing: str) -> Generator[None]:
    """Turn onnxruntime's exceptions into a `BackendError` that begins with `doing`."""
    try:
        yield
    except BackendError:
        raise
    except runtime_errors() as error:
        raise BackendError(f"{doing}: {explain(str(error))}") from error


def optimization_level(name: str) -> onnxruntime.GraphOptimizationLevel:
    """The level called off, basic, extended or all."""
    levels = runtime().GraphOptimizationLevel
    return {
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[name]
