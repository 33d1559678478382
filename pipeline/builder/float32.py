# SPDX-License-Identifier: Apache-2.0
"""The original computing in float32, for models that came in 16 bits or float64."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...backends.base import BackendError
from ...graph_ir import DataType, Model, load, save
from ...graph_ir.ops import int_attr, walk_graphs, walk_nodes
from ...passes.base import Context
from .. import manager
from ..instruments import Verify
from ..presets import FREEZE, RAISED
from ..spec import Pipeline, parse
from .settings import BuildSettings

_NO_KERNEL = "Could not find an implementation"
_INSTEAD = "build from its float32 form, by tersor opt IN OUT --passes infer-shapes,to-float"
_OTHERS = frozenset({DataType.FLOAT16, DataType.BFLOAT16, DataType.DOUBLE})


def to_float32(settings: BuildSettings) -> Pipeline:
    """The passes: from float64 only where there is data to tell what that costs; then the lossless ones."""
    types = "{types=fp16,bf16}" if settings.data is None else ""
    return parse(f"{FREEZE},inline,infer-shapes,to-float{types},{RAISED}")


def write(settings: BuildSettings, path: Path, notes: list[str]) -> bool:
    """Write that form of the model and add what is to be said of it; False where there is none.

    There is none where the user says which passes to run.
    """
    if settings.passes is not None or settings.recipe is not None:
        return False
    model, context = load(settings.model), Context(seed=settings.seed)
    if not _declares_others(model):
        return False
    manager.run(to_float32(settings), model, context, [Verify()])
    if not context.counters["to-float"]:
        return False
    notes += [note for note in context.notes if note not in notes]
    save(model, path, provenance=True)
    return True


@contextmanager
def explained(model: Model) -> Generator[None]:
    """Say what to do where onnxruntime has no kernels for the floats that a model computes in.

    Raises:
        BackendError: whatever the block raises, with that beside.
    """
    try:
        yield
    except BackendError as error:
        if _NO_KERNEL in str(error) and _declares_others(model):
            raise BackendError(f"{error}; {_INSTEAD}") from error
        raise


def _declares_others(model: Model) -> bool:
    """Whether there may be something for `to-float`, as far as inputs, weights and Casts tell."""
    graphs = list(walk_graphs(model))
    values = (value for graph in graphs for value in (*graph.inputs, *graph.initializers.values()))
    casts = (int_attr(node, "to", 0) for node in walk_nodes(model) if node.op_type == "Cast")
    return any(value.dtype in _OTHERS for value in values) or any(to in _OTHERS for to in casts)
