# SPDX-License-Identifier: Apache-2.0
"""The files that make up a model."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ...graph_ir import ExternalTensor, Model, save
from ...graph_ir.ops import walk_graphs
from ...graph_ir.targets import data_file, format_of


def model_files(model: Model, path: Path) -> list[Path]:
    """The file a model was loaded from, then those of its external weights in the order of their names."""
    places = {
        cast("str", value.const_value.location)
        for graph in walk_graphs(model)
        for value in graph.initializers.values()
        if isinstance(value.const_value, ExternalTensor)
    }
    return [path, *(path.parent / place for place in sorted(places))]


def written_files(path: Path) -> list[Path]:
    """A file that `save` wrote, and the one with its weights if they lie beside it."""
    weights = data_file(path)
    return [path, weights] if weights.is_file() else [path]


def as_protobuf(model: Model, path: Path, folder: Path) -> Path:
    """The model's file if runtimes can open it; a text form is written to `folder` as protobuf."""
    if format_of(path) in (None, "protobuf"):
        return path
    save(model, folder / "original.onnx")
    return folder / "original.onnx"
