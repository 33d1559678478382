# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime makes of a model, and which source nodes each of its kernels stands for.

The runtime keeps a node's name when it replaces the node, alone or within a longer name (`conv_token_1`,
`fc/MatMulAddFusion`, `fused fc`), and mostly keeps the names of the tensors. So a copy of the model whose
nodes carry unique marks as names comes back with the marks on the kernels; a kernel without one is found by
the tensor that it makes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import BackendError
from .config import SessionConfig
from .graph_view import Scope, label, scopes_of
from .session import Level, make_session, session_options
from .source import ModelSource, graph_proto, loadable

if TYPE_CHECKING:
    import onnx

_DEFAULT = SessionConfig()
_MODEL, _WEIGHTS = "optimized.onnx", "optimized.bin"
_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"
_WEIGHTS_MIN = "session.optimized_model_external_initializers_min_size_in_bytes"
_SMALL = 1024  # bytes of an initializer that stays within the proto: scales, zero points, shapes
_MARK = re.compile(r"tersor_(\d+)_")
_LAYOUTS = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
_BODY = "_inlfunc_"  # prefix of tensors that come from an operator spelled as a function


@dataclass(frozen=True, eq=False)
class SourceNode:
    """A node of the model as it was given: `label` is its own name (or `Op(output)` when it has none)."""

    index: int
    label: str
    node: onnx.NodeProto
    scope: Scope


@dataclass(frozen=True, eq=False)
class Kernel:
    """A node of the optimized graph and the source nodes it stands for (none: the runtime added it)."""

    node: onnx.NodeProto
    scope: Scope
    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Optimized:
    """The two graphs side by side; weights of over 1 KiB stay in files, which live within the block only."""

    sources: Sequence[SourceNode]
    kernels: Sequence[Kernel]
    proto: onnx.ModelProto
    path: Path


def optimized_graph(
    source: ModelSource, config: SessionConfig = _DEFAULT, level: Level = "all", *, weights: bool = False
) -> onnx.ModelProto:
    """The graph that onnxruntime runs, with the runtime's own names.

    Args:
        source: path, bytes or proto.
        config: session config entries and disabled optimizers.
        level: graph optimizations.
        weights: also read the weights of over 1 KiB; otherwise these keep name, type and shape only, and
            refer to a file that no longer exists.

    Raises:
        BackendError: onnxruntime refuses the model.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="tersor-") as name:
        path = _write_optimized(source, config, level, Path(name), None)
        return onnx.load(str(path), load_external_data=weights)


@contextmanager
def optimized_with_sources(
    source: ModelSource, config: SessionConfig = _DEFAULT, level: Level = "all"
) -> Generator[Optimized]:
    """The optimized graph with each kernel charged to its source nodes; files vanish after the block.

    Raises:
        BackendError: onnxruntime refuses the model.
    """
    import onnx

    proto, folder = graph_proto(source)
    scopes = scopes_of(proto, folder)
    sources = [
        SourceNode(index, label(node), node, scope)
        for index, (scope, node) in enumerate((s, n) for s in scopes for n in s.graph.node)
    ]
    with tempfile.TemporaryDirectory(prefix="tersor-") as name:
        for item in sources:
            item.node.name = f"tersor_{item.index}_"
        path = _write_optimized(proto, config, level, Path(name), folder)
        for item in sources:
            item.node.name = item.label
        result = onnx.load(str(path), load_external_data=False)
        yield Optimized(sources, _kernels(result, sources, path.parent), result, path)


def _write_optimized(
    source: ModelSource, config: SessionConfig, level: Level, into: Path, folder: Path | None
) -> Path:
    target = into / _MODEL
    entries = {**config.config, _WEIGHTS_FILE: _WEIGHTS, _WEIGHTS_MIN: str(_SMALL)}
    options = session_options(SessionConfig(entries, config.disabled_optimizers), threads=1, level=level)
    options.optimized_model_filepath = str(target)
    make_session(loadable(source, folder), options, config)
    if not target.is_file():
        raise BackendError("onnxruntime did not write its optimized graph; is the temporary folder full?")
    return target


def _kernels(proto: onnx.ModelProto, sources: Sequence[SourceNode], folder: Path) -> list[Kernel]:
    by_output = {name: item for item in sources for name in item.node.output if name}
    scopes = scopes_of(proto, folder)
    found: list[Kernel] = []
    for scope in scopes:
        marks = [_marked(node, by_output) for node in scope.graph.node]
        position = {name: i for i, node in enumerate(scope.graph.node) for name in node.output if name}
        # Backwards, so that a function body's inner nodes find the node that ends the body already marked.
        for i in range(len(marks) - 1, -1, -1):
            node = scope.graph.node[i]
            if not marks[i] and node.output and node.output[0].startswith(_BODY):
                for reader in scope.consumers.get(node.output[0], []):
                    marks[i] |= marks[position[reader.output[0]]] if reader.output[0] in position else set()
        found.extend(
            Kernel(node, scope, tuple(sorted(mark)))
            for node, mark in zip(scope.graph.node, marks, strict=True)
        )
    return found


def _marked(node: onnx.NodeProto, by_output: dict[str, SourceNode]) -> set[int]:
    marks = {int(found) for found in _MARK.findall(node.name)}
    # A kernel of the blocked layout is called after the tensor that its source made.
    for name in [*node.output, node.name.removesuffix("_nchwc")]:
        item = by_output.get(name)
        # A change of layout that the runtime added takes over the name of the tensor behind it.
        if item is not None and (node.op_type not in _LAYOUTS or item.node.op_type == node.op_type):
            marks.add(item.index)
    return marks
